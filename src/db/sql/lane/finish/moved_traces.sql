,
-- an unusual move leaves a trace
moved_trace as (
    insert into run_transition (run, tenant, at, attempt, state, reason, worker, error, started_at)
    select m.id, m.tenant, $now, m.attempt, m.state, m.reason, m.whose, m.to_error, a.started_at
    from moved m
    left join unnest($attempt.run, $attempt.started_at) as a (run, started_at) on a.run = m.id
    where m.reason is not null
)
