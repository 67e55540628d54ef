-- Takes shards that no known node owns, for a node that is one itself. What another engine takes at the same time is
-- left to it.
update shard
set owner = $1, epoch = epoch + 1
where exists (select from node where id = $1) and id in (
    select id
    from shard
    where owner is null or owner not in (select id from node)
    order by id
    limit $2
    for update skip locked
)
returning id
