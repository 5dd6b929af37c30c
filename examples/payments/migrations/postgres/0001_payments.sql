CREATE TABLE payments (
    id         uuid        NOT NULL PRIMARY KEY,
    tenant     text        NOT NULL,
    amount     bigint      NOT NULL CHECK (amount BETWEEN 1 AND 100000000),
    currency   text        NOT NULL,
    reference  text        NOT NULL,
    status     text        NOT NULL CHECK (status IN ('pending', 'settled')),
    created_at timestamptz NOT NULL
);

-- The order of the list, newest first, and the same within one currency.
CREATE INDEX payments_newest ON payments (tenant, created_at DESC, id DESC);
CREATE INDEX payments_newest_by_currency ON payments (tenant, currency, created_at DESC, id DESC);
