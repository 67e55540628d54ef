-- The actions that runs of a workflow may need, over all its versions.
select distinct coalesce(task ->> 'action', task ->> 'name') as action
from workflow_version v
cross join lateral jsonb_array_elements(convert_from(v.definition, 'UTF8')::jsonb -> 'tasks') as task
where v.tenant = $1 and v.workflow = $2
