//! The receiving side: an event, read back from what a transport carried.

use std::{fmt, time::SystemTime};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use percent_encoding::percent_decode_str;

use super::{Binding, json, time};
use crate::{
    codec::{SEALED_BY, Seal, SealError, open},
    event::EventId,
    message::SCHEMA,
};

/// An event as a consumer gets it, whoever published it.
#[derive(Clone, PartialEq, Eq)]
pub struct Received {
    id: String,
    source: String,
    event_type: String,
    subject: Option<String>,
    time: Option<SystemTime>,
    content_type: Option<String>,
    key: Option<Vec<u8>>,
    headers: Vec<(String, String)>,
    payload: Bytes,
    topic: String,
    attempt: u32,
}

/// Why something is not an event. It will not be one later either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// An attribute that must be there is missing or empty: what came is no CloudEvent.
    #[error("the message has no CloudEvents attribute {0}")]
    Missing(&'static str),
    /// An attribute's value is not what its type says.
    #[error("the message's CloudEvents attribute {0} is malformed")]
    Malformed(&'static str),
    /// A version of CloudEvents other than 1.x.
    #[error("the message is of a CloudEvents version other than 1.x")]
    Version,
    /// Structured mode, but not the JSON format, or not a document of it.
    #[error("the message is not a CloudEvent in JSON")]
    Json,
}

impl Received {
    /// Reads what a transport carried: its content type, headers and body. Which mode it is in, the content type tells.
    ///
    /// Headers whose name comes twice count once, with the first value. `topic` is where it came from: the subject, routing
    /// key or stream.
    ///
    /// # Errors
    /// [`Unreadable`] for what is no CloudEvent of version 1. That holds for each delivery: do not retry.
    pub fn read<'a>(
        binding: Binding,
        content_type: Option<&'a str>,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
        body: Bytes,
        topic: &str,
    ) -> Result<Self, Unreadable> {
        let mut event = Parts::default();
        let structured = content_type.is_some_and(|of| {
            let start = of.trim_start().get(.."application/cloudevents".len());
            start.is_some_and(|start| start.eq_ignore_ascii_case("application/cloudevents"))
        });
        for (name, value) in headers {
            match attribute(name) {
                // The document alone speaks of its attributes.
                Some(_) if structured => {}
                Some(name) => event.set(name, decoded(value, binding)?),
                None => event.plain(name, value),
            }
        }
        let payload = if structured {
            let media_type = content_type.unwrap_or_default().split(';').next();
            let media_type = media_type.unwrap_or_default().trim();
            if !media_type.eq_ignore_ascii_case(super::STRUCTURED) {
                return Err(Unreadable::Json);
            }
            let read = json::read(&body)?;
            for (name, value) in read.attributes {
                event.set(name, value);
            }
            read.payload
        } else {
            if let Some(content_type) = content_type {
                event.content_type = Some(content_type.to_owned());
            }
            body
        };
        event.finish(payload, topic)
    }

    /// Which attempt to handle it this is, from 1; see the consumer for what counts.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    #[cfg(any(feature = "nats", feature = "rabbitmq"))]
    pub(crate) const fn set_attempt(&mut self, attempt: u32) {
        self.attempt = attempt;
    }

    /// CloudEvents `id`: with the source, what to deduplicate by.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The id as events of this crate have it; `None` for one from another producer that is no UUID.
    #[must_use]
    pub fn event_id(&self) -> Option<EventId> {
        uuid::Uuid::try_parse(&self.id).ok().map(EventId::from)
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

    /// CloudEvents `subject`.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// CloudEvents `time`, to the microsecond.
    #[must_use]
    pub const fn time(&self) -> Option<SystemTime> {
        self.time
    }

    /// CloudEvents `datacontenttype`.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// The ordering key.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    /// All headers and extension attributes, by lower-case name.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// One header or extension attribute, by its lower-case name.
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

    /// CloudEvents `dataschema`: a URI of the schema of the payload.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        self.header(SCHEMA)
    }

    /// The event with its payload opened, when its producer [seals](crate::codec) payloads and its relay does not open them.
    /// One that is not sealed is as it was.
    ///
    /// # Errors
    /// [`SealError`] when `seal` does not have its key, or its bytes are not what was sealed for this event.
    pub fn opened(mut self, seal: &dyn Seal) -> Result<Self, SealError> {
        let place = (
            self.source.as_str(),
            self.id.as_str(),
            self.event_type.as_str(),
        );
        if let Some(plain) = open(seal, place, self.header(SEALED_BY), &self.payload)? {
            (self.content_type, self.payload) = plain;
            self.headers.retain(|(name, _)| name != SEALED_BY);
        }
        Ok(self)
    }

    /// Where it came from: the NATS subject, the routing key.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }
}

