//! What was asked: the same key with another request is a client's mistake and must neither run nor replay.

mod json;

use std::fmt;

use sha2::{Digest, Sha256};

use self::json::Json;
use crate::scope::update_with_length;

/// One byte saying what is covered and how, eight of a SHA-256 over method and target (path and query), 24 of one over these
/// and the body.
///
/// The first byte lets a service cover something else, and a later release hash differently, without reading old records as
/// mismatches: bodies that cannot be compared are replayed on trust of their key. Method and target always can.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 33]);

const RAW: u8 = 1;
const CANONICAL_JSON: u8 = 2;
const FIELDS: u8 = 3;

/// Method and target, behind the version. The stores of leases compare them, too.
const LINE_BYTES: usize = 8;

/// What of a request's body makes it that request. Method and target always count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Covers {
    /// The body byte for byte: a reordered JSON object is another request. The cheapest, and right for clients that send
    /// again what they have sent.
    #[default]
    Body,
    /// What the JSON says: blanks, the order of members, escapes and `1.0` for `1` make no difference. For clients that
    /// write their request anew for each attempt.
    ///
    /// A body that is not JSON, or whose JSON two readers may read differently (repeated names, numbers that a double
    /// does not keep: more than 15 digits with a point or an exponent), counts byte for byte.
    CanonicalJson,
    /// The values at these JSON pointers (RFC 6901), canonically, absent told from null; the rest may differ between
    /// attempts, such as a time of sending. A body that is not JSON counts byte for byte.
    ///
    /// What is left out here is what a caller may change without being told that it was ignored. After a change of the
    /// list, retries of requests from before it are refused.
    Fields(&'static [&'static str]),
}

impl Covers {
    /// The fingerprint of a request.
    pub fn fingerprint(
        self,
        method: impl AsRef<[u8]>,
        target: impl AsRef<[u8]>,
        body: impl AsRef<[u8]>,
    ) -> Fingerprint {
        let body = body.as_ref();
        let (version, fields): (u8, &[&str]) = match self {
            Self::Body => return Fingerprint::new(method, target, body),
            Self::CanonicalJson => (CANONICAL_JSON, &[]),
            Self::Fields(fields) => (FIELDS, fields),
        };
        let (line, mut hash) = of_line(method.as_ref(), target.as_ref());
        match Json::read(body) {
            None => update_with_length(&mut hash, body),
            Some(json) if version == CANONICAL_JSON => json.feed(&mut hash),
            Some(json) => {
                for field in fields {
                    update_with_length(&mut hash, field.as_bytes());
                    match json.at(field) {
                        None => hash.update([0xff]),
                        Some(value) => value.feed(&mut hash),
                    }
                }
            }
        }
        Fingerprint::of(version, line, hash)
    }
}

