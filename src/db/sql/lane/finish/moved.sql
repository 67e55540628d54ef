,
-- open runs that move on, if they are as the scheduler has them
moved as (
    update open_run o
    set
        state = x.state, attempt = x.attempt, retries = x.retries, due = x.due, worker = x.worker,
        session = x.session, started_at = x.started_at, error = coalesce(x.error, o.error)
    from (
        select m.* from unnest(
            $moved.id, $moved.g_state, $moved.g_attempt, $moved.g_session, $moved.state, $moved.attempt,
            $moved.retries, $moved.due, $moved.worker, $moved.session, $moved.started_at, $moved.error, $moved.want,
            $moved.reason, $moved.whose
        ) as m (
            id, g_state, g_attempt, g_session, state, attempt, retries, due, worker, session, started_at, error,
            want, reason, whose
        )
    ) x
    where exists (select from fence)
        and o.id = any($moved.id)
        and o.id = x.id and o.state = x.g_state and o.attempt = x.g_attempt
        and (x.g_session is null or o.session = x.g_session)
    returning
        o.id, o.tenant, o.attempt, o.state, o.event, x.want, x.reason, x.whose, x.error as to_error,
        case when x.want then o.input end as input,
        case when x.want then o.metadata end as metadata,
        case when x.want then o.traceparent end as traceparent
)
