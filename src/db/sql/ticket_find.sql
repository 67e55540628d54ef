-- Whose ticket it is, and for which origin. Does not use it.
select tenant, origin
from ticket
where hash = $1 and expires_at > $2
