-- The actions that runs of a workflow may need, over all its versions. A definition may hold a NUL, in its input schema,
-- which JSON has and PostgreSQL's text has not: another character is read in its place, whatever stands before it.
select distinct coalesce(task ->> 'action', task ->> 'name') as action
from workflow_version v
cross join lateral json_array_elements(
    replace(convert_from(v.definition, 'UTF8'), chr(92) || 'u0000', chr(92) || 'u0001')::json -> 'tasks'
) as task
where v.tenant = $1 and v.workflow = $2
