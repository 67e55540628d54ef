-- What a run says while it runs: log lines by their place, and one row of counts and progress for a run that says
-- anything. Both in the week of the run's id, and dropped with it.

create table run_live (
    run uuid not null primary key,
    tenant uuid not null,
    -- lines stored: the place of the next one
    lines bigint not null,
    -- bytes of their messages
    bytes bigint not null,
    -- lines that were not stored, for whatever limit
    dropped bigint not null,
    -- the last progress, as JSON
    progress bytea
) partition by range (run);

create table run_log (
    run uuid not null,
    -- from 0 on, without gaps
    place bigint not null,
    attempt integer not null,
    -- 0 debug, 1 info, 2 warn, 3 error
    level smallint not null,
    at timestamptz not null,
    message text not null,
    primary key (run, place)
) partition by range (run);
