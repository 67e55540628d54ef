-- Queued runs of one action from a place in the queue on. The literal state makes the partial index a candidate.
select id, tenant, workflow, version, state, attempt, retries, priority, rank, due, worker, session, started_at, event,
    replay_of, unparked, freed, labels, traceparent
from open_run
where tenant = $1 and action = $2 and state = 1 and rank >= $3 and (rank > $3 or id >= $4)
    and ($6 is null or workflow = $6) and workflow <> all ($7)
order by rank, id
limit $5
