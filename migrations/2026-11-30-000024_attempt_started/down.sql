create or replace view helve_audit.attempt as
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

drop view helve_audit.transition;
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

alter table run_transition drop column started_at;
