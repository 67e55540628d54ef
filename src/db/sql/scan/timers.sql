-- Timers of each shard up to a time, at most so many a shard, earliest first.
select r.id, r.tenant, r.workflow, r.version, r.state, r.attempt, r.retries, r.priority, r.rank, r.due, r.worker,
    r.session, r.started_at, r.event, r.replay_of, r.unparked, r.freed,
    r.labels, r.traceparent
from unnest($1) as s (shard)
cross join lateral (
    select * from open_run o
    where o.shard = s.shard and o.due is not null and o.due <= $2
    order by o.due
    limit $3
) r
order by r.shard, r.due
