-- Marks a workflow as deleted unless a run of it is open. Says what it found.
with
-- the workflow, if it exists
found as (
    select name
    from workflow
    where tenant = $1 and name = $2 and deleted_at is null
    for update
),
-- one of its open runs
used as (
    select id
    from open_run
    where tenant = $1 and workflow = $2
    limit 1
),
-- the deletion
gone as (
    update workflow w
    set deleted_at = $3
    from found f
    where w.tenant = $1 and w.name = f.name and not exists (select from used)
    -- other engines read the tenant's workflows again
    returning w.name, pg_notify('helve', w.tenant::text)::text as told
)
select exists (select from found) as found, exists (select from gone) as deleted, (select id from used) as used
