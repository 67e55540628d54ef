-- Open runs by id.
select id, tenant, workflow, version, state, attempt, retries, priority, rank, due, worker, session, started_at, event,
    replay_of, unparked, freed, labels, traceparent
from open_run
where id = any($1)
