//! Enqueueing: one INSERT in the caller's own transaction.

use std::{marker::PhantomData, sync::Arc, time::SystemTime};

use sqlx::Pool;

use crate::{
    codec::{Seal, SealError, seal},
    event::{Caps, Event, EventId, InvalidEvent, Ordering, check},
    lane::{key_hash, key_lock},
    message::to_micros,
    store::{Misfit, NewRow, OutboxDb},
    telemetry, trace,
    wake::{Announcer, Waker},
};

/// How an [`Outbox`] fills in and bounds its events.
#[derive(Clone)]
#[must_use]
pub struct OutboxConfig {
    source: String,
    ordering: Ordering,
    seal: Option<Arc<dyn Seal>>,
    caps: Caps,
}

impl Default for OutboxConfig {
    /// Source `/`, [`Ordering::PerKey`], payloads up to 1 MiB.
    fn default() -> Self {
        Self {
            source: "/".to_owned(),
            ordering: Ordering::PerKey,
            seal: None,
            caps: Caps {
                payload: Caps::PAYLOAD_DEFAULT,
                events_per_call: Caps::EVENTS_PER_CALL,
            },
        }
    }
}

/// Keys stay out.
impl std::fmt::Debug for OutboxConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutboxConfig")
            .field("source", &self.source)
            .field("ordering", &self.ordering)
            .field("seals", &self.seal.is_some())
            .field("caps", &self.caps)
            .finish()
    }
}

impl OutboxConfig {
    /// CloudEvents `source` of every event: a URI reference naming this producer, for instance `/payments`.
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
        self
    }

    /// What the order of a key's events means, where an event does not say so itself. Default [`Ordering::PerKey`].
    ///
    /// All producers of a key should agree: a writer that takes no lock on it waits for none.
    pub fn ordering(mut self, ordering: Ordering) -> Self {
        self.ordering = ordering;
        self
    }

    /// Seals the payload of every event, so that the tables do not show it. See [`codec`](crate::codec) for what stays
    /// readable and where it is opened.
    pub fn seal(mut self, seal: impl Seal) -> Self {
        self.seal = Some(Arc::new(seal));
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
    ///
    /// Whether they are of this code's version is not asked, here or with an event, which would cost each a statement, and
    /// need not be: an INSERT names its columns, and whatever migrations add to a table that producers write to has a default
    /// that means what was meant before. So producers may be deployed after a migration; before it they are told
    /// [`EnqueueError::SchemaMismatch`]. Relays and operators' changes, which move whole rows, ask.
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
    /// Order is by key. When two transactions write the same key, whichever rule puts the transactions in order (a row lock
    /// on the aggregate, taken before this call) puts the events in order as well; [`Ordering::PerKeyStrict`] is such a rule
    /// where there is no other.
    ///
    /// # Errors
    /// [`EnqueueError::Invalid`] and [`EnqueueError::Seal`] before any SQL, so the transaction stays usable; the others after it, and then Postgres
    /// wants the transaction rolled back.
    ///
    /// # Cancel safety
    /// Whether the row is in the transaction is unknown when the future is dropped: roll the transaction back.
    pub async fn enqueue(
        &self,
        conn: &mut Db::Connection,
        mut event: Event,
    ) -> Result<EventId, EnqueueError> {
        check(&event, &self.config.source, self.config.caps, wall_clock)?;
        self.complete(std::slice::from_mut(&mut event))?;
        let row = self.row(&event);
        let written = if row.due_micros.is_some() {
            Db::insert_later(conn, std::slice::from_ref(&row)).await
        } else {
            Db::insert(conn, &row).await
        };
        self.written(written, 1)?;
        Ok(event.id)
    }

    /// Writes events in their order with one INSERT, and one more for those that are not due at once; otherwise as [`enqueue`](Self::enqueue). At most 1000.
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue), but one invalid event refuses all of them, and is [`EnqueueError::InvalidAt`].
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
        let mut events: Vec<Event> = events.into_iter().take(max + 1).collect();
        if events.len() > max {
            return Err(InvalidEvent::TooManyEvents { max }.into());
        }
        let mut bytes = 0usize;
        for (index, event) in events.iter().enumerate() {
            let id = event.id;
            check(event, &self.config.source, self.config.caps, wall_clock)
                .map_err(|reason| EnqueueError::InvalidAt { index, id, reason })?;
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
        self.complete(&mut events)?;
        let rows = events.iter().map(|event| self.row(event));
        let (later, now): (Vec<_>, Vec<_>) = rows.partition(|row| row.due_micros.is_some());
        if !now.is_empty() {
            self.written(Db::insert_many(conn, &now).await, now.len())?;
        }
        if !later.is_empty() {
            self.written(Db::insert_later(conn, &later).await, later.len())?;
        }
        Ok(events.iter().map(|event| event.id).collect())
    }

    /// Wakes relays of this process; give it to [`RelayBuilder::wake`](crate::RelayBuilder::wake).
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Announces what [`notify_after_commit`](Waker::notify_after_commit) is called for to relays of other processes that
    /// [listen](crate::RelayBuilder::listen), until the handle is dropped.
    ///
    /// Announcements are NOTIFYs, each in a transaction of its own on a connection of `pool`: the first commit is announced
    /// at once, those within the next ten milliseconds together. Never in the producer's transaction, where a NOTIFY would
    /// put the commits of the whole database in a queue. One connection is in use while an announcement is under way.
    ///
    /// It is a hint: when announcing fails, relays find the events at their next poll. Only Postgres can carry it; elsewhere
    /// nothing is announced.
    ///
    /// # Panics
    /// When called outside a tokio runtime, as [`tokio::spawn`] does.
    pub fn announce(&self, pool: Pool<Db>) -> Announcer {
        Announcer::spawn(pool, self.waker.subscribe())
    }

    /// What the outbox adds to events that have been checked; none of it counts against their caps.
    fn complete(&self, events: &mut [Event]) -> Result<(), EnqueueError> {
        if let Some((parent, state)) = trace::current() {
            for event in events.iter_mut() {
                event.inherit(&parent, &state);
            }
        }
        if let Some(with) = &self.config.seal {
            for event in events {
                seal(with.as_ref(), &self.config.source, event).map_err(EnqueueError::Seal)?;
            }
        }
        Ok(())
    }

    fn row<'a>(&'a self, event: &'a Event) -> NewRow<'a> {
        let ordering = event.ordering.unwrap_or(self.config.ordering);
        let ordered = ordering != Ordering::Unordered;
        let key = event.key.as_deref();
        // Where there is no order to keep, the id spreads the events over the lanes.
        let hash = match key {
            Some(key) if ordered => key_hash(key),
            _ => key_hash(event.id.as_uuid().as_bytes()),
        };
        let strict = key.filter(|_| ordering == Ordering::PerKeyStrict);
        NewRow {
            hash,
            event_id: event.id.as_uuid(),
            source: &self.config.source,
            event_type: &event.event_type,
            topic: event.topic_or_type(),
            subject: event.subject.as_deref(),
            time_micros: event.time.map(to_micros),
            content_type: event.content_type.as_deref(),
            key,
            ordered,
            lock: strict.map(key_lock),
            due_micros: event.not_before.map(to_micros),
            headers: serde_json::to_string(&event.headers).unwrap_or_else(|_| "[]".to_owned()),
            payload: &event.payload,
        }
    }

    fn written(&self, rows: Result<u64, sqlx::Error>, expected: usize) -> Result<(), EnqueueError> {
        match rows {
            Ok(rows) if rows == expected as u64 => {
                telemetry::enqueued(rows);
                Ok(())
            }
            // No settings row, so nothing was selected.
            Ok(_) => Err(EnqueueError::SchemaMismatch(None)),
            Err(error) => Err(match Db::misfit(&error) {
                Some(Misfit::ReadOnly) => EnqueueError::ReadOnly(error),
                Some(Misfit::Schema) => EnqueueError::SchemaMismatch(Some(error)),
                None => EnqueueError::Database(error),
            }),
        }
    }
}

