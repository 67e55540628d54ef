-- Whether the tenant has the run, and what is counted of its log.
select
    coalesce(h.lines, 0) as lines, coalesce(h.bytes, 0) as bytes, coalesce(h.dropped, 0) as dropped, h.progress
from (
    select id from open_run where id = $1 and tenant = $2
    union all
    (select id from run_history where id = $1 and tenant = $2 and finished_at >= $3 limit 1)
) r
left join run_live h on h.run = r.id
limit 1
