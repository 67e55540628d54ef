-- The number of the advisory lock that shows that the lane is open: a new one for each connection. Null where an engine
-- before this opened it.
alter table lane add column sign bigint;
