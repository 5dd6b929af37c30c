//! CloudEvents 1.0: how a message is written for each protocol, and read back from it.
//!
//! The broker sinks and the webhook sink speak it already; this is for sinks and consumers of your own.
//!
//! # What becomes of a message
//! | of the message | in CloudEvents |
//! |---|---|
//! | id, source, type, subject, time | the attributes of those names, `specversion` `1.0` |
//! | content type | `datacontenttype`: the transport's content type, or a member in structured mode |
//! | key | `partitionkey`; `partitionkeybase64` if it is not text that CloudEvents allows |
//! | headers `traceparent`, `tracestate` | under their own names, as the trace context standard has them |
//! | headers `x-…` | under their own names |
//! | headers of one word (`a-z 0-9`, at most 20) | extension attributes |
//! | other headers | `x-event-…`, so that none can speak for the transport |
//! | payload | the body, or `data` / `data_base64` in structured mode: the same bytes are read back |
//!
//! The extension `sequence` is yours to set, as a header of that name, padded with zeros so that it sorts as text: a row's id
//! would tell of gaps that are none. A sink of your own for which that is no matter can send [`Message::sequence`].
//!
//! # Bindings
//! | | attributes travel as | values | in structured mode |
//! |---|---|---|---|
//! | [`Http`](Binding::Http) | `ce-id` … | percent-encoded | body `application/cloudevents+json` |
//! | [`Nats`](Binding::Nats) | `ce-id` … | percent-encoded | the same |
//! | [`Amqp`](Binding::Amqp) | `cloudEvents:id` … | text | the same |
//! | [`Kafka`](Binding::Kafka) | `ce_id` … | text | the same |
//!
//! Header names are read without regard to case, and AMQP's also as `cloudEvents_id`, which newer writers send. Structured
//! mode keeps the attributes in the body; headers that are no attributes travel beside it as in binary mode.
//!
//! There is no batched mode (a JSON array of events), on purpose: it is HTTP's alone, and one answer for a whole array says
//! nothing of any one event. A receiver that could not take the third of ten would have to refuse all ten, so that one bad event
//! holds up the keys of the others, or to acknowledge what it has not taken. Connections are kept, so little would be saved.
//!
//! Sources: the specification's release 1.0.2, its HTTP, AMQP and Kafka bindings and JSON format; for headers over NATS
//! the binding's 1.0.3, since 1.0.2 predates NATS's headers; the partitioning and distributed tracing extensions.

mod json;
mod read;
mod time;

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

pub use self::read::{Received, Unreadable};
use crate::message::Message;

/// The media type of an event in structured mode.
pub const STRUCTURED: &str = "application/cloudevents+json";

/// Where the attributes of an event travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ContentMode {
    /// Attributes as headers, the payload as it is. Smaller, and readable by who knows nothing of CloudEvents.
    #[default]
    Binary,
    /// Everything in one JSON document, which survives hops that lose headers.
    Structured,
}

/// A protocol's way of carrying events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Binding {
    /// HTTP: `ce-` and percent-encoded values.
    Http,
    /// NATS: as HTTP, from server 2.2 on, which has headers.
    Nats,
    /// AMQP application properties, on RabbitMQ the message's headers: `cloudEvents:`.
    Amqp,
    /// Kafka headers: `ce_`. The sink to Redis Streams takes these names for its fields.
    Kafka,
}

impl Binding {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Http | Self::Nats => "ce-",
            Self::Amqp => "cloudEvents:",
            Self::Kafka => "ce_",
        }
    }

    /// Whether values may hold nothing but printable ASCII.
    const fn is_ascii(self) -> bool {
        matches!(self, Self::Http | Self::Nats)
    }
}

