//! What a sink is given: an event that has committed, with its envelope complete.

use std::{fmt, time::SystemTime};

use bytes::Bytes;

use crate::{
    codec::{SEALED_BY, Seal, SealError, open},
    event::{Event, EventId},
};

/// The header that holds CloudEvents `dataschema`.
pub(crate) const SCHEMA: &str = "dataschema";

/// One committed event on its way to a sink.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    pub(crate) id: EventId,
    pub(crate) source: String,
    pub(crate) event_type: String,
    pub(crate) topic: String,
    pub(crate) subject: Option<String>,
    pub(crate) time: SystemTime,
    pub(crate) content_type: Option<String>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) ordered: bool,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) payload: Bytes,
    pub(crate) attempt: u32,
    /// Its place among all events of its outbox.
    pub(crate) place: Option<i64>,
}

impl Message {
    /// The message that this event of `source` becomes on its first attempt; for tests of your own sinks.
    ///
    /// `now` is the event's time when it has none of its own.
    #[must_use]
    pub fn from_event(event: Event, source: impl Into<String>, now: SystemTime) -> Self {
        Self {
            topic: event.topic_or_type().to_owned(),
            id: event.id,
            source: source.into(),
            event_type: event.event_type,
            subject: event.subject,
            time: event.time.unwrap_or(now),
            content_type: event.content_type,
            key: event.key,
            ordered: true,
            headers: event.headers,
            payload: event.payload,
            attempt: 1,
            place: None,
        }
    }

    /// CloudEvents `id`: the same on every delivery of this event.
    #[must_use]
    pub const fn id(&self) -> EventId {
        self.id
    }

    /// CloudEvents `source`.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// CloudEvents `type`.
    #[must_use]
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// The topic that chose the sink.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// CloudEvents `subject`.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// CloudEvents `time`, to the microsecond (SQLite: when set by the database, to the millisecond).
    #[must_use]
    pub const fn time(&self) -> SystemTime {
        self.time
    }

    /// CloudEvents `datacontenttype`.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// The key. Whether it orders is what [`ordering_key`](Self::ordering_key) says.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    /// CloudEvents `dataschema`: a URI of the schema of the payload.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        self.header(SCHEMA)
    }

    /// The message with its payload opened, for sinks that publish plain payloads of an outbox that
    /// [seals](crate::codec) them. One that is not sealed is as it was.
    ///
    /// # Errors
    /// [`SealError`] when `seal` does not have its key, or its bytes are not what was sealed for this event.
    pub fn opened(mut self, seal: &dyn Seal) -> Result<Self, SealError> {
        let id = self.id.to_string();
        let place = (self.source.as_str(), id.as_str(), self.event_type.as_str());
        if let Some(plain) = open(seal, place, self.header(SEALED_BY), &self.payload)? {
            (self.content_type, self.payload) = plain;
            self.headers.retain(|(name, _)| name != SEALED_BY);
        }
        Ok(self)
    }

    /// The key, if messages of it are kept in order: what a sink that publishes side by side groups by.
    #[must_use]
    pub fn ordering_key(&self) -> Option<&[u8]> {
        self.key().filter(|_| self.ordered)
    }

    /// All headers, in the order they were added.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// One header, by its lower-case name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers()
            .find_map(|(known, value)| (known == name).then_some(value))
    }

    /// The payload, byte for byte as it was enqueued.
    #[must_use]
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Its place in the order of its outbox, as the CloudEvents extension `sequence` has it: text that sorts. Always the same
    /// number of digits, and the same on every delivery. `None` for one that no outbox has held.
    ///
    /// Of two messages of one key, the one with the greater sequence is the later one, so a consumer that remembers the last
    /// one of each key knows an older one that comes again. There are gaps, from transactions that rolled back and from ids
    /// that were drawn ahead: that a number is missing says nothing. Sinks do not send it by themselves.
    #[must_use]
    pub fn sequence(&self) -> Option<String> {
        // As many digits as the largest has.
        self.place.map(|place| format!("{place:019}"))
    }

    /// Which attempt this is, from 1. Attempts spent by crashes count; outages of the sink do not.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }
}

/// The payload, key and header values stay out of logs.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .field("type", &self.event_type)
            .field("topic", &self.topic)
            .field("attempt", &self.attempt)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// Microseconds since 1970, the unit both stores keep; times before that are negative.
#[cfg(any(feature = "sqlx", feature = "cloudevents"))]
pub(crate) fn to_micros(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |us| -us),
    }
}

/// The inverse of [`to_micros`].
#[cfg(any(feature = "sqlx", feature = "cloudevents"))]
pub(crate) fn from_micros(micros: i64) -> SystemTime {
    let epoch = SystemTime::UNIX_EPOCH;
    let span = std::time::Duration::from_micros(micros.unsigned_abs());
    let time = if micros < 0 {
        epoch.checked_sub(span)
    } else {
        epoch.checked_add(span)
    };
    time.unwrap_or(epoch)
}

#[cfg(all(test, any(feature = "sqlx", feature = "cloudevents")))]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_trip_through_microseconds() {
        for micros in [0, 1, -1, 1_763_700_000_123_456, -62_135_596_800_000_000] {
            assert_eq!(to_micros(from_micros(micros)), micros);
        }
    }
}
