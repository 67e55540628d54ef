-- Sessions that have used tables of Helve's schema in one transaction for longer than this many seconds, oldest first.
-- Of the session of another role only its number may be known.
select format(
    'session %s (%s, for %s s)', a.pid, coalesce(nullif(a.application_name, ''), a.backend_type, 'another role'),
    coalesce(extract(epoch from clock_timestamp() - a.xact_start)::bigint::text, '?')
) as session
from pg_stat_activity a
where a.pid <> pg_backend_pid()
    and (a.xact_start is null or a.xact_start < clock_timestamp() - make_interval(secs => $1))
    and exists (
        select from pg_locks l
        join pg_class c on c.oid = l.relation
        join pg_namespace n on n.oid = c.relnamespace
        join pg_database d on d.oid = l.database
        where l.pid = a.pid and l.granted and d.datname = current_database() and n.nspname = current_schema()
    )
order by a.xact_start
limit 3
