-- Stores a token by its hash; no row where the tenant does not exist.
insert into token (id, tenant, name, hash, scopes, created_at, expires_at)
select $1, t.id, $3, $4, $5, $6, $7
from tenant t
where t.id = $2
returning id, tenant, name, scopes, created_at, expires_at, revoked_at
