-- Timers of each shard up to a time, at most so many a shard, earliest first.
from unnest($1) as s (shard)
cross join lateral (
    select * from open_run o
    where o.shard = s.shard and o.due is not null and o.due <= $2
    order by o.due
    limit $3
) r
order by r.shard, r.due
