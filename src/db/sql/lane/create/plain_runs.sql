,
-- runs without a key, an event or a large input: the ordinary case
run_in as (
    insert into open_run (
        id, tenant, created_at, due, started_at, rank, version, attempt, retries, state, shard, priority,
        worker, session, workflow, action, traceparent, input, metadata
    )
    select
        r.id, r.tenant, r.created_at, r.due, r.started_at, r.rank, r.version, r.attempt, 0, r.state, r.shard,
        r.priority, r.worker, r.session, r.workflow, r.action, r.traceparent, r.input, r.metadata
    from unnest(
        $run.id, $run.tenant, $run.created_at, $run.due, $run.started_at, $run.rank, $run.version, $run.attempt,
        $run.state, $run.shard, $run.priority, $run.worker, $run.session, $run.workflow, $run.action,
        $run.traceparent, $run.input, $run.metadata
    ) as r (
        id, tenant, created_at, due, started_at, rank, version, attempt, state, shard, priority,
        worker, session, workflow, action, traceparent, input, metadata
    )
    where exists (select from fence)
)
