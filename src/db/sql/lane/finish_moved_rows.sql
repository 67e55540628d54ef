union all
select
    m.id, true,
    case when m.want then coalesce(m.input, case
        when m.event is null then (select p.bytes from payload p where p.id = m.id and p.kind = 0)
        else (select e.payload from event e where e.id = m.event)
    end) end,
    m.metadata, m.traceparent
from moved m
