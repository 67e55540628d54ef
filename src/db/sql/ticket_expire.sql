-- Takes away what nobody used in time.
delete from ticket
where hash in (select hash from ticket where expires_at <= $1 limit $2 for update skip locked)
