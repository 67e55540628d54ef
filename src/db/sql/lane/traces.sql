-- After a lost answer: how the rows of a batch stand, by the ids that were chosen before it.
-- Binds: runs, events, the earliest end that the batch may have written.
select o.id, 0::smallint as what, o.state, o.attempt, o.retries, o.session, o.due,
    coalesce(o.input, case
        when o.event is null then (select p.bytes from payload p where p.id = o.id and p.kind = 0)
        else (select e.payload from event e where e.id = o.event)
    end) as input,
    o.metadata, o.traceparent, o.freed
from open_run o
where o.id = any($1)
union all
select h.id, 1::smallint, h.state, h.attempt, h.retries, h.session, null, null, null, null, null
from run_history h
where h.id = any($1) and h.finished_at >= $3
union all
select e.id, 2::smallint, 0::smallint, 0, 0, null, null, null, null, null, null
from event e
where e.id = any($2)
