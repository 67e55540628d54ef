,
-- one open run that moves on, if it is as the scheduler has it
moved as (
    update open_run o
    set
        state = $18, attempt = $19, retries = $20, due = $21, worker = $22, session = $23, started_at = $24,
        error = coalesce($25, o.error)
    where exists (select from fence) and o.id = $14 and o.state = $15 and o.attempt = $16 and ($17 is null or o.session = $17)
    returning
        o.id,
        case when $26 then o.input end as input,
        case when $26 then o.metadata end as metadata,
        case when $26 then o.traceparent end as traceparent
)
