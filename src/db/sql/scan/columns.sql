-- What decisions need of an open run, as `StoredRow` reads it.
select
    r.id, r.tenant, r.workflow, r.version, r.state, r.attempt, r.retries, r.priority, r.rank, r.due, r.worker,
    r.session, r.started_at, r.event, r.replay_of, r.unparked, r.freed, r.labels, r.traceparent
