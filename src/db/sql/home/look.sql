-- Where the search_path of this connection leads: the schema in which Helve is, or would be installed.
select
    current_schema()::text as schema,
    current_setting('search_path') as search_path,
    current_database()::text as database,
    current_user::text as role,
    to_regclass(quote_ident(current_schema()) || '.__diesel_schema_migrations') is not null as listed,
    -- a later schema of the path that has Helve
    (
        select n.nspname::text
        from pg_namespace n
        where n.nspname = any(current_schemas(false)) and n.nspname <> current_schema() and $1 = (
            select count(*) from pg_class c
            where c.relnamespace = n.oid and c.relkind in ('r', 'p') and c.relname = any($2)
        )
        limit 1
    ) as elsewhere,
    -- the first free name for the audit views
    (
        select a.name::name::text
        from unnest(array['helve_audit', 'helve_audit_' || current_schema()]) with ordinality as a (name, place)
        where not exists (select from pg_namespace n where n.nspname = a.name::name)
        order by a.place
        limit 1
    ) as audit,
    coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) as makes_tables,
    has_database_privilege(current_database(), 'CREATE') as makes_schemas
