-- The attempt whose slots its worker gave back although it goes on: a takeover must not count them as held. Null, as for
-- nearly every run, costs no byte.
alter table open_run add column freed integer;
