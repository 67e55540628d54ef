-- Registers a definition: the same text is the same version, a new text gets the next number. One statement, so that
-- it can be sent again when its answer was lost.
with
-- the version that has this text already
known as (
    select version
    from workflow_version
    where tenant = $1 and workflow = $2 and checksum = $3
),
-- a new version; another engine may come first, then this makes no row and the caller asks again
added as (
    insert into workflow_version (tenant, workflow, version, checksum, definition, created_at)
    select $1, $2, n.highest + 1, $3, $4, $5
    from (
        select coalesce(max(version), 0) as highest
        from workflow_version
        where tenant = $1 and workflow = $2
    ) n
    where not exists (select from known)
    on conflict do nothing
    returning version
),
-- what becomes current: always the new text; a known one only when a person asks for it, not when an old worker
-- comes back during a rolling deploy
chosen as (
    select version from added
    union all
    select version from known where $6
),
-- written only where it changes something; brings a deleted workflow back
moved as (
    insert into workflow (tenant, name, version, created_at, updated_at)
    select $1, $2, version, $5, $5
    from chosen
    on conflict (tenant, name) do update
    set version = excluded.version, updated_at = excluded.updated_at, deleted_at = null
    where workflow.version <> excluded.version or workflow.deleted_at is not null
    -- other engines read the tenant's workflows again
    returning version, pg_notify('helve', tenant::text)::text as told
)
select version, true as created, exists (select from moved) as moved from added
union all
select version, false as created, exists (select from moved) as moved from known
