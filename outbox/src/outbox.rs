//! Enqueueing: one INSERT in the caller's own transaction.

use std::{marker::PhantomData, sync::Arc};

use tokio::sync::watch;

use crate::{
    event::{Caps, Event, EventId, InvalidEvent, check},
    lane::key_hash,
    message::to_micros,
    store::{NewRow, OutboxDb},
    telemetry,
};

/// How an [`Outbox`] fills in and bounds its events.
#[derive(Clone, Debug)]
#[must_use]
pub struct OutboxConfig {
    source: String,
    caps: Caps,
}

impl Default for OutboxConfig {
    /// Source `/`, payloads up to 1 MiB.
    fn default() -> Self {
        Self {
            source: "/".to_owned(),
            caps: Caps {
                payload: Caps::PAYLOAD_DEFAULT,
                events_per_call: Caps::EVENTS_PER_CALL,
            },
        }
    }
}

impl OutboxConfig {
    /// CloudEvents `source` of every event: a URI reference naming this producer, for instance `/payments`.
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
        self
    }

    /// The most bytes of payload in one event. Default 1 MiB, which is what brokers commonly take; at most 64 MiB.
    pub fn payload_bytes_max(mut self, bytes: usize) -> Self {
        self.caps.payload = bytes.min(Caps::PAYLOAD_MAX);
        self
    }
}

/// Writes events beside your data, in your transaction.
///
/// Cheap to clone; holds no connection. Clones share one [`Waker`].
pub struct Outbox<Db> {
    config: Arc<OutboxConfig>,
    waker: Waker,
    database: PhantomData<fn() -> Db>,
}

impl<Db: OutboxDb> Outbox<Db> {
    /// An outbox with this configuration. Its tables come from [`migrate`](crate::migrate).
    #[must_use]
    pub fn new(config: OutboxConfig) -> Self {
        Self {
            config: Arc::new(config),
            waker: Waker::new(),
            database: PhantomData,
        }
    }

    /// Writes the event with one INSERT: it is published if and only if the transaction of `conn` commits.
    ///
    /// Call [`notify_after_commit`](Waker::notify_after_commit) once it has; without, the relay finds it at its next
    /// poll. Never writes NOTIFY, which would serialise the commits of all producers.
    ///
    /// Order is by key: when two transactions write the same key, whichever rule puts the transactions in order (a row
    /// lock on the aggregate, taken before this call) puts the events in order as well.
    ///
    /// # Errors
    /// [`EnqueueError::Invalid`] before any SQL, so the transaction stays usable; [`EnqueueError::Database`] as the
    /// driver says it, after which Postgres wants the transaction rolled back.
    ///
    /// # Cancel safety
    /// Whether the row is in the transaction is unknown when the future is dropped: roll the transaction back.
    pub async fn enqueue(
        &self,
        conn: &mut Db::Connection,
        event: Event,
    ) -> Result<EventId, EnqueueError> {
        check(&event, &self.config.source, self.config.caps)?;
        let row = self.row(&event);
        let written = Db::insert(conn, &row)
            .await
            .map_err(EnqueueError::Database)?;
        if written != 1 {
            return Err(EnqueueError::NotMigrated);
        }
        telemetry::enqueued(1);
        Ok(event.id)
    }

    /// Writes events in their order with one INSERT; otherwise as [`enqueue`](Self::enqueue). At most 1000.
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue). One invalid event refuses all of them.
    ///
    /// # Cancel safety
    /// As [`enqueue`](Self::enqueue).
    pub async fn enqueue_many(
        &self,
        conn: &mut Db::Connection,
        events: impl IntoIterator<Item = Event>,
    ) -> Result<Vec<EventId>, EnqueueError> {
        // One more than allowed is enough to know: an endless iterator is refused, not collected.
        let max = self.config.caps.events_per_call;
        let events: Vec<Event> = events.into_iter().take(max + 1).collect();
        if events.len() > max {
            let actual = events.len();
            return Err(InvalidEvent::TooManyEvents { actual, max }.into());
        }
        let mut bytes = 0usize;
        for event in &events {
            check(event, &self.config.source, self.config.caps)?;
            bytes = bytes.saturating_add(event.payload.len());
        }
        if bytes > Caps::PAYLOAD_MAX {
            return Err(InvalidEvent::TooLarge {
                part: "payloads of one call together",
                actual: bytes,
                max: Caps::PAYLOAD_MAX,
            }
            .into());
        }
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<NewRow<'_>> = events.iter().map(|event| self.row(event)).collect();
        let written = Db::insert_many(conn, &rows)
            .await
            .map_err(EnqueueError::Database)?;
        if written != events.len() as u64 {
            return Err(EnqueueError::NotMigrated);
        }
        telemetry::enqueued(written);
        Ok(events.iter().map(|event| event.id).collect())
    }

    /// Wakes relays of this process; give it to [`RelayBuilder::wake`](crate::RelayBuilder::wake).
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn row<'a>(&'a self, event: &'a Event) -> NewRow<'a> {
        // Without a key the id spreads the events over the lanes.
        let hash = match &event.key {
            Some(key) => key_hash(key),
            None => key_hash(event.id.as_uuid().as_bytes()),
        };
        NewRow {
            hash,
            event_id: event.id.as_uuid(),
            source: &self.config.source,
            event_type: &event.event_type,
            topic: event.topic_or_type(),
            subject: event.subject.as_deref(),
            time_micros: event.time.map(to_micros),
            content_type: event.content_type.as_deref(),
            key: event.key.as_deref(),
            headers: serde_json::to_string(&event.headers).unwrap_or_else(|_| "[]".to_owned()),
            payload: &event.payload,
        }
    }
}

impl<Db> Clone for Outbox<Db> {
    fn clone(&self) -> Self {
        Self {
            config: Arc::clone(&self.config),
            waker: self.waker.clone(),
            database: PhantomData,
        }
    }
}

impl<Db> std::fmt::Debug for Outbox<Db> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Why an event was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnqueueError {
    /// The event breaks a cap. Nothing was sent to the database; the transaction is usable.
    #[error(transparent)]
    Invalid(#[from] InvalidEvent),
    /// The outbox's tables have no settings: [`migrate`](crate::migrate) has not finished.
    #[error("the outbox is not migrated")]
    NotMigrated,
    /// The database refused or failed.
    #[error("the event could not be written")]
    Database(#[source] sqlx::Error),
}

/// Tells the relays of this process that something has committed. Clones share one signal.
///
/// Any number of calls between two looks of a relay are one wake. Never fails, never waits, needs no relay to exist.
#[derive(Clone, Debug)]
pub struct Waker {
    // A counter under a watch channel rather than a `Notify`: several relays of one process all see it, and a relay
    // that was not waiting at that moment sees it later.
    commits: watch::Sender<u64>,
}

impl Waker {
    fn new() -> Self {
        Self {
            commits: watch::Sender::new(0),
        }
    }

    /// Call it after COMMIT. Calling it before, or for a transaction that rolled back, costs a relay one empty look.
    pub fn notify_after_commit(&self) {
        self.commits.send_modify(|n| *n = n.wrapping_add(1));
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }
}
