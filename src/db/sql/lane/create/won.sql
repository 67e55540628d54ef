union all
-- and these keys were won
select target from won
