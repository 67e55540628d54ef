,
-- one run without a key, an event or a large input: alone, a list costs more than the row
run_in as (
    insert into open_run (
        id, tenant, created_at, due, started_at, rank, version, attempt, retries, state, shard, priority,
        worker, session, workflow, action, traceparent, input, metadata
    )
    select
        $run.id, $run.tenant, $run.created_at, $run.due, $run.started_at, $run.rank, $run.version, $run.attempt, 0,
        $run.state, $run.shard, $run.priority, $run.worker, $run.session, $run.workflow, $run.action,
        $run.traceparent, $run.input, $run.metadata
    where exists (select from fence)
)
