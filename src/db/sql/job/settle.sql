-- What became of picked runs. Each counts once, whoever says it first; then others may have the job from a time on.
with decided as (
    update job_item i
    set outcome = x.outcome, replay = x.replay, code = x.code, message = x.message
    from unnest($2, $3, $4, $5, $6) as x (run, outcome, replay, code, message)
    where i.job = $1 and i.run = x.run and i.outcome is null
    returning i.outcome
),
counted as (
    select
        count(*) filter (where outcome = 0) as done, count(*) filter (where outcome = 1) as skipped,
        count(*) filter (where outcome = 2) as failed
    from decided
)
update job
set
    done = job.done + c.done, skipped = job.skipped + c.skipped, failed = job.failed + c.failed,
    lease_until = case when node = $7 then clock_timestamp() + make_interval(secs => $8) else lease_until end
from counted c
where id = $1
