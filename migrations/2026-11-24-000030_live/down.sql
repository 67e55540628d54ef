drop table run_log;
drop table run_live;
