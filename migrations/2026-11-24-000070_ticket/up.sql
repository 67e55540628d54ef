-- Tickets: each opens one worker socket, within a minute, at whatever engine is asked. Using one deletes its row.
create table ticket (
    -- SHA-256 of the whole ticket: 256 random bits need no slow hash
    hash bytea primary key,
    tenant uuid not null,
    -- by which it was made: with it the ticket ends
    token uuid not null,
    -- what the worker may be, as JSON: actions, slots, labels
    allowed bytea not null,
    -- the one page's origin that may use it
    origin text not null,
    expires_at timestamptz not null
);
create index ticket_tenant on ticket (tenant, expires_at);
create index ticket_expired on ticket (expires_at);
