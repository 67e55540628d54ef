-- Several engines on one database: how they reach each other, and who takes part in the spreading of shards.
alter table node
    -- host and port at which other engines reach it
    add column address text not null default '',
    -- what another engine shows when it passes a request on; made anew at each start, and worth nothing without a token
    add column secret text not null default '',
    -- its lanes are open: it may own shards
    add column joined boolean not null default false,
    -- it stops: its shards go to others
    add column leaving boolean not null default false;
