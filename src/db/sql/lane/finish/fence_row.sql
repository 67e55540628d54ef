
-- one row says that the lane is ours, the others which runs were as expected
select null::uuid as id, false as moved, null::bytea as input, null::bytea as metadata, null::text as traceparent
from fence
