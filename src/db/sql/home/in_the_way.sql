-- What a statement finds under these names when it is not in the schema in which the first of them is.
select format('%I.%I', n.nspname, c.relname) as name
from unnest($1) as t (name)
join pg_class c on c.oid = to_regclass(t.name)
join pg_namespace n on n.oid = c.relnamespace
where c.relnamespace <> (select h.relnamespace from pg_class h where h.oid = to_regclass(($1)[1]))
order by 1
