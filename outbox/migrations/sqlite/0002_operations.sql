-- What operators and policies need. Times are microseconds since 1970.

ALTER TABLE mainstay_outbox_message ADD COLUMN ordered INTEGER NOT NULL DEFAULT 1; -- 0: the key is only told to consumers
ALTER TABLE mainstay_outbox_message ADD COLUMN holds INTEGER NOT NULL DEFAULT 1; -- while it waits for a retry, later messages of its key wait too
ALTER TABLE mainstay_outbox_message ADD COLUMN failures TEXT NOT NULL DEFAULT '[]'; -- JSON: the last ten as [attempt, at, reason]

ALTER TABLE mainstay_outbox_dead ADD COLUMN ordered INTEGER NOT NULL DEFAULT 1; -- cause: rejected, exhausted, no_sink, parked
ALTER TABLE mainstay_outbox_dead ADD COLUMN failures TEXT NOT NULL DEFAULT '[]';

CREATE INDEX mainstay_outbox_dead_key ON mainstay_outbox_dead (lane, key, id); -- a parked key's letters
CREATE INDEX mainstay_outbox_dead_at ON mainstay_outbox_dead (died_at); -- how many lately

-- Rises when rows are put back below where the lane's relay may have come to. A claim that looked before must not be
-- recorded after: a later message of a key would go before those that are back.
ALTER TABLE mainstay_outbox_lane ADD COLUMN rewinds INTEGER NOT NULL DEFAULT 0;
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
    delivered_at INTEGER NOT NULL -- one for all that is settled together
) STRICT;

-- With the id, so that this order has each key's messages in theirs.
CREATE INDEX mainstay_outbox_delivered_at ON mainstay_outbox_delivered (delivered_at, id);

-- Keys of a topic one of whose messages was given up under the policy `park`: what follows (ids greater than `above`) is
-- set aside, in order, until an operator redrives or discards it. A redrive in several steps raises `above` step by step,
-- so that nothing overtakes; the row goes with the last dead letter of the key from `first` on. One that is given up again
-- lowers both to its id.
CREATE TABLE mainstay_outbox_parked (
    lane  INTEGER NOT NULL,
    topic TEXT    NOT NULL,
    key   BLOB    NOT NULL,
    first INTEGER NOT NULL, -- the message that was given up
    above INTEGER NOT NULL,
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
