-- The end of a job of which nothing is left to do.
update job
set
    total = case state when 2 then total else done + skipped + failed end,
    state = case state when 2 then 11 else 10 end, finished_at = $2, node = null, lease_until = null
where id = $1 and (state = 2 or (state = 1 and picked))
    and not exists (select from job_item i where i.job = $1 and i.outcome is null)
