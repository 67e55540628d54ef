union all
-- an input that does not stand in the row is read afterwards: its tables have many partitions, and a statement that
-- only might need them pays for all of them
select id, true, input, metadata, traceparent from moved
