-- One row per answered key. Written once, by the transaction whose effects it stands for, and deleted by age.
create table mainstay_key (
    scope       blob not null check (length(scope) = 32),             -- SHA-256 over tenant, principal, operation
    key         blob not null check (length(key) between 1 and 255),  -- bytes as sent, no collation
    fingerprint blob not null check (length(fingerprint) = 33),       -- version, then SHA-256 over the request
    status      integer not null,
    headers     blob not null,
    body        blob not null,
    created_at  integer not null default (cast(unixepoch('subsec') * 1000 as integer)), -- milliseconds since 1970
    primary key (scope, key)
) strict;
create index mainstay_key_created_at on mainstay_key (created_at);

-- One row per message that a consumer has applied.
create table mainstay_inbox (
    consumer   blob not null check (length(consumer) between 1 and 255),
    message    blob not null check (length(message) between 1 and 1024),
    created_at integer not null default (cast(unixepoch('subsec') * 1000 as integer)),
    primary key (consumer, message)
) strict;
create index mainstay_inbox_created_at on mainstay_inbox (created_at);
