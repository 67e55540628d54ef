,
-- one run without a key, an event or a large input: alone, a list costs more than the row
run_in as (
    insert into open_run (
        id, tenant, created_at, due, started_at, rank, version, attempt, retries, state, shard, priority,
        worker, session, workflow, action, traceparent, input, metadata
    )
    select
        $24, $25, $26, $27, $28, $29, $30, $31, 0, $32, $33, $34, $35, $36, $38, $39, $40, $41, $42
    where exists (select from fence)
)
-- the lane is ours
select null::uuid as id from fence
