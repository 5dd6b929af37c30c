//! What a producer hands over: an event in CloudEvents 1.0 terms.

mod check;

use std::{fmt, time::SystemTime};

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

pub use self::check::InvalidEvent;
#[cfg(feature = "sqlx")]
pub(crate) use self::check::{Caps, check};
use crate::{
    codec::{Codec, EncodeError, Json},
    message::SCHEMA,
    trace::{Parent, TRACEPARENT, TRACESTATE, is_tracestate},
};

/// The identity of one event: CloudEvents `id`, stable over every redelivery, and what consumers deduplicate by.
///
/// A UUID of version 7 unless the producer chose one with [`Event::id`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(Uuid);

impl EventId {
    /// A fresh id.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id as a UUID.
    #[must_use]
    pub const fn as_uuid(&self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for EventId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventId({self})")
    }
}

/// What the order of a key's events means. Chosen for an outbox by `OutboxConfig::ordering`, for one event by
/// [`Event::ordering`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ordering {
    /// First deliveries of a key are in the order in which its rows were written, which is the order of the commits where
    /// the transactions that write one key are already in order: one after the other, or by a row lock that each takes
    /// before it enqueues.
    #[default]
    PerKey,
    /// First deliveries of a key are in the order of the commits, whatever the transactions are: each takes a lock on the
    /// key with the statement that writes the event, and holds it until it ends.
    ///
    /// Transactions that write one key then go one after the other from that statement on, so enqueue late in them. Give
    /// several events to one `enqueue_many`, which takes its locks in one order: keys that are locked by call after call in
    /// different orders can deadlock, and the database ends one of the transactions with an error that says to try again.
    ///
    /// Postgres: transaction-scoped advisory locks. MySQL and MariaDB: a statement more, which locks rows that stand for the keys.
    /// On SQLite nothing is needed, as one transaction writes at a time.
    PerKeyStrict,
    /// No order: the event waits for no other and holds none back. Its key is only told to consumers.
    Unordered,
}

/// Something that happened, to be published once the transaction that says so has committed.
///
/// Building never fails except for the payload's encoding; sizes and characters are checked by
/// `Outbox::enqueue`, before the database sees anything.
///
/// ```
/// # use mainstay_outbox::Event;
/// let event = Event::new("payment.created")
///     .topic("payments")
///     .key("order-17")
///     .json(&serde_json::json!({ "amount": 1250 }))?
///     .header("x-tenant", "acme");
/// # Ok::<(), mainstay_outbox::EncodeError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[must_use = "an event does nothing until it is enqueued"]
pub struct Event {
    pub(crate) id: EventId,
    pub(crate) event_type: String,
    pub(crate) topic: Option<String>,
    pub(crate) subject: Option<String>,
    pub(crate) time: Option<SystemTime>,
    pub(crate) content_type: Option<String>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) ordering: Option<Ordering>,
    pub(crate) not_before: Option<SystemTime>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) payload: Bytes,
}

impl Event {
    /// An event of this CloudEvents `type`, for instance `payment.created`, with an empty payload and a fresh id.
    pub fn new(event_type: impl Into<String>) -> Self {
        Self {
            id: EventId::generate(),
            event_type: event_type.into(),
            topic: None,
            subject: None,
            time: None,
            content_type: None,
            key: None,
            ordering: None,
            not_before: None,
            headers: Vec::new(),
            payload: Bytes::new(),
        }
    }

    /// Chooses the id instead of a fresh one. Two events of one source must not share it; nothing here checks that.
    pub fn id(mut self, id: impl Into<EventId>) -> Self {
        self.id = id.into();
        self
    }

