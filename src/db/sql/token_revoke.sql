-- Revokes a token; a second time changes nothing. No row: there is no such token.
update token
set revoked_at = coalesce(revoked_at, $2)
where id = $1
returning id, tenant, name, scopes, created_at, expires_at, revoked_at
