-- What operators and policies need. Times are microseconds since 1970.

ALTER TABLE mainstay_outbox_message ADD COLUMN ordered INTEGER NOT NULL DEFAULT 1; -- 0: the key is only told to consumers
ALTER TABLE mainstay_outbox_message ADD COLUMN failures TEXT NOT NULL DEFAULT '[]'; -- JSON: the last ten as [attempt, at, reason]

ALTER TABLE mainstay_outbox_dead ADD COLUMN ordered INTEGER NOT NULL DEFAULT 1; -- cause: rejected, exhausted, no_sink, parked
ALTER TABLE mainstay_outbox_dead ADD COLUMN failures TEXT NOT NULL DEFAULT '[]';

ALTER TABLE mainstay_outbox_lane ADD COLUMN rewinds INTEGER NOT NULL DEFAULT 0; -- rises when rows are put back below where relays have come to
ALTER TABLE mainstay_outbox_lane ADD COLUMN settled_at INTEGER; -- when a batch of this lane was last written down

-- Events whose time has not come: they move into their lanes when it has, and get their places in them then.
CREATE TABLE mainstay_outbox_later (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    due_at       INTEGER NOT NULL,
    lane         INTEGER NOT NULL,
    event_id     BLOB    NOT NULL,
    source       TEXT    NOT NULL,
    type         TEXT    NOT NULL,
    topic        TEXT    NOT NULL,
    subject      TEXT,
    time         INTEGER NOT NULL,
    content_type TEXT,
    key          BLOB,
    ordered      INTEGER NOT NULL,
    headers      TEXT    NOT NULL,
    payload      BLOB    NOT NULL,
    enqueued_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX mainstay_outbox_later_due ON mainstay_outbox_later (due_at, id);

-- Events that were delivered, kept where the relay is told to keep them.
CREATE TABLE mainstay_outbox_delivered (
    id           INTEGER NOT NULL,
    lane         INTEGER NOT NULL,
    event_id     BLOB    NOT NULL,
    source       TEXT    NOT NULL,
    type         TEXT    NOT NULL,
    topic        TEXT    NOT NULL,
    subject      TEXT,
    time         INTEGER NOT NULL,
    content_type TEXT,
    key          BLOB,
    ordered      INTEGER NOT NULL,
    headers      TEXT    NOT NULL,
    payload      BLOB    NOT NULL,
    enqueued_at  INTEGER NOT NULL,
    attempts     INTEGER NOT NULL,
    delivered_at INTEGER NOT NULL
) STRICT;

CREATE INDEX mainstay_outbox_delivered_at ON mainstay_outbox_delivered (delivered_at);

-- Keys of a topic one of whose messages was given up under the policy `park`: what follows is set aside, in order,
-- until an operator redrives or discards it.
CREATE TABLE mainstay_outbox_parked (
    lane  INTEGER NOT NULL,
    topic TEXT    NOT NULL,
    key   BLOB    NOT NULL,
    since INTEGER NOT NULL,
    PRIMARY KEY (lane, topic, key)
) STRICT, WITHOUT ROWID;

-- Topics, as patterns, that relays leave alone until they are resumed.
CREATE TABLE mainstay_outbox_pause (
    pattern TEXT    PRIMARY KEY,
    actor   TEXT    NOT NULL,
    since   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What operators did.
CREATE TABLE mainstay_outbox_audit (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    actor    TEXT    NOT NULL,
    action   TEXT    NOT NULL, -- redrive, discard, replay, pause, resume
    detail   TEXT    NOT NULL, -- JSON: what was asked
    affected INTEGER NOT NULL
) STRICT;
