-- Views with a promise: docs/audit.md says what stays as it is while `helve_audit.promise` says version 1.
create schema helve_audit;

create view helve_audit.promise as select 1 as version;

-- The id that the interface shows, as it stands in the tables: `where uuid = helve_audit.uuid('run_..')` uses an index.
create function helve_audit.uuid(id text) returns uuid
language sql immutable strict parallel safe
return right(id, 32)::uuid;

create function helve_audit.id(kind text, id uuid) returns text
language sql immutable strict parallel safe
return kind || '_' || replace(id::text, '-', '');

create function helve_audit.status(state smallint) returns text
language sql immutable strict parallel safe
return case state
    when 0 then 'scheduled'
    when 1 then 'queued'
    when 2 then 'running'
    when 3 then 'suspended'
    when 4 then 'parked'
    when 10 then 'succeeded'
    when 11 then 'failed'
    when 12 then 'cancelled'
    when 13 then 'skipped'
    else 'state ' || state
end;

-- Every run, open or final. A run moves from one table to the other in one statement: a query sees it once.
create view helve_audit.run as
select
    helve_audit.id('run', r.id) as id,
    helve_audit.id('ten', r.tenant) as tenant,
    r.workflow, r.version, r.action,
    helve_audit.status(r.state) as status,
    r.attempt, r.retries, r.priority,
    helve_audit.id('wrk', r.worker) as worker,
    helve_audit.id('ses', r.session) as session,
    helve_audit.id('evt', r.event) as event,
    helve_audit.id('run', r.replay_of) as replay_of,
    coalesce(convert_from(r.metadata, 'UTF8'), '{}')::json as metadata,
    convert_from(r.error, 'UTF8')::json as error,
    r.created_at, r.run_at, r.started_at, r.finished_at,
    r.id as uuid, r.tenant as tenant_uuid
from (
    select
        id, tenant, workflow, version, action, state, attempt, retries, priority, worker, session, event, replay_of,
        metadata, error, created_at, case when state = 0 then due end as run_at, started_at,
        null::timestamptz as finished_at
    from open_run
    union all
    select
        id, tenant, workflow, version, action, state, attempt, retries, priority, worker, session, event, replay_of,
        metadata, error, created_at, null::timestamptz, started_at, finished_at
    from run_history
) r;

-- What was unusual in a run's life: a happy run has no row here.
create view helve_audit.transition as
select
    helve_audit.id('run', t.run) as run,
    helve_audit.id('ten', t.tenant) as tenant,
    t.at, t.attempt,
    helve_audit.status(t.state) as status,
    t.reason,
    helve_audit.id('wrk', t.worker) as worker,
    convert_from(t.error, 'UTF8')::json as error,
    t.run as run_uuid, t.tenant as tenant_uuid
from run_transition t;

-- Attempts that are known by themselves: the current or last one of each run, and each earlier one that left a
-- transition when it ended.
create view helve_audit.attempt as
select
    helve_audit.id('run', a.run) as run,
    helve_audit.id('ten', a.tenant) as tenant,
    a.attempt,
    helve_audit.id('wrk', a.worker) as worker,
    a.started_at, a.ended_at, a.outcome,
    convert_from(a.error, 'UTF8')::json as error,
    a.run as run_uuid, a.tenant as tenant_uuid
from (
    select id as run, tenant, attempt, worker, started_at, null::timestamptz as ended_at, 'running' as outcome,
        null::bytea as error
    from open_run
    where state = 2
    union all
    select id, tenant, attempt, worker, started_at, finished_at, helve_audit.status(state), error
    from run_history
    where attempt > 0 and started_at is not null
    union all
    select t.run, t.tenant, t.attempt, t.worker, null, t.at, t.reason, t.error
    from run_transition t
    where t.attempt > 0 and t.worker is not null and t.state < 10
) a;
