/* helve:lane:finish */
with
-- the lane is still ours: everything below depends on this row, which a takeover must wait for
fence as materialized (
    select epoch from lane where node = $lane.node and name = 'finish' and epoch = $lane.epoch and not fenced for share
)
