-- Workers of these shards, for a takeover.
select id, tenant, session, secret, name, sdk, actions, slots::text as slots, labels::text as labels
from worker
where shard = any($1)
