-- What became of an event besides its runs. Both are null for an ordinary one.
-- replay_of: the event that it repeats. skipped: the matching workflows whose input schema it does not fit, as JSON.
alter table event add column replay_of uuid, add column skipped bytea;
