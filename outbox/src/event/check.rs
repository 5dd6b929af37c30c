//! What an event may hold, checked before any SQL is sent. Pure.

#[cfg(feature = "sqlx")]
use std::time::{Duration, SystemTime};

#[cfg(feature = "sqlx")]
use super::Event;
#[cfg(feature = "sqlx")]
use crate::{codec::SEALED_BY, message::to_micros};

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
    /// One call brought more events than the cap. How many more is not known: they are not collected.
    #[error("more than {max} events in one call")]
    TooManyEvents {
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

#[cfg(all(test, feature = "sqlx"))]
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
}