    /// Where it goes: the relay's sinks are chosen by topic. The event's type when not set.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// The ordering key, any bytes: events of one key are first delivered in order. Without a key there is no order.
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Some(key.as_ref().to_vec());
        self
    }

    /// What the order of its key means for this event, where it is not what the outbox is configured to.
    pub fn ordering(mut self, ordering: Ordering) -> Self {
        self.ordering = Some(ordering);
        self
    }

    /// Not to be delivered before this time on the database's clock, at most 10 years ahead.
    ///
    /// The event gets its place among its key's events when its time has come, and holds none of them back before. It is
    /// published within the relay's poll interval of that time.
    pub fn not_before(mut self, time: SystemTime) -> Self {
        self.not_before = Some(time);
        self
    }

    /// CloudEvents `subject`: what within the source it is about.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// CloudEvents `time`: when it happened. The database's clock at enqueue when not set.
    pub fn time(mut self, time: SystemTime) -> Self {
        self.time = Some(time);
        self
    }

    /// The payload as JSON, `datacontenttype` `application/json`.
    ///
    /// # Errors
    /// [`EncodeError`] when the value refuses to be written, for instance a map with keys that are not text.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Result<Self, EncodeError> {
        self.encode(&Json, value)
    }

    /// The payload as this codec writes it, with its media type and schema.
    ///
    /// # Errors
    /// [`EncodeError`] when its format cannot hold the value.
    pub fn encode<T: ?Sized>(self, codec: &impl Codec<T>, value: &T) -> Result<Self, EncodeError> {
        let payload = codec.encode(value)?;
        let event = self.bytes(codec.content_type(), payload);
        Ok(match codec.schema() {
            Some(uri) => event.schema(uri),
            None => event,
        })
    }

    /// The payload as bytes of this media type.
    pub fn bytes(mut self, content_type: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        self.content_type = Some(content_type.into());
        self.payload = payload.into();
        self
    }

    /// CloudEvents `dataschema`: a URI of the schema of the payload. Kept as the header of that name.
    pub fn schema(self, uri: impl Into<String>) -> Self {
        self.header(SCHEMA, uri)
    }

    /// The W3C trace context that it belongs to: a `traceparent`, and the `tracestate` if there is one.
    ///
    /// Kept in the headers of those names. What is not valid by the standard is left out, and logged at level debug: nobody
    /// loses an event for a trace. With the feature `opentelemetry` an event without a context takes the current span's.
    pub fn trace_context(mut self, traceparent: &str, tracestate: Option<&str>) -> Self {
        let known = |name: &str| name == TRACEPARENT || name == TRACESTATE;
        self.headers.retain(|(name, _)| !known(name));
        if Parent::parse(traceparent).is_none() {
            tracing::debug!(target: crate::TARGET, "what was given as a traceparent is none: left out");
            return self;
        }
        let event = self.header(TRACEPARENT, traceparent);
        match tracestate {
            Some(state) if is_tracestate(state) => event.header(TRACESTATE, state),
            Some(_) => {
                tracing::debug!(target: crate::TARGET, "what was given as a tracestate is none: left out");
                event
            }
            None => event,
        }
    }

    /// Adds a header, or replaces the one of that name. Names are lower-cased.
    ///
    /// Sinks carry headers in their own way; `traceparent` and `tracestate` keep their names everywhere.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let (name, value) = (name.into().to_ascii_lowercase(), value.into());
        match self.headers.iter_mut().find(|(known, _)| *known == name) {
            Some((_, slot)) => *slot = value,
            None => self.headers.push((name, value)),
        }
        self
    }

    /// The trace context it is enqueued in, unless it has one of its own.
    #[cfg(feature = "sqlx")]
    pub(crate) fn inherit(&mut self, parent: &str, state: &str) {
        if self.headers.iter().any(|(name, _)| name == TRACEPARENT) {
            return;
        }
        self.headers.retain(|(name, _)| name != TRACESTATE);
        let mut add =
            |name: &str, value: &str| self.headers.push((name.to_owned(), value.to_owned()));
        add(TRACEPARENT, parent);
        if is_tracestate(state) {
            add(TRACESTATE, state);
        }
    }

    pub(crate) fn topic_or_type(&self) -> &str {
        self.topic.as_deref().unwrap_or(&self.event_type)
    }
}

/// The payload and header values stay out: an event is often logged, and they are the user's data.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("id", &self.id)
            .field("type", &self.event_type)
            .field("topic", &self.topic_or_type())
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_context_is_kept_if_it_is_one() {
        const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
        let headers = |event: Event| event.headers;
        let named = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let event = || Event::new("t").header("x", "1");
        assert_eq!(
            headers(event().trace_context(PARENT, Some("a=1"))),
            [
                named("x", "1"),
                named(TRACEPARENT, PARENT),
                named(TRACESTATE, "a=1")
            ]
        );
        assert_eq!(
            headers(event().trace_context(PARENT, Some("a"))),
            [named("x", "1"), named(TRACEPARENT, PARENT)],
            "a bad state leaves a good parent"
        );
        let before = event().trace_context(PARENT, Some("a=1"));
        assert_eq!(
            headers(before.trace_context("00-0-0-0", Some("a=1"))),
            [named("x", "1")],
            "a state says nothing without its parent"
        );
    }

    #[test]
    fn debug_keeps_the_payload_out() {
        let event = Event::new("t")
            .bytes("text/plain", "secret")
            .header("x", "secret");
        assert!(!format!("{event:?}").contains("secret"));
    }
}