/// For one question only: whether an event's time to wait is a mistake. When it is due, the database's clock says.
#[expect(
    clippy::disallowed_methods,
    reason = "no statement may be sent before the event is checked, and years are no matter of clocks"
)]
pub(crate) fn wall_clock() -> SystemTime {
    SystemTime::now()
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
    /// The event, or the call as a whole, breaks a cap. Nothing was sent to the database; the transaction is usable.
    #[error(transparent)]
    Invalid(#[from] InvalidEvent),
    /// One of the events of a call breaks a cap. Nothing was sent to the database; the transaction is usable.
    #[error("event {index} of the call, counted from 0, is refused: {id}")]
    InvalidAt {
        /// Its place in the call, from 0.
        index: usize,
        /// Its id.
        id: EventId,
        /// What is wrong with it.
        #[source]
        reason: InvalidEvent,
    },
    /// The payload could not be sealed. Nothing was sent to the database; the transaction is usable.
    #[error(transparent)]
    Seal(SealError),
    /// The outbox's tables are missing, or do not fit this code: [`migrate`](crate::migrate) has not been run, or by code
    /// that is newer or older.
    #[error("the outbox's tables are missing or do not fit this code: run migrate")]
    SchemaMismatch(#[source] Option<sqlx::Error>),
    /// The transaction or the database takes no writes: a replica, for instance, or a transaction begun read-only.
    #[error("the database is read-only here")]
    ReadOnly(#[source] sqlx::Error),
    /// The database refused or failed.
    #[error("the event could not be written")]
    Database(#[source] sqlx::Error),
}
