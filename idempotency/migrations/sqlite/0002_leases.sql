-- One row per key of the Leased protocol. Claims commit, so rows are updated.
create table mainstay_lease (
    scope       blob not null check (length(scope) = 32),
    key         blob not null check (length(key) between 1 and 255),
    fingerprint blob not null check (length(fingerprint) = 33),
    state       integer not null default 0 check (state between 0 and 3), -- claimed, done, unknown, released
    token       integer not null,                                        -- of the last attempt; larger with each
    lease_until integer not null,                                        -- milliseconds since 1970
    journal     blob not null default x'',                               -- what its steps returned, oldest first
    handler     blob not null check (length(handler) <= 255),            -- who takes it up when it is abandoned
    input       blob not null,                                           -- with what
    status      integer,
    headers     blob,
    body        blob,
    created_at  integer not null default (cast(unixepoch('subsec') * 1000 as integer)),
    primary key (scope, key)
) strict;
create index mainstay_lease_created_at on mainstay_lease (created_at);
create index mainstay_lease_abandoned on mainstay_lease (handler, lease_until) where state = 0 and handler <> x'';
