-- What a tenant's readers may have missed although it was made before a time: events and runs made within a span that ends
-- there, newest first, runs as they stand now. What is in it and was told before that time cannot be told apart.
(
    select true as is_event, id, created_at, key as name, 0::smallint as state, 0 as attempt, runs
    from event
    where tenant = $1 and created_at >= $2 and created_at < $3
    order by created_at desc, id desc
    limit $4
)
union all
(
    select false, id, created_at, workflow, state, attempt, '{}'::uuid[]
    from open_run
    where tenant = $1 and created_at >= $2 and created_at < $3
    order by created_at desc, id desc
    limit $4
)
union all
(
    select false, id, created_at, workflow, state, attempt, '{}'::uuid[]
    from run_history
    where tenant = $1 and created_at >= $2 and created_at < $3 and finished_at >= $2
    order by created_at desc, id desc
    limit $4
)
order by created_at desc, id desc
limit $4
