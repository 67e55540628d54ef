-- Prolongs the lease of a node, if nobody has taken over, and shows every node with the shards that it owns. One
-- statement, since an idle engine does nothing else.
with renewed as (
    update node set expires_at = clock_timestamp() + make_interval(secs => $2) where id = $1 returning id
)
select
    n.id,
    n.address,
    n.secret,
    n.joined,
    n.leaving,
    -- the snapshot may still show a row that another engine has just removed: only the update knows
    exists (select from renewed) as renewed,
    extract(epoch from n.expires_at - clock_timestamp())::float8 as remaining,
    n.id = $1 or exists (
        select from lane l
        where l.node = n.id and (
            l.pid = 0
            or exists (select from pg_stat_activity a where a.pid = l.pid and a.backend_start = l.backend_start)
        )
    ) as connected,
    clock_timestamp() - pg_postmaster_start_time() > make_interval(secs => $2) as settled,
    array(select s.id from shard s where s.owner = n.id) as shards
from node n
order by n.id
