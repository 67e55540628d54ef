-- The partitions of Helve's own tables, with their bounds: of the tables that its statements mean, by oid. What else in
-- the database has such a name is another's.
select
    t.name as parent,
    format('%I.%I', n.nspname, c.relname) as name,
    c.relkind = 'r' as plain,
    -- a publication for all tables would have its deletes refused
    c.relkind = 'r' and c.relreplident = 'd'
        and not exists (select from pg_index x where x.indrelid = c.oid and x.indisprimary) as keyless,
    case when k.by = 'timestamptz' then b.bounds[1]::timestamptz end as from_time,
    case when k.by = 'timestamptz' then b.bounds[2]::timestamptz end as to_time,
    case when k.by = 'uuid' then b.bounds[1]::uuid end as from_id,
    case when k.by = 'uuid' then b.bounds[2]::uuid end as to_id
from unnest($1) as t (name)
join pg_inherits i on i.inhparent = to_regclass(t.name)
join pg_class c on c.oid = i.inhrelid
join pg_namespace n on n.oid = c.relnamespace
join pg_partitioned_table p on p.partrelid = i.inhparent
join lateral (
    select typname as by from pg_attribute a join pg_type on pg_type.oid = a.atttypid
    where a.attrelid = i.inhparent and a.attnum = p.partattrs[0]
) k on true
-- a default partition, or one without an end, has no such bounds
join lateral (
    select regexp_match(
        pg_get_expr(c.relpartbound, c.oid),
        'FROM [(]''(?!-?infinity)([^'']+)''[)] TO [(]''(?!-?infinity)([^'']+)''[)]'
    ) as bounds
) b on b.bounds is not null
order by 1, 2
