-- Where a partition of a table belongs, under a name that nothing else has: with its parent, whatever the search_path
-- names first. `owner`: who has to own it as the parent's owner does, where that is somebody else than this role.
select
    format('%I.%I', n.nspname, p.relname) as parent,
    (
        select format('%I.%I', n.nspname, w.name)
        from unnest($2) with ordinality as w (name, place)
        where not exists (select from pg_class c where c.relnamespace = n.oid and c.relname = w.name)
            and not exists (select from pg_type y where y.typnamespace = n.oid and y.typname = w.name)
        order by w.place
        limit 1
    ) as name,
    case
        when o.rolname <> current_user and pg_has_role(o.oid, 'MEMBER') and has_schema_privilege(o.oid, n.oid, 'CREATE')
            then quote_ident(o.rolname)
    end as owner
from pg_class p
join pg_namespace n on n.oid = p.relnamespace
join pg_roles o on o.oid = p.relowner
where p.oid = to_regclass($1)
