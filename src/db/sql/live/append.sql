-- Stores log lines behind those that are there. A run's lines are written only if its next place is the expected one:
-- whatever became of an earlier try, none is stored twice and readers see no gap. Whoever reads a place sees all before
-- it, since the row of the run is locked until the commit.
with given as (
    select * from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
        as g (run, tenant, expected, lines, bytes, dropped)
),
-- the counts, rows in the order of their runs
head as (
    insert into run_live as l (run, tenant, lines, bytes, dropped)
    select run, tenant, lines, bytes, dropped from given order by run
    on conflict (run) do update
    set lines = l.lines + excluded.lines, bytes = l.bytes + excluded.bytes, dropped = l.dropped + excluded.dropped
    where l.lines = (select g.expected from given g where g.run = excluded.run)
    returning run
),
-- the lines of those that were as expected
written as (
    insert into run_log (run, place, attempt, level, at, message)
    select d.run, d.place, d.attempt, d.level, d.at, d.message
    from unnest($7::uuid[], $8::bigint[], $9::integer[], $10::smallint[], $11::timestamptz[], $12::text[])
        as d (run, place, attempt, level, at, message)
    where d.run in (select h.run from head h)
)
select run from head
