,
-- one open run that moves on, if it is as the scheduler has it
moved as (
    update open_run o
    set
        state = $moved.state, attempt = $moved.attempt, retries = $moved.retries, due = $moved.due,
        worker = $moved.worker, session = $moved.session, started_at = $moved.started_at,
        error = coalesce($moved.error, o.error)
    where exists (select from fence)
        and o.id = $moved.id and o.state = $moved.g_state and o.attempt = $moved.g_attempt
        and ($moved.g_session is null or o.session = $moved.g_session)
    returning
        o.id,
        case when $moved.want then o.input end as input,
        case when $moved.want then o.metadata end as metadata,
        case when $moved.want then o.traceparent end as traceparent
)
