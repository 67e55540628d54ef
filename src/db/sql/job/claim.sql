-- The open job of these shards that has waited longest, if nobody alive works on it. A node that is gone has no row.
update job
set
    node = $1, lease_until = clock_timestamp() + make_interval(secs => $3),
    state = case state when 0 then 1 else state end, started_at = coalesce(started_at, $4)
where id = (
    select j.id
    from job j
    where j.state < 10 and j.shard = any($2)
        and (
            j.lease_until is null or j.lease_until <= clock_timestamp()
            or (j.node <> $1 and not exists (select from node n where n.id = j.node))
        )
    order by j.lease_until nulls first, j.id
    limit 1
    for update skip locked
)
returning id, tenant, kind, state, request, created_at, started_at, finished_at, total, done, skipped, failed, place
