/* helve:lane:finish */
-- A pause as it is now.
with
fence as materialized (
    select epoch from lane where node = $1 and name = 'finish' and epoch = $2 and not fenced for share
),
put as (
    insert into pause
        (tenant, shard, kind, target, reason, by_token, by_name, since, expires_at, rate, resumed_at, actions)
    select $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14
    from fence
    on conflict (tenant, kind, target) do update
    set
        reason = excluded.reason, by_token = excluded.by_token, by_name = excluded.by_name, since = excluded.since,
        expires_at = excluded.expires_at, rate = excluded.rate, resumed_at = excluded.resumed_at,
        actions = excluded.actions
)
select epoch from fence
