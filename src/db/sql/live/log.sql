-- Log lines of one run of a tenant, from a place on.
select l.place, l.attempt, l.level, l.at, l.message
from run_log l
where l.run = $1 and l.place >= $3 and l.level >= $5
    and exists (select from run_live h where h.run = $1 and h.tenant = $2)
order by l.place
limit $4
