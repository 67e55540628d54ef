,
-- open runs that end, if they are as the scheduler has them
ended as (
    delete from open_run o
    using (
        select e.* from unnest(
            $ended.id, $ended.g_state, $ended.g_attempt, $ended.g_session, $ended.state, $ended.output, $ended.error,
            $ended.finished_at, $ended.reason
        ) as e (id, g_state, g_attempt, g_session, state, output, error, finished_at, reason)
    ) x
    where exists (select from fence)
        and o.id = any($ended.id)
        and o.id = x.id and o.state = x.g_state and o.attempt = x.g_attempt
        and (x.g_session is null or o.session = x.g_session)
    returning
        o.id, o.tenant, o.created_at, o.started_at, o.version, o.attempt, o.retries, o.priority, o.kind, o.worker,
        o.session, o.event, o.root, o.replay_of, o.workflow, o.action, o.traceparent, o.input,
        o.metadata,
        x.state as to_state, x.output as to_output, x.error as to_error, x.finished_at as to_finished_at, x.reason
)
