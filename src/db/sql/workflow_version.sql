-- One version of a workflow, also of a deleted one: its runs go on with it.
select version, created_at, definition
from workflow_version
where tenant = $1 and workflow = $2 and version = $3
