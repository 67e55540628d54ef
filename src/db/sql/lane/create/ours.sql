-- the lane is ours
select null::uuid as id from fence
