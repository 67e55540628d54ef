-- Jobs before a place, newest first.
select id, tenant, kind, state, request, created_at, started_at, finished_at, total, done, skipped, failed, place
from job
where tenant = $1 and ($2 is null or id < $2) and ($3 is null or kind = $3) and ($4 is null or state = $4)
order by id desc
limit $5
