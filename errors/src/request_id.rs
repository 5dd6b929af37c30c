//! The id that ties a response, its problem document and the log together.

use std::fmt;

use http::HeaderValue;

use crate::trace_parent;

/// A well-formed request id: 1 to 128 bytes of `[A-Za-z0-9._-]`.
///
/// An id from outside is echoed into headers, documents and logs, so anything else is refused rather
/// than cleaned: a line break would forge a log line, a megabyte would be stored a thousand times.
///
/// Kept as a header value, which is how it comes and goes: a copy shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The longest id that is accepted, in bytes. Enough for a UUID, a ULID or a trace id with room for a prefix.
    pub const BYTES_MAX: usize = 128;

    /// Takes an id from outside; `None` unless it is well-formed.
    #[must_use]
    pub fn parse(id: &str) -> Option<Self> {
        if !is_well_formed(id.as_bytes()) {
            return None;
        }
        HeaderValue::from_str(id).ok().map(Self)
    }

    /// Takes an id from a header; `None` unless it is well-formed.
    #[must_use]
    pub fn from_header(value: &HeaderValue) -> Option<Self> {
        is_well_formed(value.as_bytes()).then(|| Self(value.clone()))
    }

    /// Takes the trace id of a W3C `traceparent` header, so that one id finds the trace, the log and the answer.
    /// `None` unless all of the header is sound: a version other than `ff`, a trace id of 32 and a parent id of 16
    /// lower-case hex digits, neither all zero.
    #[must_use]
    pub fn from_traceparent(value: &HeaderValue) -> Option<Self> {
        Self::parse(trace_parent::trace_id(value.as_bytes())?)
    }

    /// Makes a fresh id: a UUIDv7, so that ids sort by time.
    #[must_use]
    pub fn generate() -> Self {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let id = uuid::Uuid::now_v7().hyphenated().encode_lower(&mut text);
        // Hex digits and dashes always are a header value.
        Self(HeaderValue::from_str(id).unwrap_or(HeaderValue::from_static("unidentified")))
    }

    /// The id as it travels.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Never empty: only ASCII came in.
        self.0.to_str().unwrap_or_default()
    }

    /// The id as a header value, sharing its bytes.
    #[must_use]
    pub fn to_header(&self) -> HeaderValue {
        self.0.clone()
    }
}

fn is_well_formed(id: &[u8]) -> bool {
    !id.is_empty()
        && id.len() <= RequestId::BYTES_MAX
        && id
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_ids_are_accepted() {
        let longest = "a".repeat(128);
        for good in ["a", "018f-x.y_Z", longest.as_str()] {
            assert_eq!(RequestId::parse(good).unwrap().as_str(), good);
        }
        let too_long = "a".repeat(129);
        for bad in [
            "",
            " ",
            "a b",
            "a\r\nb",
            "ä",
            "a/b",
            "\u{0}",
            too_long.as_str(),
        ] {
            assert_eq!(RequestId::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn made_ids_are_well_formed_and_distinct() {
        let (a, b) = (RequestId::generate(), RequestId::generate());
        assert_ne!(a, b);
        assert_eq!(RequestId::parse(a.as_str()), Some(a));
    }
}
