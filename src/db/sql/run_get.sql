-- One run wherever it stands. Its move from open to history is one statement, so exactly one of both answers.
with found as (
    -- not final
    select
        id, tenant, state, version, attempt, retries, priority, worker, event, workflow, traceparent,
        replay_of, input, metadata, null::bytea as output, error,
        case when state = 0 then due end as due, started_at, null::timestamptz as finished_at
    from open_run
    where id = $1 and tenant = $2
    union all
    -- final: it ended after it began, which leaves out older weeks
    (
        select
            id, tenant, state, version, attempt, retries, priority, worker, event, workflow, traceparent,
            replay_of, input, metadata, output, error,
            null::timestamptz as due, started_at, finished_at
        from run_history
        where id = $1 and tenant = $2 and finished_at >= $3
        limit 1
    )
)
select
    f.id, f.tenant, f.state, f.version, f.attempt, f.retries, f.priority, f.worker, f.event, f.workflow, f.traceparent,
    f.replay_of, f.metadata, f.error, f.due, f.started_at, f.finished_at,
    -- a large input stands apart, the input of an event's run with the event
    coalesce(f.input, case
        when f.event is null then (select p.bytes from payload p where p.id = f.id and p.kind = 0)
        else (select e.payload from event e where e.id = f.event)
    end) as input,
    coalesce(f.output, case
        when f.state = 10 then (select p.bytes from payload p where p.id = f.id and p.kind = 1)
    end) as output,
    -- what it says of itself while it runs
    (select l.progress from run_live l where l.run = f.id) as progress
from found f
limit 1
