-- What a tenant's readers missed, as far as an index tells: events and runs made since a time, oldest first, runs as
-- they stand now.
(
    select true as is_event, id, created_at, key as name, 0::smallint as state, 0 as attempt, runs
    from event
    where tenant = $1 and created_at >= $2
    order by created_at, id
    limit $3
)
union all
(
    select false, id, created_at, workflow, state, attempt, '{}'::uuid[]
    from open_run
    where tenant = $1 and created_at >= $2
    order by created_at, id
    limit $3
)
union all
(
    select false, id, created_at, workflow, state, attempt, '{}'::uuid[]
    from run_history
    where tenant = $1 and created_at >= $2 and finished_at >= $2
    order by created_at, id
    limit $3
)
order by created_at, id
limit $3
