-- Nothing more is begun. What nobody works on yet is over at once.
update job
set state = case state when 0 then 11 else 2 end, finished_at = case state when 0 then $3 end
where id = $1 and tenant = $2 and state in (0, 1)
returning id, tenant, kind, state, request, created_at, started_at, finished_at, total, done, skipped, failed, place
