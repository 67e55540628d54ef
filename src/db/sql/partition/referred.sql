-- Whether a run that is open or kept can need a row that has its own id of this week, or that belongs to an event of
-- this week. The runs of an event are made with it: a day more on both sides is plenty.
select
    exists (select from open_run where id >= $1 and id < $2)
    or exists (select from run_history where id >= $1 and id < $2)
    or exists (select from open_run where id >= $3 and id < $4 and event >= $1 and event < $2)
    or exists (select from run_history where id >= $3 and id < $4 and event >= $1 and event < $2) as referred
