-- Uses a ticket: of all who try, one gets the row. No row: it was used, has expired, or its token has ended.
delete from ticket k
using token t
where k.hash = $1
    and k.expires_at > $2
    and t.id = k.token
    and t.revoked_at is null
    and (t.expires_at is null or t.expires_at > $2)
returning k.tenant, k.token, k.allowed, t.expires_at as token_expires_at
