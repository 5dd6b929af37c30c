//! The id that ties a response, its problem document and the log together.

use std::fmt;

/// A well-formed request id: 1 to 128 bytes of `[A-Za-z0-9._-]`.
///
/// An id from outside is echoed into headers, documents and logs, so anything else is refused rather
/// than cleaned: a line break would forge a log line, a megabyte would be stored a thousand times.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(String);

impl RequestId {
    /// The longest id that is accepted, in bytes. Enough for a UUID, a ULID or a trace id with room for a prefix.
    pub const BYTES_MAX: usize = 128;

    /// Takes an id from outside; `None` unless it is well-formed.
    #[must_use]
    pub fn parse(id: &str) -> Option<Self> {
        let well_formed = !id.is_empty()
            && id.len() <= Self::BYTES_MAX
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        well_formed.then(|| Self(id.to_owned()))
    }

    /// Makes a fresh id: a UUIDv7, so that ids sort by time.
    #[must_use]
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7().to_string())
    }

    /// The id as it travels.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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
