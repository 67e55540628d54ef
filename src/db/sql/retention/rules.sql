-- Tenants and workflows, also deleted ones, that say how long runs are kept. The search for the word spares the reading
-- of definitions that do not have it.
select t.id as tenant, t.retention, w.workflow, w.definition
from tenant t
left join (
    select w.tenant, w.name as workflow, v.definition
    from workflow w
    join workflow_version v on v.tenant = w.tenant and v.workflow = w.name and v.version = w.version
    where position('"retention"'::bytea in v.definition) > 0
) w on w.tenant = t.id
where t.shard = any($1) and (t.retention is not null or w.workflow is not null)
order by t.id
