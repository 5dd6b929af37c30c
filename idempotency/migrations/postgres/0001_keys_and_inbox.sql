-- One row per answered key. Written once, by the transaction whose effects it stands for, and deleted by age.
create table mainstay_key (
    scope       bytea not null check (octet_length(scope) = 32),          -- SHA-256 over tenant, principal, operation
    key         bytea not null check (octet_length(key) between 1 and 255), -- bytes as sent, no collation
    fingerprint bytea not null check (octet_length(fingerprint) = 33),    -- version, then SHA-256 over the request
    status      smallint not null,
    headers     bytea not null,
    body        bytea not null,
    created_at  timestamptz not null default now(),
    primary key (scope, key)
);
-- Rows arrive in the order of their time, so a few summary bytes per range find the old ones; a B-tree would cost every insert.
create index mainstay_key_created_at on mainstay_key using brin (created_at) with (autosummarize = on);

-- One row per message that a consumer has applied.
create table mainstay_inbox (
    consumer   bytea not null check (octet_length(consumer) between 1 and 255),
    message    bytea not null check (octet_length(message) between 1 and 1024),
    created_at timestamptz not null default now(),
    primary key (consumer, message)
);
create index mainstay_inbox_created_at on mainstay_inbox using brin (created_at) with (autosummarize = on);
