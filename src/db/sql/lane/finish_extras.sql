,
-- outputs that are too large to stand in the row
payload_in as (
    insert into payload (id, kind, bytes)
    select p.id, 1, p.bytes from unnest($29, $30) as p (id, bytes)
    where p.id in (select id from ended)
),
-- what is unusual leaves a trace
transition_in as (
    insert into run_transition (run, tenant, at, attempt, state, reason, worker, error, started_at)
    select id, tenant, to_finished_at, attempt, to_state, reason, worker, to_error, started_at
    from ended where reason is not null
    union all
    select m.id, m.tenant, $31, m.attempt, m.state, m.reason, m.whose, m.to_error, a.started_at
    from moved m
    left join unnest($35, $36) as a (run, started_at) on a.run = m.id
    where m.reason is not null
)
