-- Creates a tenant; no row where the name is taken.
insert into tenant (id, name, shard, created_at)
values ($1, $2, $3, $4)
on conflict (name) do nothing
returning id, name, created_at, retention
