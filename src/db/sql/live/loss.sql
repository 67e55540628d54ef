-- How often a run was taken from a worker that was lost or never confirmed it, with the last time. A run whose last loss
-- parked it is `parked`, with the error of the loss. A NUL in an error is read as another character: no row may make the
-- statement fail.
select attempt, at, reason, worker, started_at, count(*) over () as times
from run_transition
where run = $1 and tenant = $2 and at >= $3
    and (
        reason in ('worker_lost', 'reassigned')
        or reason = 'parked'
        and replace(convert_from(error, 'UTF8'), chr(92) || 'u0000', chr(92) || 'u0001')::json ->> 'code' = 'worker_lost'
    )
order by at desc, attempt desc
limit 1
