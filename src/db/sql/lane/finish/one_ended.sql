,
-- one open run that ends, if it is as the scheduler has it: alone, a list costs more than the row
ended as (
    delete from open_run o
    where exists (select from fence)
        and o.id = $ended.id and o.state = $ended.g_state and o.attempt = $ended.g_attempt
        and ($ended.g_session is null or o.session = $ended.g_session)
    returning
        o.id, o.tenant, o.created_at, o.started_at, o.version, o.attempt, o.retries, o.priority, o.kind, o.worker,
        o.session, o.event, o.root, o.replay_of, o.workflow, o.action, o.traceparent, o.input,
        o.metadata,
        $ended.state as to_state, $ended.output as to_output, $ended.error as to_error,
        $ended.finished_at as to_finished_at
)
