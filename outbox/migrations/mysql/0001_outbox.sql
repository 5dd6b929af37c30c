-- Bytes are compared as bytes: a collation would make one topic of `a`, `A` and `a `. Times are UTC. DDL commits by itself
-- here, so each statement can be repeated.

-- One row.
CREATE TABLE IF NOT EXISTS mainstay_outbox_settings (
    one   TINYINT NOT NULL PRIMARY KEY DEFAULT 1 CHECK (one = 1),
    lanes INT     NOT NULL CHECK (lanes BETWEEN 1 AND 1024)
) ENGINE = InnoDB;

-- Events that have not been delivered yet. A lane's order is the order of its ids.
--
-- The lane is no column that producers fill in: its default, `hash % lanes`, is set with the number of lanes once that is
-- known. So an INSERT reads no other table, and takes no lock in one.
CREATE TABLE IF NOT EXISTS mainstay_outbox_message (
    hash         BIGINT         NOT NULL,
    lane         INT            NOT NULL,
    id           BIGINT         NOT NULL AUTO_INCREMENT,
    event_id     BINARY(16)     NOT NULL,
    source       VARCHAR(255)   NOT NULL,
    type         VARCHAR(255)   NOT NULL,
    topic        VARBINARY(255) NOT NULL,
    subject      VARCHAR(1024),
    time         DATETIME(6)    NOT NULL,
    content_type VARCHAR(255),
    `key`        VARBINARY(1024),
    ordered      BOOLEAN        NOT NULL DEFAULT true, -- false: the key is only told to consumers
    headers      MEDIUMTEXT     NOT NULL, -- JSON: a list of [name, value]
    payload      LONGBLOB       NOT NULL,
    bytes        INT UNSIGNED   GENERATED ALWAYS AS (octet_length(payload)) STORED, -- so that a claim can count without reading them
    enqueued_at  DATETIME(6)    NOT NULL DEFAULT (utc_timestamp(6)),
    attempts     INT            NOT NULL DEFAULT 0,
    suspect      BOOLEAN        NOT NULL DEFAULT false, -- its last attempt ended with the death of what published it
    retry_at     DATETIME(6),
    holds        BOOLEAN        NOT NULL DEFAULT true, -- while it waits for a retry, later messages of its key wait too
    last_reason  MEDIUMTEXT,
    failures     MEDIUMTEXT, -- JSON: the last ten as [attempt, microseconds since 1970, reason]
    PRIMARY KEY (lane, id),
    KEY mainstay_outbox_message_id (id) -- what AUTO_INCREMENT needs; and how an idle relay looks at all lanes at once
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The few messages that wait for a retry, to find out whether a key is held back. There are no partial indexes here. Rows go
-- when their messages do, and with the heartbeats of relays long after their time has come.
CREATE TABLE IF NOT EXISTS mainstay_outbox_waiting (
    lane     INT         NOT NULL,
    id       BIGINT      NOT NULL,
    `key`    VARBINARY(1024),
    holds    BOOLEAN     NOT NULL,
    retry_at DATETIME(6) NOT NULL,
    PRIMARY KEY (lane, id),
    KEY mainstay_outbox_waiting_key (lane, `key`, id),
    KEY mainstay_outbox_waiting_at (retry_at)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

-- A lane belongs to one relay at a time. The epoch rises whenever it changes hands; every write of a relay names it.
CREATE TABLE IF NOT EXISTS mainstay_outbox_lane (
    lane        INT    NOT NULL PRIMARY KEY,
    owner       BINARY(16),
    epoch       BIGINT NOT NULL DEFAULT 0,
    lease_until DATETIME(6),
    in_flight   LONGTEXT CHARACTER SET utf8mb4, -- JSON: ids being published; charged an attempt if the lane is taken before they are settled
    -- Rises, with the lane locked, when rows are put back below where its relay may have come to. A claim that looked
    -- before must not be recorded after: a later message of a key would go before those that are back.
    rewinds     BIGINT NOT NULL DEFAULT 0,
    settled_at  DATETIME(6) -- when a batch of this lane was last written down
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS mainstay_outbox_relay (
    id          BINARY(16)  NOT NULL PRIMARY KEY,
    alive_until DATETIME(6) NOT NULL
) ENGINE = InnoDB;

-- What producers lock who want a key's events in the order of their commits: a row, chosen by the key, to the end of their
-- transaction. Two keys of one row only wait for each other.
CREATE TABLE IF NOT EXISTS mainstay_outbox_key_lock (
    slot INT NOT NULL PRIMARY KEY
) ENGINE = InnoDB;

-- Events that were given up, with the reason. Same ids, so that a redrive puts them back in their places.
CREATE TABLE IF NOT EXISTS mainstay_outbox_dead (
    id           BIGINT         NOT NULL PRIMARY KEY,
    lane         INT            NOT NULL,
    event_id     BINARY(16)     NOT NULL,
    source       VARCHAR(255)   NOT NULL,
    type         VARCHAR(255)   NOT NULL,
    topic        VARBINARY(255) NOT NULL,
    subject      VARCHAR(1024),
    time         DATETIME(6)    NOT NULL,
    content_type VARCHAR(255),
    `key`        VARBINARY(1024),
    ordered      BOOLEAN        NOT NULL,
    headers      MEDIUMTEXT     NOT NULL,
    payload      LONGBLOB       NOT NULL,
    enqueued_at  DATETIME(6)    NOT NULL,
    attempts     INT            NOT NULL,
    cause        VARCHAR(16)    NOT NULL, -- rejected, exhausted, no_sink, parked
    reason       MEDIUMTEXT     NOT NULL,
    failures     MEDIUMTEXT,
    died_at      DATETIME(6)    NOT NULL DEFAULT (utc_timestamp(6)),
    KEY mainstay_outbox_dead_topic (topic, id),
    KEY mainstay_outbox_dead_key (lane, `key`, id), -- a parked key's letters
    KEY mainstay_outbox_dead_at (died_at) -- how many lately
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Events whose time has not come: they move into their lanes when it has, and get their places in them then.
CREATE TABLE IF NOT EXISTS mainstay_outbox_later (
    id           BIGINT         NOT NULL PRIMARY KEY AUTO_INCREMENT,
    due_at       DATETIME(6)    NOT NULL,
    hash         BIGINT         NOT NULL,
    event_id     BINARY(16)     NOT NULL,
    source       VARCHAR(255)   NOT NULL,
    type         VARCHAR(255)   NOT NULL,
    topic        VARBINARY(255) NOT NULL,
    subject      VARCHAR(1024),
    time         DATETIME(6)    NOT NULL,
    content_type VARCHAR(255),
    `key`        VARBINARY(1024),
    ordered      BOOLEAN        NOT NULL,
    headers      MEDIUMTEXT     NOT NULL,
    payload      LONGBLOB       NOT NULL,
    enqueued_at  DATETIME(6)    NOT NULL DEFAULT (utc_timestamp(6)),
    KEY mainstay_outbox_later_due (due_at, id)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Events that were delivered, kept where the relay is told to keep them.
CREATE TABLE IF NOT EXISTS mainstay_outbox_delivered (
    id           BIGINT         NOT NULL,
    lane         INT            NOT NULL,
    event_id     BINARY(16)     NOT NULL,
    source       VARCHAR(255)   NOT NULL,
    type         VARCHAR(255)   NOT NULL,
    topic        VARBINARY(255) NOT NULL,
    subject      VARCHAR(1024),
    time         DATETIME(6)    NOT NULL,
    content_type VARCHAR(255),
    `key`        VARBINARY(1024),
    ordered      BOOLEAN        NOT NULL,
    headers      MEDIUMTEXT     NOT NULL,
    payload      LONGBLOB       NOT NULL,
    enqueued_at  DATETIME(6)    NOT NULL,
    attempts     INT            NOT NULL,
    delivered_at DATETIME(6)    NOT NULL DEFAULT (utc_timestamp(6)), -- one for all that is settled together
    -- With the id, so that this order has each key's messages in theirs. The rows lie by age, so that the old go together.
    PRIMARY KEY (delivered_at, id)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Keys of a topic one of whose messages was given up under the policy `park`: what follows (ids greater than `above`) is
-- set aside, in order, until an operator redrives or discards it. A redrive in several steps raises `above` step by step,
-- so that nothing overtakes; the row goes with the last dead letter of the key from `first` on. One that is given up again
-- lowers both to its id.
CREATE TABLE IF NOT EXISTS mainstay_outbox_parked (
    lane    INT             NOT NULL,
    topic   VARBINARY(255)  NOT NULL,
    `key`   VARBINARY(1024) NOT NULL,
    `first` BIGINT          NOT NULL, -- the message that was given up
    above   BIGINT          NOT NULL,
    since   DATETIME(6)     NOT NULL DEFAULT (utc_timestamp(6)),
    PRIMARY KEY (lane, topic, `key`)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

-- Topics, as patterns, that relays leave alone until they are resumed.
CREATE TABLE IF NOT EXISTS mainstay_outbox_pause (
    pattern VARBINARY(256) NOT NULL PRIMARY KEY,
    actor   VARCHAR(255)   NOT NULL,
    since   DATETIME(6)    NOT NULL DEFAULT (utc_timestamp(6))
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What operators did.
CREATE TABLE IF NOT EXISTS mainstay_outbox_audit (
    id       BIGINT       NOT NULL PRIMARY KEY AUTO_INCREMENT,
    at       DATETIME(6)  NOT NULL DEFAULT (utc_timestamp(6)),
    actor    VARCHAR(255) NOT NULL,
    action   VARCHAR(16)  NOT NULL, -- redrive, discard, replay, pause, resume
    detail   MEDIUMTEXT   NOT NULL, -- JSON: what was asked
    affected BIGINT       NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
