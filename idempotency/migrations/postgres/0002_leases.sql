-- One row per key of the Leased protocol. Claims commit, so rows are updated: room is left on each page for that.
create table mainstay_lease (
    scope       bytea not null check (octet_length(scope) = 32),
    key         bytea not null check (octet_length(key) between 1 and 255),
    fingerprint bytea not null check (octet_length(fingerprint) = 33),
    state       smallint not null default 0 check (state between 0 and 3), -- claimed, done, unknown, released
    token       bigint not null,                                          -- of the last attempt; larger with each
    lease_until timestamptz not null,
    journal     bytea not null default ''::bytea,                         -- what its steps returned, oldest first
    handler     bytea not null check (octet_length(handler) <= 255),      -- who takes it up when it is abandoned
    input       bytea not null,                                           -- with what
    status      smallint,
    headers     bytea,
    body        bytea,
    created_at  timestamptz not null default now(),
    primary key (scope, key)
) with (fillfactor = 70);
create index mainstay_lease_created_at on mainstay_lease (created_at);
create index mainstay_lease_abandoned on mainstay_lease (handler, lease_until) where state = 0 and handler <> ''::bytea;
