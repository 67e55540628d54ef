drop index run_history_replay;
drop index open_run_replay;
alter table run_history drop column replay_of;
alter table open_run drop column replay_of;
