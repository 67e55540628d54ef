-- Finished runs of a tenant behind a place that were created before a time: a bounded piece of the index.
select id, workflow, created_at, finished_at
from run_history
where tenant = $1 and created_at >= $2 and (created_at, id) > ($2, $3) and created_at < $4
order by created_at, id
limit $5