impl Fingerprint {
    /// Over the request line and the raw body, byte for byte: a reordered JSON object is another request.
    pub fn new(method: impl AsRef<[u8]>, target: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Self {
        let (line, mut hash) = of_line(method.as_ref(), target.as_ref());
        update_with_length(&mut hash, body.as_ref());
        Self::of(RAW, line, hash)
    }

    fn of(version: u8, line: [u8; LINE_BYTES], hash: Sha256) -> Self {
        let mut bytes = [version; 33];
        let parts = line.into_iter().chain(hash.finalize());
        for (to, from) in bytes.iter_mut().skip(1).zip(parts) {
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

    /// Whether both are of one request. Of fingerprints that cover different things only method and target are compared.
    pub fn matches(&self, other: &Self) -> bool {
        self == other || (self.0.first() != other.0.first() && self.line() == other.line())
    }

    fn line(&self) -> Option<&[u8]> {
        self.0.get(1..=LINE_BYTES)
    }
}

fn of_line(method: &[u8], target: &[u8]) -> ([u8; LINE_BYTES], Sha256) {
    let mut hash = Sha256::new();
    update_with_length(&mut hash, method);
    update_with_length(&mut hash, target);
    let digest: [u8; 32] = hash.clone().finalize().into();
    (digest.first_chunk().copied().unwrap_or_default(), hash)
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
    use proptest::prelude::*;

    use super::*;

    fn hex(fingerprint: Fingerprint) -> String {
        let bytes = fingerprint.as_bytes().iter();
        bytes.map(|byte| format!("{byte:02x}")).collect()
    }

    fn json(body: &str) -> Fingerprint {
        Covers::CanonicalJson.fingerprint("POST", "/a", body)
    }

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
        for covers in [
            Covers::Body,
            Covers::CanonicalJson,
            Covers::Fields(&["/amount"]),
        ] {
            let all: std::collections::HashSet<_> = requests
                .iter()
                .map(|(m, t, b)| covers.fingerprint(m, t, b))
                .collect();
            assert_eq!(all.len(), requests.len(), "{covers:?}");
        }
    }

    #[test]
    fn what_covers_something_else_is_not_a_mismatch_of_the_same_operation() {
        let ours = Fingerprint::new("POST", "/a", "b");
        assert!(ours.matches(&Covers::CanonicalJson.fingerprint("POST", "/a", "b")));
        assert!(ours.matches(&json("c")));
        assert!(!ours.matches(&Fingerprint::new("POST", "/a", "c")));
        for (method, target) in [("POST", "/b"), ("PATCH", "/a"), ("POST", "/a?b")] {
            let other = Covers::CanonicalJson.fingerprint(method, target, "b");
            assert!(!ours.matches(&other), "{method} {target}");
        }
        assert_eq!(Fingerprint::from_bytes(b"short"), None);
        assert_eq!(Fingerprint::from_bytes(ours.as_bytes()), Some(ours));
    }

    #[test]
    fn spellings_of_one_json_are_one_request() {
        for (one, other) in [
            (
                r#"{"a":1,"b":[2,null]}"#,
                " {\"b\" : [2, null],\n\"a\":1 } ",
            ),
            (r#"{"a":1}"#, r#"{"a":1.0}"#),
            (r#"{"a":100}"#, r#"{"a":1e2}"#),
            (r#"{"a":0}"#, r#"{"a":-0.0}"#),
            (r#"{"a":0.5}"#, r#"{"a":5e-1}"#),
            (r#"{"é":"€"}"#, r#"{"\u00e9":"\u20ac"}"#),
            (r#"{"a":{"y":1,"x":2}}"#, r#"{"a":{"x":2,"y":1}}"#),
            (
                r#"{"a":"\"0.12345678901234567890"}"#,
                r#"{ "a":"\"0.12345678901234567890"}"#,
            ),
        ] {
            assert_eq!(json(one), json(other), "{one} {other}");
        }
    }

    #[test]
    fn what_differs_in_sense_is_another_request() {
        let bodies = [
            "",
            "null",
            "[]",
            "{}",
            "[[]]",
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"a":true}"#,
            r#"{"a":null}"#,
            r#"{"A":1}"#,
            r#"{"a":[1,2]}"#,
            r#"{"a":[2,1]}"#,
            r#"{"a":[1],"b":2}"#,
            r#"{"a":1,"b":[2]}"#,
            r#"{"a":{"b":2}}"#,
            r#"{"a":0.1}"#,
            r#"{"a":-1}"#,
            // A double holds neither of these pairs apart; the bytes do.
            r#"{"a":9007199254740993}"#,
            r#"{"a":9007199254740992}"#,
            r#"{"a":36893488147419103233}"#,
            r#"{"a":36893488147419103232}"#,
            r#"{"a":100000000000000}"#,
            r#"{"a":100000000000000.001}"#,
            r#"{"a":100000000000000.002}"#,
            r#"{"a":0.1000000000000000055}"#,
            r#"{"a":0}"#,
            r#"{"a":1e-400}"#,
            r#"{"a":1e400}"#,
            // One reader takes the first, another the last.
            r#"{"a":1,"a":2}"#,
            r#"{"a":2,"a":2}"#,
            r#"{"a":1} x"#,
            "{\"e\":\"\u{e9}\"}",
            "{\"e\":\"e\u{301}\"}",
        ];
        let all: std::collections::HashSet<_> = bodies.iter().map(|body| json(body)).collect();
        assert_eq!(all.len(), bodies.len());
    }

    #[test]
    fn chosen_fields_count_and_nothing_else_does() {
        let covers = Covers::Fields(&["/amount", "/to/iban", "/tags/0", "/a~1b"]);
        let of = |body: &str| covers.fingerprint("POST", "/a", body);
        let first =
            of(r#"{"amount":1,"to":{"iban":"X","name":"A"},"tags":["t"],"a/b":2,"sent_at":1}"#);
        for same in [
            r#"{"amount":1,"to":{"iban":"X","name":"B"},"tags":["t"],"a/b":2,"sent_at":2}"#,
            r#"{"a/b":2,"tags":["t","u"],"to":{"iban":"X"},"amount":1.0}"#,
        ] {
            assert_eq!(of(same), first, "{same}");
        }
        for other in [
            r#"{"amount":2,"to":{"iban":"X"},"tags":["t"],"a/b":2}"#,
            r#"{"amount":1,"to":{"iban":"Y"},"tags":["t"],"a/b":2}"#,
            r#"{"amount":1,"to":{"iban":"X"},"tags":[],"a/b":2}"#,
            r#"{"amount":1,"to":{"iban":"X"},"tags":["t"]}"#,
            r#"{"amount":1,"to":{"iban":"X"},"tags":["t"],"a/b":null}"#,
            "not json",
        ] {
            assert_ne!(of(other), first, "{other}");
        }
    }

    #[test]
    fn nesting_without_end_is_no_stack_without_end() {
        let deep = "[".repeat(100_000);
        assert_ne!(json(&deep), json(&deep[1..]));
    }

    #[test]
    fn the_bytes_in_the_table_do_not_change() {
        let (method, target, body) = ("POST", "/v1/payments", r#"{"amount":1}"#);
        assert_eq!(
            hex(Fingerprint::new(method, target, body)),
            "01c73d7eb4b6178303ecf0a2636d8b483b26f18ccbfc4f09a574e1cdd65f0da216"
        );
        assert_eq!(
            hex(Covers::CanonicalJson.fingerprint(method, target, body)),
            "02c73d7eb4b6178303c2f340a75b91c6960a129acf34aacdfa68ae281bf9b1c096"
        );
        assert_eq!(
            hex(Covers::Fields(&["/amount"]).fingerprint(method, target, body)),
            "03c73d7eb4b617830379a7a84c24895cbb4ede23bcb87b4d513ac0c67c7445696b"
        );
    }

    proptest! {
        /// serde_json's own rewriting, with and without blanks, keeps the sense.
        #[test]
        fn rewriting_json_changes_nothing(numbers in proptest::collection::vec(any::<i32>(), 0..5), text in ".{0,12}", flag: bool) {
            let value = serde_json::json!({ "z": numbers, "a": { text.clone(): flag, "nested": [text, null] } });
            let (short, long) = (value.to_string(), serde_json::to_string_pretty(&value).unwrap());
            prop_assert_eq!(json(&short), json(&long));
        }

        #[test]
        fn no_body_is_too_strange(body: Vec<u8>) {
            for covers in [Covers::Body, Covers::CanonicalJson, Covers::Fields(&["/a"])] {
                let once = covers.fingerprint("POST", "/", &body);
                prop_assert_eq!(once, covers.fingerprint("POST", "/", &body));
            }
        }
    }
}
