,
-- outputs that are too large to stand in the row
payload_in as (
    insert into payload (id, kind, bytes)
    select p.id, 1, p.bytes from unnest($output.id, $output.bytes) as p (id, bytes)
    where p.id in (select id from ended)
)
