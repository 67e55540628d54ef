-- Prolongs the lease of a node, if nobody has taken over, and shows every node with the shards that it owns. One
-- statement, since an idle engine does nothing else.
with renewed as (
    update node set expires_at = clock_timestamp() + make_interval(secs => $2) where id = $1 returning id
),
-- what lanes that are open hold: every role sees that, while the start of a backend is shown to its own role only
held as materialized (
    select (k.classid::bigint << 32) | k.objid::bigint as key
    from pg_locks k
    where k.locktype = 'advisory' and k.objsubid = 1 and k.granted
        and k.database = (select oid from pg_database where datname = current_database())
)
select
    n.id,
    n.address,
    n.secret,
    n.joined,
    n.leaving,
    -- the snapshot may still show a row that another engine has just removed: only the update knows
    exists (select from renewed) as renewed,
    (extract(epoch from n.expires_at) * 1000000)::bigint as lease,
    extract(epoch from n.expires_at - clock_timestamp())::float8 as remaining,
    n.id = $1 or exists (
        select from lane l
        where l.node = n.id and (
            l.pid = 0
            -- an engine of the release before has a lock without a number in its row
            or coalesce(l.sign, hashtextextended('helve lane ' || l.node || ' ' || l.name, 0)) in (select key from held)
            -- an engine of an earlier release holds nothing
            or exists (select from pg_stat_activity a where a.pid = l.pid and a.backend_start = l.backend_start)
        )
    ) as connected,
    clock_timestamp() - pg_postmaster_start_time() > make_interval(secs => $2) as settled,
    array(select s.id from shard s where s.owner = n.id) as shards
from node n
order by n.id
