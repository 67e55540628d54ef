-- Ended runs by id; none of them ended before the first was made.
select id, tenant, state, attempt, session
from run_history
where id = any($1) and finished_at >= $2
