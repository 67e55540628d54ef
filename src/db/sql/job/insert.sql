-- A new job, once for each key of its tenant, unless too many are open. One statement.
with
open_jobs as (
    select count(*) as n from job where tenant = $2 and state < 10
),
won as (
    insert into idempotency as i (tenant, scope, key, body_hash, target, expires_at)
    select $2, 'bulk job', $8, $9, $1, $10 from open_jobs where $8 is not null and n < $11
    on conflict (tenant, scope, key) do update
    set body_hash = excluded.body_hash, target = excluded.target, expires_at = excluded.expires_at
    where i.expires_at <= $6
    returning target
),
put as (
    insert into job (id, tenant, shard, kind, state, request, created_at, total)
    select $1, $2, $3, $4, 0, $5, $6, $7 from open_jobs
    where n < $11 and ($8 is null or exists (select from won))
    returning id
)
select exists (select from put) as made, n < $11 as room from open_jobs
