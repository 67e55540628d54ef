-- A replay names the run that it repeats. Null costs a row nothing, and the partial indexes hold replays only.
alter table open_run add column replay_of uuid;
alter table run_history add column replay_of uuid;
create index open_run_replay on open_run (tenant, replay_of) where replay_of is not null;
create index run_history_replay on run_history (tenant, replay_of) where replay_of is not null;
