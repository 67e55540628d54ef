-- One event.
select id, key, source, source_id, metadata, payload, replay_of, skipped, runs
from event
where id = $1 and tenant = $2
