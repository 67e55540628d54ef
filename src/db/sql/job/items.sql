-- Runs of a job behind a place, in the order of their ids.
select run, outcome, replay, code, message
from job_item
where job = $1 and run > $2 and ($3 is null or outcome = $3)
order by run
limit $4
