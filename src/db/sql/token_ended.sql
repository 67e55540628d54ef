-- Which of these tokens are no longer valid: revoked, expired, or gone.
select asked.id
from unnest($1) as asked (id)
left join token t on t.id = asked.id
where t.id is null or t.revoked_at is not null or t.expires_at <= $2
