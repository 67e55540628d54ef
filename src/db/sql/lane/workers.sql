/* helve:lane:finish */
-- Workers as they are now, and workers that are gone.
with
fence as materialized (
    select epoch from lane where node = $lane.node and name = 'finish' and epoch = $lane.epoch and not fenced for share
),
put as (
    insert into worker (id, tenant, shard, session, secret, name, sdk, actions, slots, labels, created_at)
    select
        w.id, w.tenant, w.shard, w.session, w.secret, w.name, w.sdk,
        array(select jsonb_array_elements_text(w.actions::jsonb)), w.slots::jsonb, w.labels::jsonb, w.created_at
    from fence, unnest(
        $put.id, $put.tenant, $put.shard, $put.session, $put.secret, $put.name, $put.sdk, $put.actions, $put.slots,
        $put.labels, $put.created_at
    ) as w (id, tenant, shard, session, secret, name, sdk, actions, slots, labels, created_at)
    on conflict (id) do update
    set
        secret = excluded.secret, name = excluded.name, sdk = excluded.sdk, actions = excluded.actions,
        slots = excluded.slots, labels = excluded.labels
),
gone as (
    delete from worker where id = any($gone.id) and exists (select from fence)
)
select null::uuid as id from fence
