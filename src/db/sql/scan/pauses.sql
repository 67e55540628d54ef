-- Everything that is paused in these shards.
select tenant, kind, target, reason, by_token, by_name, since, expires_at, rate, resumed_at, actions
from pause
where shard = any($1)