/// An event as a transport carries it.
#[derive(Clone, PartialEq, Eq)]
pub struct Wire {
    content_type: Option<String>,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Wire {
    /// The message, written for this protocol in this mode.
    #[must_use]
    pub fn new(message: &Message, binding: Binding, mode: ContentMode) -> Self {
        let mut headers: Vec<_> = message
            .headers()
            .filter_map(|(name, value)| Some((plain_name(name)?, value)))
            .map(|(name, value)| (name.into_owned(), plain_value(value, binding)))
            .collect();
        if mode == ContentMode::Structured {
            return Self {
                content_type: Some(STRUCTURED.to_owned()),
                headers,
                body: json::write(message),
            };
        }
        headers.extend(attributes(message).into_iter().map(|(name, value)| {
            let value = match binding.is_ascii() {
                true => percent_encoded(&value),
                false => value.into_owned(),
            };
            (format!("{}{name}", binding.prefix()), value)
        }));
        Self {
            content_type: message.content_type().map(str::to_owned),
            headers,
            body: message.payload().clone(),
        }
    }

    /// The transport's own content type.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// All headers, attributes included; no name comes twice.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The body.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// Bytes of the body and of the headers' names and values: for transports with a limit.
    #[must_use]
    pub fn size(&self) -> usize {
        let headers: usize = self.headers().map(|(n, v)| n.len() + v.len()).sum();
        self.body.len() + headers
    }
}

/// Bodies and header values stay out of logs.
impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire")
            .field("content_type", &self.content_type)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// The attributes by name, without `datacontenttype`.
fn attributes(message: &Message) -> Vec<(&str, Cow<'_, str>)> {
    let mut attributes = vec![
        ("specversion", Cow::Borrowed("1.0")),
        ("id", Cow::Owned(message.id().to_string())),
        ("source", Cow::Borrowed(message.source())),
        ("type", Cow::Borrowed(message.event_type())),
        ("time", Cow::Owned(time::rfc3339(message.time()))),
    ];
    if let Some(subject) = message.subject() {
        attributes.push(("subject", Cow::Borrowed(subject)));
    }
    if let Some(key) = message.key() {
        attributes.push(match std::str::from_utf8(key) {
            Ok(text) if is_text(text) => ("partitionkey", Cow::Borrowed(text)),
            _ => ("partitionkeybase64", Cow::Owned(STANDARD.encode(key))),
        });
    }
    let extensions = message
        .headers()
        .filter(|(name, _)| plain_name(name).is_none());
    attributes.extend(extensions.map(|(name, value)| (name, Cow::Borrowed(value))));
    attributes
}

/// Whether CloudEvents allows it as a string: not empty, no control characters.
fn is_text(value: &str) -> bool {
    !value.is_empty() && !value.chars().any(char::is_control)
}

/// The attributes that an event's own headers must not speak for.
const RESERVED: [&str; 10] = [
    "data",
    "datacontenttype",
    "id",
    "partitionkey",
    "partitionkeybase64",
    "source",
    "specversion",
    "subject",
    "time",
    "type",
];

/// The name that an event's header travels under when it is no attribute. Framing and credentials of the transport are out
/// of its reach, and so are the event's attributes.
fn plain_name(name: &str) -> Option<Cow<'_, str>> {
    let word = (1..=20).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && !RESERVED.contains(&name);
    if matches!(name, "traceparent" | "tracestate") || name.starts_with("x-") {
        Some(Cow::Borrowed(name))
    } else if word {
        None
    } else {
        Some(Cow::Owned(format!("x-event-{name}")))
    }
}

/// A header that is no attribute goes as it is where it can: tracestate has spaces, anything has percent signs.
fn plain_value(value: &str, binding: Binding) -> String {
    // Spaces at its ends are not the value's to a receiver.
    let printable = value.bytes().all(|b| matches!(b, b' '..=b'~')) && value.trim() == value;
    if printable || !binding.is_ascii() {
        value.to_owned()
    } else {
        percent_encoded(value)
    }
}

/// What the HTTP binding encodes, beside all that is not ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// The HTTP binding's way of putting any text into a header.
fn percent_encoded(value: &str) -> String {
    utf8_percent_encode(value, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_headers_cannot_touch_the_transports_own() {
        for (name, sent) in [
            ("traceparent", Some("traceparent")),
            ("x-tenant", Some("x-tenant")),
            ("tenant", None),
            ("host", None),
            ("authorization", None),
            ("content-length", Some("x-event-content-length")),
            ("nats-msg-id", Some("x-event-nats-msg-id")),
            ("webhook-id", Some("x-event-webhook-id")),
            ("tenant_id", Some("x-event-tenant_id")),
            ("subject", Some("x-event-subject")),
            ("partitionkey", Some("x-event-partitionkey")),
            ("datacontenttype", Some("x-event-datacontenttype")),
        ] {
            assert_eq!(plain_name(name).as_deref(), sent, "{name}");
        }
    }

    #[test]
    fn any_text_fits_a_header() {
        // The first is the example of the HTTP binding.
        assert_eq!(
            percent_encoded("Euro € 😀"),
            "Euro%20%E2%82%AC%20%F0%9F%98%80"
        );
        assert_eq!(percent_encoded("\"100%\"\u{7f}"), "%22100%25%22%7F");
    }

    #[test]
    fn headers_that_are_no_attributes_go_as_they_are() {
        let event = crate::Event::new("t")
            .header("tracestate", "a=1%2, b=\"2\"")
            .header("x-name", "ä b")
            .header("tenant", "a b");
        let message = Message::from_event(event, "/s", std::time::UNIX_EPOCH);
        let sent = |binding: Binding, name: &str| {
            let wire = Wire::new(&message, binding, ContentMode::Binary);
            let header = wire.headers().find(|(known, _)| *known == name);
            header.map(|(_, value)| value.to_owned()).unwrap()
        };
        assert_eq!(sent(Binding::Http, "tracestate"), "a=1%2, b=\"2\"");
        assert_eq!(sent(Binding::Http, "x-name"), "%C3%A4%20b");
        assert_eq!(sent(Binding::Amqp, "x-name"), "ä b");
        assert_eq!(sent(Binding::Nats, "ce-tenant"), "a%20b");
        assert_eq!(sent(Binding::Kafka, "ce_tenant"), "a b");
    }
}
