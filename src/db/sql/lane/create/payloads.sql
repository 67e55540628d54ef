,
-- inputs that are too large to stand in the row
payload_in as (
    insert into payload (id, kind, bytes)
    select p.id, 0, p.bytes from unnest($payload.id, $payload.bytes, $payload.provided) as p (id, bytes, provided)
    where exists (select from fence) and (p.provided is null or p.provided in (select target from won))
)
