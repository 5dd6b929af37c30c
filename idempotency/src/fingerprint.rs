//! What was asked: the same key with another request is a client's mistake and must neither run nor replay.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::scope::update_with_length;

/// One version byte and a SHA-256 over method, target (path and query) and body.
///
/// The version lets a later release hash differently without reading old records as mismatches: records of a version
/// this release does not make are replayed on trust of their key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 33]);

const VERSION: u8 = 1;

impl Fingerprint {
    /// Over the request line and the raw body, byte for byte: a reordered JSON object is another request.
    pub fn new(method: impl AsRef<[u8]>, target: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Self {
        let mut hash = Sha256::new();
        for part in [method.as_ref(), target.as_ref(), body.as_ref()] {
            update_with_length(&mut hash, part);
        }
        let mut bytes = [VERSION; 33];
        for (to, from) in bytes.iter_mut().skip(1).zip(hash.finalize()) {
            *to = from;
        }
        Self(bytes)
    }

    /// Reads what [`as_bytes`](Self::as_bytes) wrote.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The 33 bytes kept in the table.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether both are of one request. Fingerprints of different versions cannot be compared and count as equal.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.first() != other.0.first() || self == other
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(")?;
        for byte in self.0.iter().take(7) {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts_and_none_runs_into_the_next() {
        let requests = [
            ("POST", "/a", "b"),
            ("POST", "/ab", ""),
            ("POST", "/a", ""),
            ("PATCH", "/a", "b"),
            ("POST", "/a?b", ""),
            ("POST", "/a", "B"),
        ];
        let all: std::collections::HashSet<_> = requests
            .iter()
            .map(|(m, t, b)| Fingerprint::new(m, t, b))
            .collect();
        assert_eq!(all.len(), requests.len());
    }

    #[test]
    fn another_version_is_not_a_mismatch() {
        let ours = Fingerprint::new("POST", "/a", "b");
        let mut bytes = [7; 33];
        bytes[0] = 2;
        assert!(ours.matches(&Fingerprint::from_bytes(&bytes).unwrap()));
        bytes[0] = VERSION;
        assert!(!ours.matches(&Fingerprint::from_bytes(&bytes).unwrap()));
        assert_eq!(Fingerprint::from_bytes(b"short"), None);
        assert_eq!(Fingerprint::from_bytes(ours.as_bytes()), Some(ours));
    }

    #[test]
    fn the_bytes_in_the_table_do_not_change() {
        let fingerprint = Fingerprint::new("POST", "/v1/payments", r#"{"amount":1}"#);
        let hex: String = fingerprint
            .as_bytes()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(
            hex,
            "01ecf0a2636d8b483b26f18ccbfc4f09a574e1cdd65f0da21693851352142ec695"
        );
    }
}
