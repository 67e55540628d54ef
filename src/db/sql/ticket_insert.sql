-- Stores a ticket; no row where its tenant has $8 open ones. Also takes away some that have expired, so that tickets
-- that nobody used need no other care while tickets are made.
with expired as (
    delete from ticket
    where hash in (select hash from ticket where expires_at <= $7 limit 100 for update skip locked)
)
insert into ticket (hash, tenant, token, allowed, origin, expires_at)
select $1, $2, $3, $4, $5, $6
where (select count(*) from (select from ticket where tenant = $2 and expires_at > $7 limit $8) as open) < $8
returning expires_at
