-- The job that a key made.
select target, body_hash from idempotency where tenant = $1 and scope = 'bulk job' and key = $2
