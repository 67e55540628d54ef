-- Actions that have queued runs, of the tenants from $1 to $2: one step along the index for each. The literal state
-- makes the partial index a candidate.
with recursive waiting (tenant, action) as (
    (
        select o.tenant, o.action
        from open_run o
        where o.state = 1 and o.tenant >= $1 and o.tenant <= $2
        order by o.tenant, o.action
        limit 1
    )
    union all
    select n.tenant, n.action
    from waiting w
    cross join lateral (
        select o.tenant, o.action
        from open_run o
        where o.state = 1 and (o.tenant, o.action) > (w.tenant, w.action) and o.tenant >= w.tenant and o.tenant <= $2
        order by o.tenant, o.action
        limit 1
    ) n
)
select tenant, action from waiting limit $3
