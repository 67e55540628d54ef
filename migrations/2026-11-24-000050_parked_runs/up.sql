-- The attempt after which a parked run was last sent to its queue again: what it has spent counts from there. Null, as
-- for nearly every run, costs no byte.
alter table open_run add column unparked integer;
