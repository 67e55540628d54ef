-- Finished runs, their large payloads and their transitions. The bounds leave out the weeks that cannot have any.
with gone as (
    delete from run_history
    where id = any($1) and tenant = $2 and finished_at between $3 and $4
    returning id
),
payload_gone as (
    delete from payload where id = any($1) and id between $5 and $6
),
transition_gone as (
    delete from run_transition where run = any($1) and at between $7 and $4
)
select count(*) as n from gone
