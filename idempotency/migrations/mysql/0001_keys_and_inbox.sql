-- One row per answered key. Written once, by the transaction whose effects it stands for, and deleted by age.
-- Binary columns: a collation would make one key of `abc`, `ABC`, `abc ` and `ábc`.
create table if not exists mainstay_key (
    scope       binary(32) not null,     -- SHA-256 over tenant, principal, operation
    `key`       varbinary(255) not null, -- bytes as sent
    fingerprint binary(33) not null,     -- version, then SHA-256 over the request
    status      smallint not null,
    headers     mediumblob not null,
    body        longblob not null,
    created_at  datetime(6) not null default (utc_timestamp(6)), -- TIMESTAMP ends in 2038
    primary key (scope, `key`),
    key mainstay_key_created_at (created_at)
) engine = InnoDB row_format = dynamic;

-- One row per message that a consumer has applied.
create table if not exists mainstay_inbox (
    consumer   varbinary(255) not null,
    message    varbinary(1024) not null,
    created_at datetime(6) not null default (utc_timestamp(6)),
    primary key (consumer, message),
    key mainstay_inbox_created_at (created_at)
) engine = InnoDB row_format = dynamic;
