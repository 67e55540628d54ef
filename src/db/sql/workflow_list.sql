-- One page of a tenant's workflows, by name.
select w.name, w.version, w.created_at, w.updated_at, v.checksum, v.definition
from workflow w
join workflow_version v on v.tenant = w.tenant and v.workflow = w.name and v.version = w.version
where w.tenant = $1 and w.name > $2 and w.deleted_at is null
order by w.name
limit $3
