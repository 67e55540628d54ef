-- One page of a workflow's versions, newest first.
select version, created_at, definition
from workflow_version
where tenant = $1 and workflow = $2 and version < $3
order by version desc
limit $4
