-- What may not start: workflows, actions and workers that somebody paused. Written by the owner of the tenant's shard,
-- and read by it when it starts.
create table pause (
    tenant uuid not null,
    shard smallint not null,
    -- 0 workflow, 1 action, 2 worker
    kind smallint not null,
    -- the name, or the worker's id as text
    target text not null,
    reason text not null,
    -- the token, and what it was called then
    by_token uuid not null,
    by_name text not null,
    since timestamptz not null,
    expires_at timestamptz,
    -- resumed gently: starts per second, since when, and the actions whose backlog it lets go
    rate double precision,
    resumed_at timestamptz,
    actions text[] not null default '{}',
    primary key (tenant, kind, target)
);
create index pause_shard on pause (shard);
