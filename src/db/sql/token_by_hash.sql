-- The token whose hash this is, also an expired or revoked one.
select id, tenant, name, scopes, created_at, expires_at, revoked_at
from token
where hash = $1
