,
-- runs with what is unusual: a key, an event, labels of their own, a run that they repeat
run_in as (
    insert into open_run (
        id, tenant, created_at, due, started_at, rank, version, attempt, retries, state, shard, priority,
        worker, session, event, workflow, action, traceparent, input, metadata, replay_of, labels
    )
    select
        r.id, r.tenant, r.created_at, r.due, r.started_at, r.rank, r.version, r.attempt, 0, r.state, r.shard,
        r.priority, r.worker, r.session, r.event, r.workflow, r.action, r.traceparent, r.input, r.metadata,
        r.replay_of, r.labels
    from unnest(
        $run.id, $run.tenant, $run.created_at, $run.due, $run.started_at, $run.rank, $run.version, $run.attempt,
        $run.state, $run.shard, $run.priority, $run.worker, $run.session, $run.event, $run.workflow, $run.action,
        $run.traceparent, $run.input, $run.metadata, $run.provided, $run.replay_of, $run.labels
    ) as r (
        id, tenant, created_at, due, started_at, rank, version, attempt, state, shard, priority,
        worker, session, event, workflow, action, traceparent, input, metadata, provided, replay_of, labels
    )
    where exists (select from fence) and (r.provided is null or r.provided in (select target from won))
)
