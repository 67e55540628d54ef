,
-- nothing of the batch has a key
won as (select null::uuid as target where false)
