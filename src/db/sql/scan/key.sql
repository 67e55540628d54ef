-- Who holds a create key.
select target, body_hash from idempotency where tenant = $1 and scope = $2 and key = $3
