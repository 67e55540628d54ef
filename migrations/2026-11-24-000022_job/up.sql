-- Bulk work on runs: cancels and replays by filter. A job is worked off by the engine that owns its tenant's shard.
create table job (
    id uuid primary key,
    tenant uuid not null,
    shard smallint not null,
    -- 0 cancel, 1 replay
    kind smallint not null,
    -- 0 queued, 1 running, 2 cancelling, 10 finished, 11 cancelled
    state smallint not null,
    -- what was asked for, as JSON
    request bytea not null,
    created_at timestamptz not null,
    started_at timestamptz,
    finished_at timestamptz,
    -- runs that matched when it was created; in the end those that it decided
    total bigint not null,
    done bigint not null default 0,
    skipped bigint not null default 0,
    failed bigint not null default 0,
    -- the last run that was picked, and whether everything is
    place uuid,
    picked boolean not null default false,
    -- who works on it, by the database's clock
    node uuid,
    lease_until timestamptz
);
create index job_list on job (tenant, id);
create index job_open on job (shard) where state < 10;
create index job_finished on job (finished_at) where finished_at is not null;

-- One run of a job: picked before anything is done to it, so that a successor knows what may be half done.
create table job_item (
    job uuid not null,
    run uuid not null,
    -- null: picked; 0 done, 1 skipped, 2 failed
    outcome smallint,
    -- the run that a replay made
    replay uuid,
    -- why it was skipped or failed
    code text,
    message text,
    primary key (job, run)
);
create index job_item_open on job_item (job) where outcome is null;
create index job_item_unusual on job_item (job, outcome, run) where outcome > 0;
