-- Runs that workers hold, for a takeover.
from open_run r
where r.shard = any($1) and r.state in (2, 3)
