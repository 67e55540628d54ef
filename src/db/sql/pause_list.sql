-- What a tenant has paused, without what has ended by itself.
select tenant, kind, target, reason, by_token, by_name, since, expires_at, rate, resumed_at, actions
from pause
where tenant = $1 and (expires_at is null or expires_at > $2)
order by kind, target
