-- Open runs by id.
from open_run r
where r.id = any($1)
