-- Every tenant, or the one of a name.
select id, name, created_at, retention
from tenant
where $1 is null or name = $1
order by name
