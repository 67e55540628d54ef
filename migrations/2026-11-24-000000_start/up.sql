-- The first schema. docs/decisions/ says why it looks like this.
-- A run that is not final stands in open_run; its end moves it to run_history. Ids are UUIDv7 made by the engine.

create table tenant (
    id uuid primary key,
    name text not null unique,
    shard smallint not null,
    created_at timestamptz not null
);

create table token (
    id uuid primary key,
    tenant uuid not null references tenant (id),
    name text not null,
    -- SHA-256 of the whole token: 256 random bits need no slow hash
    hash bytea not null unique,
    scopes smallint not null,
    created_at timestamptz not null,
    expires_at timestamptz,
    revoked_at timestamptz
);
create index token_tenant on token (tenant, created_at);

create table workflow (
    tenant uuid not null references tenant (id),
    name text not null,
    -- what a trigger starts
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    deleted_at timestamptz,
    primary key (tenant, name)
);

create table workflow_version (
    tenant uuid not null,
    workflow text not null,
    version integer not null,
    checksum bytea not null,
    definition bytea not null,
    created_at timestamptz not null,
    primary key (tenant, workflow, version),
    unique (tenant, workflow, checksum)
);

-- Who owns what. All times in node are the database's.
create table node (
    id uuid primary key,
    -- for people: host and process
    name text not null,
    started_at timestamptz not null,
    expires_at timestamptz not null
);

-- One row for each group-commit writer: every batch reads its row FOR SHARE with its epoch.
create table lane (
    node uuid not null,
    name text not null,
    epoch bigint not null,
    fenced boolean not null default false,
    -- the backend that may still be executing this lane's last statement
    pid integer not null,
    backend_start timestamptz not null,
    primary key (node, name)
);

create table shard (
    id smallint primary key,
    owner uuid,
    epoch bigint not null default 0
);
insert into shard (id) select generate_series(0, 63);

create table worker (
    id uuid primary key,
    tenant uuid not null,
    shard smallint not null,
    session uuid not null unique,
    -- SHA-256 of the session's secret
    secret bytea not null,
    name text not null,
    sdk text not null,
    actions text[] not null,
    slots jsonb not null,
    labels jsonb not null,
    created_at timestamptz not null
);
create index worker_shard on worker (shard);

create table open_run (
    id uuid primary key,
    tenant uuid not null,
    created_at timestamptz not null,
    -- the next timer: the start while scheduled, the schedule timeout while queued, an extended deadline while running
    due timestamptz,
    started_at timestamptz,
    -- the order in the queue: enqueued time minus priority classes, in microseconds; constant for a run
    rank bigint not null,
    version integer not null,
    -- fencing number of the last assignment
    attempt integer not null,
    retries integer not null,
    -- 0 scheduled, 1 queued, 2 running, 3 suspended, 4 parked
    state smallint not null,
    shard smallint not null,
    priority smallint not null,
    -- 0 single-task run; steps and roots of larger workflows come later
    kind smallint not null default 0,
    worker uuid,
    session uuid,
    event uuid,
    root uuid,
    workflow text not null,
    action text not null,
    traceparent text,
    -- inline up to 1 KiB, else in payload; null: in payload or the event's
    input bytea,
    metadata bytea,
    error bytea
) with (
    fillfactor = 70,
    -- rows live for milliseconds: vacuum by a fixed count of dead rows, at full speed
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 20000,
    autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 100000,
    autovacuum_vacuum_insert_threshold = -1,
    autovacuum_vacuum_cost_delay = 0
);
-- No secondary index may contain id: see docs/decisions/0002.
create index open_run_list on open_run (tenant, created_at);
create index open_run_queue on open_run (tenant, action, rank) where state = 1;
create index open_run_due on open_run (shard, due) where due is not null;
create index open_run_held on open_run (shard) where state in (2, 3);

-- What is final. Insert-only, in weeks of finished_at that retention drops whole.
create table run_history (
    id uuid not null,
    tenant uuid not null,
    created_at timestamptz not null,
    finished_at timestamptz not null,
    started_at timestamptz,
    version integer not null,
    attempt integer not null,
    retries integer not null,
    -- 10 succeeded, 11 failed, 12 cancelled, 13 skipped
    state smallint not null,
    priority smallint not null,
    kind smallint not null,
    worker uuid,
    session uuid,
    event uuid,
    root uuid,
    workflow text not null,
    action text not null,
    traceparent text,
    input bytea,
    metadata bytea,
    output bytea,
    error bytea
) partition by range (finished_at);
create index run_history_id on run_history (id);
create index run_history_list on run_history (tenant, created_at);
create index run_history_unusual on run_history (tenant, state, created_at) where state <> 10;

-- Bytes over 1 KiB, and the payloads of events. Insert-only, never moved.
create table payload (
    id uuid not null,
    -- 0 input, 1 output
    kind smallint not null,
    bytes bytea not null,
    primary key (id, kind)
) partition by range (id);

create table event (
    id uuid not null primary key,
    tenant uuid not null,
    created_at timestamptz not null,
    key text not null,
    source text,
    source_id text,
    metadata bytea,
    payload bytea not null,
    -- the runs that it started
    runs uuid[] not null
) partition by range (id);
create index event_list on event (tenant, created_at);

create table idempotency (
    tenant uuid not null,
    -- the workflow's name, or the source of an event behind a NUL-free mark
    scope text not null,
    key text not null,
    body_hash bytea not null,
    target uuid not null,
    expires_at timestamptz not null,
    primary key (tenant, scope, key)
);
create index idempotency_expiry on idempotency (expires_at);

-- Only what is unusual: a happy run has none.
create table run_transition (
    run uuid not null,
    tenant uuid not null,
    at timestamptz not null,
    attempt integer not null,
    -- the state that it came to
    state smallint not null,
    -- retry, released, reassigned, worker_lost, timeout, cancelled, schedule_timeout
    reason text not null,
    worker uuid,
    error bytea
) partition by range (at);
create index run_transition_run on run_transition (run, at);
