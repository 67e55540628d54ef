,
-- outputs that are too large to stand in the row
payload_in as (
    insert into payload (id, kind, bytes)
    select p.id, 1, p.bytes from unnest($29, $30) as p (id, bytes)
    where p.id in (select id from ended)
),
-- what is unusual leaves a trace
transition_in as (
    insert into run_transition (run, tenant, at, attempt, state, reason, worker, error)
    select id, tenant, to_finished_at, attempt, to_state, reason, worker, to_error
    from ended where reason is not null
    union all
    select id, tenant, $31, attempt, state, reason, whose, to_error
    from moved where reason is not null
)
