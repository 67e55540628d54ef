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
        $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $38, $39, $40, $41, $42
    ) as r (
        id, tenant, created_at, due, started_at, rank, version, attempt, state, shard, priority,
        worker, session, workflow, action, traceparent, input, metadata
    )
    where exists (select from fence)
)
-- the lane is ours
select null::uuid as id from fence
