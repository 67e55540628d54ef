-- What was unusual in the life of one run, in its order.
select attempt, state, at, reason
from run_transition
where run = $1 and tenant = $2 and at >= $3
order by at, attempt
