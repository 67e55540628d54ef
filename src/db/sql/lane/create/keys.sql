,
-- create keys: won if new or expired; nothing is written behind one that is taken
won as (
    insert into idempotency as i (tenant, scope, key, body_hash, target, expires_at)
    select k.* from unnest($key.tenant, $key.scope, $key.key, $key.body_hash, $key.target, $key.expires_at)
        as k (tenant, scope, key, body_hash, target, expires_at)
    where exists (select from fence)
    on conflict (tenant, scope, key) do update
    set body_hash = excluded.body_hash, target = excluded.target, expires_at = excluded.expires_at
    where i.expires_at <= $now
    returning target
)
