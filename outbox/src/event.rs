//! What a producer hands over: an event in CloudEvents 1.0 terms, checked before any SQL is sent.

#[cfg(feature = "sqlx")]
use std::time::Duration;
use std::{fmt, time::SystemTime};

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

#[cfg(feature = "sqlx")]
use crate::{codec::SEALED_BY, message::to_micros};
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

/// An event that was refused before the database saw it. The transaction is untouched and usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEvent {
    /// A part is longer than its cap.
    #[error("the event's {part} is {actual} bytes long, the most is {max}")]
    TooLarge {
        /// Which part.
        part: &'static str,
        /// Its size in bytes (headers: names and values together).
        actual: usize,
        /// The cap in bytes.
        max: usize,
    },
    /// A part that must be there is empty.
    #[error("the event's {0} is empty")]
    Empty(&'static str),
    /// A part contains control characters, which no wire format carries safely.
    #[error("the event's {0} contains control characters")]
    Control(&'static str),
    /// A header's name is not 1 to 64 characters of `a-z 0-9 - _`.
    #[error("an event's header name is not 1 to 64 characters of a-z, 0-9, - and _")]
    HeaderName,
    /// A header of this name is the outbox's own.
    #[error("the event's header {0} is the outbox's own")]
    ReservedHeader(&'static str),
    /// More headers than the cap.
    #[error("the event has {actual} headers, the most is {max}")]
    TooManyHeaders {
        /// How many there are.
        actual: usize,
        /// The cap.
        max: usize,
    },
    /// The event's time is outside the years 1 to 9999, which is all that its text form can say.
    #[error("the event's time is outside the years 1 to 9999")]
    Time,
    /// The event is not to be delivered for more than 10 years, or its time is no time at all.
    #[error("the event's not_before is more than 10 years ahead")]
    NotBefore,
    /// One call brought more events than the cap.
    #[error("{actual} events in one call, the most is {max}")]
    TooManyEvents {
        /// How many there are.
        actual: usize,
        /// The cap.
        max: usize,
    },
}

/// The most an event may hold. Every cap is in bytes unless its name says otherwise.
#[cfg(feature = "sqlx")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caps {
    pub(crate) payload: usize,
    pub(crate) events_per_call: usize,
}

#[cfg(feature = "sqlx")]
impl Caps {
    /// CloudEvents only promises that intermediaries forward 64 KiB, brokers commonly take 1 MiB.
    pub(crate) const PAYLOAD_DEFAULT: usize = 1024 * 1024;
    /// Far below where a driver's length fields become dangerous.
    pub(crate) const PAYLOAD_MAX: usize = 64 * 1024 * 1024;
    pub(crate) const EVENTS_PER_CALL: usize = 1_000;
    const NAME: usize = 255;
    const SUBJECT: usize = 1024;
    const KEY: usize = 1024;
    const HEADERS: usize = 16 * 1024;
    const HEADER_COUNT: usize = 64;
    /// What is due later than this is a mistake in a unit, and a row that nobody will remember.
    const AHEAD: Duration = Duration::from_secs(3_653 * 86_400);
}

/// Checks one event against the caps. `now` is only asked for when the event is to wait.
#[cfg(feature = "sqlx")]
pub(crate) fn check(
    event: &Event,
    source: &str,
    caps: Caps,
    now: impl FnOnce() -> SystemTime,
) -> Result<(), InvalidEvent> {
    text("source", source, Caps::NAME, true)?;
    text("type", &event.event_type, Caps::NAME, true)?;
    text("topic", event.topic_or_type(), Caps::NAME, true)?;
    if let Some(subject) = &event.subject {
        text("subject", subject, Caps::SUBJECT, true)?;
    }
    if let Some(content_type) = &event.content_type {
        text("content type", content_type, Caps::NAME, true)?;
    }
    at_most("key", event.key.as_ref().map_or(0, Vec::len), Caps::KEY)?;
    at_most("payload", event.payload.len(), caps.payload)?;
    let years = -62_135_596_800_000_000..253_402_300_800_000_000;
    if event
        .time
        .is_some_and(|time| !years.contains(&to_micros(time)))
    {
        return Err(InvalidEvent::Time);
    }
    if event.not_before.is_some_and(|time| {
        let far = now().checked_add(Caps::AHEAD);
        far.is_none_or(|far| time > far) || to_micros(time) < years.start
    }) {
        return Err(InvalidEvent::NotBefore);
    }
    if event.headers.len() > Caps::HEADER_COUNT {
        return Err(InvalidEvent::TooManyHeaders {
            actual: event.headers.len(),
            max: Caps::HEADER_COUNT,
        });
    }
    let mut size = 0;
    for (name, value) in &event.headers {
        let fits = (1..=64).contains(&name.len());
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        if !fits || !name.bytes().all(plain) {
            return Err(InvalidEvent::HeaderName);
        }
        if name == SEALED_BY {
            return Err(InvalidEvent::ReservedHeader(SEALED_BY));
        }
        text("header value", value, Caps::HEADERS, false)?;
        size += name.len() + value.len();
    }
    at_most("headers", size, Caps::HEADERS)
}

#[cfg(feature = "sqlx")]
fn text(part: &'static str, value: &str, max: usize, required: bool) -> Result<(), InvalidEvent> {
    if required && value.is_empty() {
        return Err(InvalidEvent::Empty(part));
    }
    at_most(part, value.len(), max)?;
    if value.chars().any(char::is_control) {
        return Err(InvalidEvent::Control(part));
    }
    Ok(())
}

#[cfg(feature = "sqlx")]
fn at_most(part: &'static str, actual: usize, max: usize) -> Result<(), InvalidEvent> {
    if actual > max {
        return Err(InvalidEvent::TooLarge { part, actual, max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps {
        payload: 10,
        events_per_call: 1,
    };

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_763_700_000)
    }

    #[test]
    fn a_plain_event_passes() {
        let event = Event::new("a.b").key([0, 255]).header("X-Tenant", "ä");
        assert_eq!(check(&event, "/s", CAPS, now), Ok(()));
        assert_eq!(event.headers, [("x-tenant".to_owned(), "ä".to_owned())]);
    }

    #[test]
    fn each_part_has_a_cap() {
        let long = "x".repeat(2_000);
        let refused = |event: Event| check(&event, "/s", CAPS, now).unwrap_err();
        for (event, part) in [
            (Event::new(long.clone()), "type"),
            (Event::new("t").topic(long.clone()), "topic"),
            (Event::new("t").subject(long.clone()), "subject"),
            (Event::new("t").key(&long), "key"),
            (Event::new("t").bytes("text/plain", long.clone()), "payload"),
        ] {
            assert!(
                matches!(refused(event), InvalidEvent::TooLarge { part: p, .. } if p == part),
                "{part}"
            );
        }
        let mut many = Event::new("t");
        for n in 0..65 {
            many = many.header(format!("h{n}"), "");
        }
        assert!(matches!(refused(many), InvalidEvent::TooManyHeaders { .. }));
    }

    #[test]
    fn what_postgres_or_a_wire_would_choke_on_is_refused_first() {
        let refused = |event: Event| check(&event, "/s", CAPS, now).unwrap_err();
        assert_eq!(refused(Event::new("a\0b")), InvalidEvent::Control("type"));
        assert_eq!(
            refused(Event::new("a").header("x", "1\r\nhost: evil")),
            InvalidEvent::Control("header value")
        );
        assert_eq!(
            refused(Event::new("a").header("x y", "1")),
            InvalidEvent::HeaderName
        );
        assert_eq!(
            refused(Event::new("a").header("SealedBy", "1")),
            InvalidEvent::ReservedHeader("sealedby")
        );
        assert_eq!(refused(Event::new("")), InvalidEvent::Empty("type"));
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_800);
        assert_eq!(refused(Event::new("a").time(far)), InvalidEvent::Time);
    }

    #[test]
    fn an_event_may_wait_ten_years_and_no_longer() {
        let after = |wait| check(&Event::new("a").not_before(now() + wait), "/s", CAPS, now);
        assert_eq!(after(Duration::ZERO), Ok(()));
        assert_eq!(after(Caps::AHEAD), Ok(()));
        let too_far = after(Caps::AHEAD + Duration::from_secs(1));
        assert_eq!(too_far, Err(InvalidEvent::NotBefore));
        let past = Event::new("a").not_before(SystemTime::UNIX_EPOCH);
        assert_eq!(check(&past, "/s", CAPS, now), Ok(()), "due at once");
    }

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
