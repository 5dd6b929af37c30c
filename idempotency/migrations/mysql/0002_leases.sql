-- One row per key of the Leased protocol. Claims commit, so rows are updated.
create table if not exists mainstay_lease (
    scope       binary(32) not null,
    `key`       varbinary(255) not null,
    fingerprint binary(33) not null,
    state       tinyint not null default 0,       -- claimed, done, unknown, released
    token       bigint not null,                  -- of the last attempt; larger with each
    lease_until datetime(6) not null,             -- UTC
    journal     longblob not null,                -- what its steps returned, oldest first
    handler     varbinary(255) not null,          -- who takes it up when it is abandoned
    input       longblob not null,                -- with what
    status      smallint,
    headers     mediumblob,
    body        longblob,
    created_at  datetime(6) not null default (utc_timestamp(6)),
    primary key (scope, `key`),
    key mainstay_lease_created_at (created_at),
    key mainstay_lease_abandoned (handler, state, lease_until)
) engine = InnoDB row_format = dynamic;
