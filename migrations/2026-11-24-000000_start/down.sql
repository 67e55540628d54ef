drop table run_transition, idempotency, event, payload, run_history, open_run, worker, shard, lane, node,
    workflow_version, workflow, token, tenant;
