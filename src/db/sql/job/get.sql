-- One job.
select id, tenant, kind, state, request, created_at, started_at, finished_at, total, done, skipped, failed, place
from job
where id = $1 and tenant = $2
