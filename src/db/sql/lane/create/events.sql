,
-- events, each with the runs that it starts
event_in as (
    insert into event (
        id, tenant, created_at, key, source, source_id, metadata, payload, replay_of, skipped, runs
    )
    select
        e.id, e.tenant, e.created_at, e.key, e.source, e.source_id, e.metadata, e.payload,
        e.replay_of, e.skipped, coalesce(s.runs, '{}')
    from unnest(
        $event.id, $event.tenant, $event.created_at, $event.key, $event.source, $event.source_id, $event.metadata,
        $event.payload, $event.provided, $event.replay_of, $event.skipped
    ) as e (
        id, tenant, created_at, key, source, source_id, metadata, payload, provided, replay_of, skipped
    )
    left join (
        select event, array_agg(run order by run) as runs from unnest($start.event, $start.run) as s (event, run)
        group by event
    ) s on s.event = e.id
    where exists (select from fence) and (e.provided is null or e.provided in (select target from won))
)
