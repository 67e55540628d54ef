-- The current versions of a tenant's workflows: of one name, or all.
select w.name, w.version, w.created_at, w.updated_at, v.checksum, v.definition
from workflow w
join workflow_version v on v.tenant = w.tenant and v.workflow = w.name and v.version = w.version
where w.tenant = $1 and ($2 is null or w.name = $2) and w.deleted_at is null
