-- How long the tenant's finished runs are kept, in milliseconds, where a workflow says nothing else; null: as long as the
-- engine keeps them.
alter table tenant add column retention bigint;
