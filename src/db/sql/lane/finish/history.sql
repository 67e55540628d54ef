,
-- what has ended is insert-only
history_in as (
    insert into run_history (
        id, tenant, created_at, finished_at, started_at, version, attempt, retries, state, priority, kind, worker,
        session, event, root, replay_of, workflow, action, traceparent, input, metadata, output, error
    )
    select
        id, tenant, created_at, to_finished_at, started_at, version, attempt, retries, to_state, priority, kind,
        worker, session, event, root, replay_of, workflow, action, traceparent, input, metadata, to_output, to_error
    from ended
)
