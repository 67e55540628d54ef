-- Keeps the last progress of runs, in the order of their ids.
with given as (
    select * from unnest($1::uuid[], $2::uuid[], $3::bytea[]) as g (run, tenant, progress)
)
insert into run_live (run, tenant, lines, bytes, dropped, progress)
select run, tenant, 0, 0, 0, progress from given order by run
on conflict (run) do update set progress = excluded.progress
returning run
