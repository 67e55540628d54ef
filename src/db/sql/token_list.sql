-- Tokens of one tenant, or of all, oldest first.
select id, tenant, name, scopes, created_at, expires_at, revoked_at
from token
where $1 is null or tenant = $1
order by tenant, created_at, id
