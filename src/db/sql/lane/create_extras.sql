,
-- create keys: won if new or expired; nothing is written behind one that is taken
won as (
    insert into idempotency as i (tenant, scope, key, body_hash, target, expires_at)
    select k.* from unnest($3, $4, $5, $6, $7, $8) as k (tenant, scope, key, body_hash, target, expires_at)
    where exists (select from fence)
    on conflict (tenant, scope, key) do update
    set body_hash = excluded.body_hash, target = excluded.target, expires_at = excluded.expires_at
    where i.expires_at <= $9
    returning target
),
-- events, each with the runs that it starts
event_in as (
    insert into event (
        id, tenant, created_at, key, source, source_id, metadata, payload, replay_of, skipped, runs
    )
    select
        e.id, e.tenant, e.created_at, e.key, e.source, e.source_id, e.metadata, e.payload,
        e.replay_of, e.skipped, coalesce(s.runs, '{}')
    from unnest($10, $11, $12, $13, $14, $15, $16, $17, $18, $45, $46)
        as e (id, tenant, created_at, key, source, source_id, metadata, payload, gate, replay_of, skipped)
    left join (
        select event, array_agg(run order by run) as runs from unnest($19, $20) as s (event, run) group by event
    ) s on s.event = e.id
    where exists (select from fence) and (e.gate is null or e.gate in (select target from won))
),
-- inputs that are too large to stand in the row
payload_in as (
    insert into payload (id, kind, bytes)
    select p.id, 0, p.bytes from unnest($21, $22, $23) as p (id, bytes, gate)
    where exists (select from fence) and (p.gate is null or p.gate in (select target from won))
),
run_in as (
    insert into open_run (
        id, tenant, created_at, due, started_at, rank, version, attempt, retries, state, shard, priority,
        worker, session, event, workflow, action, traceparent, input, metadata, replay_of, labels
    )
    select
        r.id, r.tenant, r.created_at, r.due, r.started_at, r.rank, r.version, r.attempt, 0, r.state, r.shard,
        r.priority, r.worker, r.session, r.event, r.workflow, r.action, r.traceparent, r.input, r.metadata,
        r.replay_of, r.labels
    from unnest(
        $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40, $41, $42, $43,
        $44, $47
    ) as r (
        id, tenant, created_at, due, started_at, rank, version, attempt, state, shard, priority,
        worker, session, event, workflow, action, traceparent, input, metadata, gate, replay_of, labels
    )
    where exists (select from fence) and (r.gate is null or r.gate in (select target from won))
)
-- one row says that the lane is ours, the others which keys were won
select null::uuid as id from fence
union all
select target from won
