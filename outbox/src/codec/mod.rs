//! Payloads: from a value to bytes, and from bytes to what the table may show.
//!
//! A [`Codec`] writes values of a type in one format and names the format: [`Json`], or your own for Protobuf, Avro and so
//! on. A [`Seal`] encrypts what the codec wrote, so that neither the outbox's tables nor their backups show it.
//!
//! # Encryption
//! An outbox with [`OutboxConfig::seal`](crate::OutboxConfig::seal) writes sealed payloads. Where they are opened is a choice:
//! - **by the consumer**, with `Received::opened`: broker, webhooks and dead letters hold sealed bytes as well. Nothing is to
//!   be done at the relay.
//! - **by the relay**, with an [`OpeningSink`](crate::sink::OpeningSink) around the sink: only the database holds sealed
//!   bytes. A message that does not open is not published: it is retried, and in the end a dead letter.
//!
//! Sealed are the payload and its media type. Everything else stays readable, because relays, brokers and operators need
//! it: id, source, type, topic, subject, key, time, headers. Do not put secrets there. A sealed message says
//! `application/octet-stream` and has the header `sealedby` with the id of the key.
//!
//! Each payload is bound to the source, id and type of its event: moved to another event it does not open. Replay of a whole
//! event is what consumers' inboxes are for.

#[cfg(feature = "aead")]
mod aead;
mod seal;

use bytes::Bytes;
use serde::Serialize;

#[cfg(feature = "aead")]
#[cfg_attr(docsrs, doc(cfg(feature = "aead")))]
pub use self::aead::Aead;
#[cfg(feature = "sqlx")]
pub(crate) use self::seal::seal;
pub(crate) use self::seal::{SEALED_BY, open};
pub use self::seal::{Seal, SealError};

/// Writes values of `T` in one format.
///
/// ```
/// use bytes::Bytes;
/// use mainstay_outbox::{EncodeError, Event, codec::Codec};
///
/// /// One number in text, as an example of a format of one's own.
/// struct Text;
///
/// impl Codec<u32> for Text {
///     fn content_type(&self) -> &str {
///         "text/plain"
///     }
///     fn schema(&self) -> Option<&str> {
///         Some("https://example.com/schemas/amount/1")
///     }
///     fn encode(&self, value: &u32) -> Result<Bytes, EncodeError> {
///         Ok(value.to_string().into())
///     }
/// }
///
/// let event = Event::new("payment.created").encode(&Text, &1250)?;
/// # Ok::<(), EncodeError>(())
/// ```
pub trait Codec<T: ?Sized> {
    /// CloudEvents `datacontenttype` of what it writes.
    fn content_type(&self) -> &str;

    /// CloudEvents `dataschema`: a URI of the schema that what it writes adheres to. A schema that is not compatible has
    /// another URI.
    fn schema(&self) -> Option<&str> {
        None
    }

    /// Writes the value.
    ///
    /// # Errors
    /// [`EncodeError`] when the format cannot hold it.
    fn encode(&self, value: &T) -> Result<Bytes, EncodeError>;
}

/// JSON by serde.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json;

impl<T: Serialize + ?Sized> Codec<T> for Json {
    fn content_type(&self) -> &'static str {
        "application/json"
    }

    fn encode(&self, value: &T) -> Result<Bytes, EncodeError> {
        let bytes = serde_json::to_vec(value).map_err(EncodeError::new)?;
        Ok(bytes.into())
    }
}

/// The value could not be written in the codec's format. Why is in `source()`.
#[derive(Debug, thiserror::Error)]
#[error("the event's payload could not be encoded")]
pub struct EncodeError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl EncodeError {
    /// For codecs of your own.
    pub fn new(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Event;

    struct Numbers;

    impl Codec<u32> for Numbers {
        fn content_type(&self) -> &'static str {
            "application/x-number"
        }

        fn schema(&self) -> Option<&str> {
            Some("https://example.com/number/1")
        }

        fn encode(&self, value: &u32) -> Result<Bytes, EncodeError> {
            match value {
                0 => Err(EncodeError::new("nothing is not a number here")),
                _ => Ok(value.to_be_bytes().to_vec().into()),
            }
        }
    }

    #[test]
    fn a_codec_says_its_format_and_its_schema() {
        let event = Event::new("t").encode(&Numbers, &258).unwrap();
        assert_eq!(event.payload, [0, 0, 1, 2][..]);
        assert_eq!(event.content_type.as_deref(), Some("application/x-number"));
        let schema = ("dataschema", "https://example.com/number/1");
        assert_eq!(event.headers, [(schema.0.to_owned(), schema.1.to_owned())]);
        let refused = Event::new("t").encode(&Numbers, &0).unwrap_err();
        let cause = std::error::Error::source(&refused).unwrap().to_string();
        assert_eq!(cause, "nothing is not a number here");
    }

    #[test]
    fn json_is_a_codec_without_a_schema() {
        let event = Event::new("t").json(&["a"]).unwrap();
        assert_eq!(event.payload, "[\"a\"]");
        assert_eq!(event.content_type.as_deref(), Some("application/json"));
        assert!(event.headers.is_empty());
    }
}
