alter table event drop column replay_of, drop column skipped;
