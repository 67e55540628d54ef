-- What is stored of the logs of these runs.
select run, lines, bytes
from run_live
where run = any($1)
