-- How many runs these actions have queued, counted up to $4, and since when the one that waits longest of those could
-- have started: the rank is that time minus 60 s for each class of priority.
select q.tenant, q.action, d.queued, d.oldest
from unnest($1, $2) as q (tenant, action)
cross join lateral (
    select count(*) as queued, min(o.rank + o.priority * $3) as oldest
    from (
        select rank, priority
        from open_run
        where tenant = q.tenant and action = q.action and state = 1
        order by rank
        limit $4
    ) o
) d
