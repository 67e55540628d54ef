-- Inputs of claimed runs that do not stand in the row: large ones apart, those of an event's runs with the event.
select o.id, coalesce(case
    when o.event is null then (select p.bytes from payload p where p.id = o.id and p.kind = 0)
    else (select e.payload from event e where e.id = o.event)
end, 'null') as input
from open_run o
where o.id = any($1)
