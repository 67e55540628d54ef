-- Tables and views of the first schema of the search_path that are not these, no partitions of these, and not of an
-- extension.
with recursive own as (
    select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = current_schema() and c.relname = any($1)
    union all
    select i.inhrelid from own join pg_inherits i on i.inhparent = own.oid
)
select c.relname::text as name
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where n.nspname = current_schema()
    and c.relkind in ('r', 'p', 'v', 'm', 'f')
    and not c.relispartition
    and c.oid not in (select oid from own)
    and not exists (
        select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
    )
order by c.relname
