-- The schemas of the search_path that have all of these tables, in its order; and its first schema, which is where
-- Helve would be put. Everything is named in full: nothing is pinned yet.
select
    array(
        select p.name::text
        from unnest(pg_catalog.current_schemas(false)) with ordinality as p (name, place)
        where (
            select pg_catalog.count(*) from pg_catalog.pg_class c
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where n.nspname = p.name and c.relkind in ('r', 'p') and c.relname = any($1)
        ) = pg_catalog.cardinality($1)
        order by p.place
    ) as homes,
    pg_catalog.current_schema()::text as otherwise
