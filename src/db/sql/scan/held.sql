-- Runs that workers hold, for a takeover.
select id, tenant, workflow, version, state, attempt, retries, priority, rank, due, worker, session, started_at, event,
    replay_of, unparked, freed, labels, traceparent
from open_run
where shard = any($1) and state in (2, 3)
