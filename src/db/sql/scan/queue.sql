-- Queued runs of one action from a place in the queue on. The literal state makes the partial index a candidate.
from open_run r
where r.tenant = $1 and r.action = $2 and r.state = 1 and r.rank >= $3 and (r.rank > $3 or r.id >= $4)
    and ($6 is null or r.workflow = $6) and r.workflow <> all ($7)
order by r.rank, r.id
limit $5
