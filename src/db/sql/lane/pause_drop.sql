/* helve:lane:finish */
-- A pause that is over.
with
fence as materialized (
    select epoch from lane where node = $1 and name = 'finish' and epoch = $2 and not fenced for share
),
gone as (
    delete from pause where tenant = $3 and kind = $4 and target = $5 and exists (select from fence)
)
select epoch from fence
