,
-- an unusual end leaves a trace
ended_trace as (
    insert into run_transition (run, tenant, at, attempt, state, reason, worker, error, started_at)
    select id, tenant, to_finished_at, attempt, to_state, reason, worker, to_error, started_at
    from ended where reason is not null
)
