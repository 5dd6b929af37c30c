-- One row. Enqueue reads the number of lanes from here in its own statement, so that no producer can disagree with it.
CREATE TABLE mainstay_outbox_settings (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    lanes   INTEGER NOT NULL CHECK (lanes BETWEEN 1 AND 1024)
) STRICT;

-- Events that have not been delivered yet. A lane's order is the order of its ids. Times are microseconds since 1970.
CREATE TABLE mainstay_outbox_message (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    lane         INTEGER NOT NULL,
    event_id     BLOB    NOT NULL,
    source       TEXT    NOT NULL,
    type         TEXT    NOT NULL,
    topic        TEXT    NOT NULL,
    subject      TEXT,
    time         INTEGER NOT NULL,
    content_type TEXT,
    key          BLOB,
    headers      TEXT    NOT NULL, -- JSON: a list of [name, value]
    payload      BLOB    NOT NULL,
    enqueued_at  INTEGER NOT NULL,
    attempts     INTEGER NOT NULL DEFAULT 0,
    suspect      INTEGER NOT NULL DEFAULT 0, -- its last attempt ended with the death of what published it
    retry_at     INTEGER,
    last_reason  TEXT
) STRICT;

CREATE INDEX mainstay_outbox_lane_order ON mainstay_outbox_message (lane, id);

-- The few messages that wait for a retry, to find out whether a key is held back.
CREATE INDEX mainstay_outbox_waiting ON mainstay_outbox_message (lane, key, id) WHERE retry_at IS NOT NULL;

-- A lane belongs to one relay at a time. The epoch rises whenever it changes hands; every write of a relay names it.
CREATE TABLE mainstay_outbox_lane (
    lane        INTEGER PRIMARY KEY,
    owner       BLOB,
    epoch       INTEGER NOT NULL DEFAULT 0,
    lease_until INTEGER,
    in_flight   TEXT -- JSON list of ids being published; charged an attempt if the lane is taken before they are settled
) STRICT;

CREATE TABLE mainstay_outbox_relay (
    id          BLOB    PRIMARY KEY,
    alive_until INTEGER NOT NULL
) STRICT;

-- Events that were given up, with the reason. Same ids, so that a redrive puts them back in their places.
CREATE TABLE mainstay_outbox_dead (
    id           INTEGER PRIMARY KEY,
    lane         INTEGER NOT NULL,
    event_id     BLOB    NOT NULL,
    source       TEXT    NOT NULL,
    type         TEXT    NOT NULL,
    topic        TEXT    NOT NULL,
    subject      TEXT,
    time         INTEGER NOT NULL,
    content_type TEXT,
    key          BLOB,
    headers      TEXT    NOT NULL,
    payload      BLOB    NOT NULL,
    enqueued_at  INTEGER NOT NULL,
    attempts     INTEGER NOT NULL,
    cause        TEXT    NOT NULL, -- rejected, exhausted, no_sink
    reason       TEXT    NOT NULL,
    died_at      INTEGER NOT NULL
) STRICT;

CREATE INDEX mainstay_outbox_dead_topic ON mainstay_outbox_dead (topic, id);
