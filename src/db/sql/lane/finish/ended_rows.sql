union all
select id, false, null, null, null from ended