/// The payload, key and header values stay out of logs.
impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("id", &self.id)
            .field("type", &self.event_type)
            .field("topic", &self.topic)
            .field("attempt", &self.attempt)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// What has been read so far.
#[derive(Default)]
struct Parts {
    attributes: Vec<(String, String)>,
    content_type: Option<String>,
    headers: Vec<(String, String)>,
}

impl Parts {
    /// An attribute; the first of a name counts.
    fn set(&mut self, name: String, value: String) {
        if name == "datacontenttype" {
            self.content_type.get_or_insert(value);
        } else if !self.attributes.iter().any(|(known, _)| *known == name) {
            self.attributes.push((name, value));
        }
    }

    /// A header that is no attribute; the transport's own are not the event's.
    fn plain(&mut self, name: &str, value: &str) {
        let name = name.to_ascii_lowercase();
        let own = name.strip_prefix("x-event-").unwrap_or(&name);
        if name == "content-type" || name.starts_with("nats-") || name.starts_with("webhook-") {
            return;
        }
        if !self.headers.iter().any(|(known, _)| known == own) {
            self.headers.push((own.to_owned(), value.to_owned()));
        }
    }

    fn take(&mut self, name: &'static str) -> Option<String> {
        let at = self.attributes.iter().position(|(known, _)| known == name);
        at.map(|at| self.attributes.swap_remove(at).1)
    }

    fn must(&mut self, name: &'static str) -> Result<String, Unreadable> {
        let value = self.take(name).filter(|value| !value.is_empty());
        value.ok_or(Unreadable::Missing(name))
    }

    fn finish(mut self, payload: Bytes, topic: &str) -> Result<Received, Unreadable> {
        let version = self.must("specversion")?;
        if version != "1.0" && !version.starts_with("1.") {
            return Err(Unreadable::Version);
        }
        let time = match self.take("time") {
            Some(text) => Some(time::parse(&text).ok_or(Unreadable::Malformed("time"))?),
            None => None,
        };
        let bytes = match self.take("partitionkeybase64") {
            Some(text) => Some(
                STANDARD
                    .decode(text)
                    .map_err(|_| Unreadable::Malformed("partitionkeybase64"))?,
            ),
            None => None,
        };
        let text = self.take("partitionkey").filter(|key| !key.is_empty());
        let (id, source) = (self.must("id")?, self.must("source")?);
        let event_type = self.must("type")?;
        let subject = self.take("subject");
        self.headers.append(&mut self.attributes);
        Ok(Received {
            id,
            source,
            event_type,
            subject,
            time,
            content_type: self.content_type,
            key: bytes.or(text.map(String::into_bytes)),
            headers: self.headers,
            payload,
            topic: topic.to_owned(),
            attempt: 1,
        })
    }
}

/// The attribute a header stands for, whichever binding wrote it.
fn attribute(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    ["ce-", "ce_", "cloudevents:", "cloudevents_"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .map(str::to_owned)
}

/// An attribute's value. Writers of older versions put it in quotes, which the HTTP binding asks readers to take off.
fn decoded(value: &str, binding: Binding) -> Result<String, Unreadable> {
    if !binding.is_ascii() {
        return Ok(value.to_owned());
    }
    let quoted = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
    percent_decode_str(quoted.unwrap_or(value))
        .decode_utf8()
        .map(Into::into)
        .map_err(|_| Unreadable::Malformed("of the headers"))
}
