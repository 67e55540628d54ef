/* helve:lane:finish */
-- Workers as they are now, and workers that are gone.
with
fence as materialized (
    select epoch from lane where node = $1 and name = 'finish' and epoch = $2 and not fenced for share
),
put as (
    insert into worker (id, tenant, shard, session, secret, name, sdk, actions, slots, labels, created_at)
    select
        w.id, w.tenant, w.shard, w.session, w.secret, w.name, w.sdk,
        array(select jsonb_array_elements_text(w.actions::jsonb)), w.slots::jsonb, w.labels::jsonb, w.created_at
    from fence, unnest($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
        as w (id, tenant, shard, session, secret, name, sdk, actions, slots, labels, created_at)
    on conflict (id) do update
    set
        secret = excluded.secret, name = excluded.name, sdk = excluded.sdk, actions = excluded.actions,
        slots = excluded.slots, labels = excluded.labels
),
gone as (
    delete from worker where id = any($14) and exists (select from fence)
)
select null::uuid as id from fence
