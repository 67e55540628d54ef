,
-- one open run that ends, if it is as the scheduler has it: alone, a list costs more than the row
ended as (
    delete from open_run o
    where exists (select from fence) and o.id = $4 and o.state = $5 and o.attempt = $6 and ($7 is null or o.session = $7)
    returning
        o.id, o.tenant, o.created_at, o.started_at, o.version, o.attempt, o.retries, o.priority, o.kind, o.worker,
        o.session, o.event, o.root, o.replay_of, o.workflow, o.action, o.traceparent, o.input,
        o.metadata,
        $8 as to_state, $9 as to_output, $10 as to_error, $11 as to_finished_at
)
