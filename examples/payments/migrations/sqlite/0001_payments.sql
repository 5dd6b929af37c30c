CREATE TABLE payments (
    id         BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    tenant     TEXT    NOT NULL,
    amount     INTEGER NOT NULL CHECK (amount BETWEEN 1 AND 100000000),
    currency   TEXT    NOT NULL,
    reference  TEXT    NOT NULL,
    status     TEXT    NOT NULL CHECK (status IN ('pending', 'settled')),
    created_at INTEGER NOT NULL -- microseconds since 1970
) STRICT, WITHOUT ROWID;

-- The order of the list, newest first, and the same within one currency.
CREATE INDEX payments_newest ON payments (tenant, created_at DESC, id DESC);
CREATE INDEX payments_newest_by_currency ON payments (tenant, currency, created_at DESC, id DESC);
