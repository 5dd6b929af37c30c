//! The key a client sends: 1 to 255 bytes, compared byte for byte.
//!
//! On the wire it is a structured-field string (`"8e03…"`, RFC 9651) as the IETF draft asks, or the bare form that
//! most SDKs send. Both name the same key. Anything else is refused with a reason: a key that is guessed at is a
//! key that two clients can share.

use std::fmt;

/// Longest key, in bytes after unquoting. Postgres' and SQLite's indexes would take more; clients never need it.
pub const KEY_BYTES_MAX: usize = 255;

/// How far ahead of the database's clock a client's may run before its keys are refused, and so how much longer than a
/// key's retention its record must stay: the key is old enough to be refused only that much later.
#[cfg(feature = "sqlx")]
pub(crate) const SKEW_MAX: std::time::Duration = std::time::Duration::from_mins(5);

/// An idempotency key. Two keys are equal when their bytes are: no case folding, no trimming inside, no Unicode forms.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key(Box<[u8]>);

impl Key {
    /// A key from any bytes, for callers that are not HTTP (consumers, jobs).
    ///
    /// # Errors
    /// [`KeyError::Empty`] and [`KeyError::TooLong`].
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        let bytes = bytes.as_ref();
        match bytes.len() {
            0 => Err(KeyError::Empty),
            1..=KEY_BYTES_MAX => Ok(Self(bytes.into())),
            _ => Err(KeyError::TooLong),
        }
    }

    /// Reads the value of one `Idempotency-Key` header line.
    ///
    /// A structured-field string is unquoted and its parameters are ignored. A bare value is taken as it stands under
    /// [`Parse::Lenient`], if it is visible ASCII without `"`, `,`, `;` and `\`.
    ///
    /// # Errors
    /// Every [`KeyError`]: the value is a client's and may be anything.
    pub fn parse(value: &[u8], parse: Parse) -> Result<Self, KeyError> {
        let value = value.trim_ascii();
        match value {
            [] => Err(KeyError::Empty),
            [b'"', rest @ ..] => Self::unquote(rest),
            _ if parse == Parse::Strict => Err(KeyError::NotQuoted),
            _ if value.iter().all(|byte| is_bare(*byte)) => Self::new(value),
            _ => Err(KeyError::BadCharacter),
        }
    }

    fn unquote(rest: &[u8]) -> Result<Self, KeyError> {
        let mut key = Vec::with_capacity(rest.len().min(KEY_BYTES_MAX));
        let mut bytes = rest.iter();
        loop {
            let byte = match bytes.next() {
                None => return Err(KeyError::Unterminated),
                Some(b'"') => break,
                Some(b'\\') => match bytes.next() {
                    Some(escaped @ (b'"' | b'\\')) => *escaped,
                    _ => return Err(KeyError::BadCharacter),
                },
                Some(byte @ 0x20..=0x7e) => *byte,
                Some(_) => return Err(KeyError::BadCharacter),
            };
            if key.len() == KEY_BYTES_MAX {
                return Err(KeyError::TooLong);
            }
            key.push(byte);
        }
        if !are_parameters(bytes.as_slice()) {
            return Err(KeyError::NotAnItem);
        }
        Self::new(key)
    }

    /// The key's bytes, unquoted.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// When the key was made, in milliseconds since 1970, if it is a version 7 UUID in its usual form.
    ///
    /// The client wrote it: believe it only to refuse.
    pub fn created_at_ms(&self) -> Option<u64> {
        if !matches!(self.0.len(), 32 | 36) {
            return None;
        }
        let id = uuid::Uuid::try_parse_ascii(&self.0).ok()?;
        if id.get_version_num() != 7 || id.get_variant() != uuid::Variant::RFC4122 {
            return None;
        }
        let (seconds, nanos) = id.get_timestamp()?.to_unix();
        Some(seconds * 1000 + u64::from(nanos / 1_000_000))
    }

    /// Whether a key with this age may still be run, given that records older than `retention_ms` may be gone.
    pub fn age(&self, now_ms: u64, retention_ms: u64, skew_ms: u64) -> Age {
        match self.created_at_ms() {
            None => Age::Unknown,
            Some(at) if at > now_ms.saturating_add(skew_ms) => Age::FromTheFuture,
            Some(at) if at.saturating_add(retention_ms) < now_ms => Age::Expired,
            Some(_) => Age::Fresh,
        }
    }
}

/// Keys are not secrets, but they are a client's bytes: escaped, so that a log line stays one line.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0.escape_ascii())
    }
}

/// Which written forms of a key are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Parse {
    /// Quoted, as the IETF draft has it, and bare, as most SDKs send it.
    #[default]
    Lenient,
    /// Quoted only.
    Strict,
}

/// What a key's own time says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// The key carries no time.
    Unknown,
    /// Young enough for its record to be still there, had it run before.
    Fresh,
    /// Its record may have been reaped: running it could be the second time.
    Expired,
    /// Made later than now plus the allowed skew: it would outlive its record.
    FromTheFuture,
}

/// Why a header value is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Nothing, or `""`.
    #[error("the key is empty")]
    Empty,
    /// Over [`KEY_BYTES_MAX`].
    #[error("the key is longer than 255 bytes")]
    TooLong,
    /// A byte that its form does not allow.
    #[error("the key holds a character that is not allowed there")]
    BadCharacter,
    /// No closing quote.
    #[error("the key's closing quote is missing")]
    Unterminated,
    /// Something other than parameters follows the closing quote, such as a second list member.
    #[error("the header must hold exactly one key")]
    NotAnItem,
    /// Bare under [`Parse::Strict`].
    #[error("the key must be a quoted string")]
    NotQuoted,
    /// More than one header line.
    #[error("the header is repeated")]
    Repeated,
}

fn is_bare(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e) && !matches!(byte, b'"' | b',' | b';' | b'\\')
}

/// Whether `rest` is empty or the parameters of RFC 9651 §3.1.2. They carry no meaning here, but a list's second
/// member must not pass for one.
fn are_parameters(rest: &[u8]) -> bool {
    let mut rest = rest.trim_ascii_end();
    while let [b';', after @ ..] = rest {
        let after = after.trim_ascii_start();
        let name = after
            .iter()
            .take_while(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*'))
            .count();
        let Some((name, after)) = after.split_at_checked(name) else {
            return false;
        };
        if !matches!(name.first(), Some(b'a'..=b'z' | b'*')) {
            return false;
        }
        rest = match after {
            [b'=', b'"', value @ ..] => match end_of_string(value) {
                Some(rest) => rest,
                None => return false,
            },
            [b'=', value @ ..] => {
                let length = value
                    .iter()
                    .take_while(|b| is_bare(**b) && **b != b'=')
                    .count();
                match value.split_at_checked(length) {
                    Some((_, rest)) if length > 0 => rest,
                    _ => return false,
                }
            }
            _ => after,
        };
    }
    rest.is_empty()
}

fn end_of_string(value: &[u8]) -> Option<&[u8]> {
    let mut bytes = value.iter();
    loop {
        match bytes.next()? {
            b'"' => return Some(bytes.as_slice()),
            b'\\' => _ = bytes.next().filter(|b| matches!(b, b'"' | b'\\'))?,
            0x20..=0x7e => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lenient(value: &str) -> Result<Key, KeyError> {
        Key::parse(value.as_bytes(), Parse::Lenient)
    }

    #[test]
    fn quoted_and_bare_name_one_key() {
        let uuid = "8e03978e-40d5-43e8-bc93-6894a57f9324";
        assert_eq!(lenient(&format!("\"{uuid}\"")), lenient(uuid));
        assert_eq!(
            Key::parse(uuid.as_bytes(), Parse::Strict),
            Err(KeyError::NotQuoted)
        );
    }

    #[test]
    fn escapes_are_undone_and_parameters_ignored() {
        for (value, key) in [
            (r#""a\"b""#, r#"a"b"#),
            (r#""a\\b""#, r"a\b"),
            (r#""a";v=1"#, "a"),
            (r#""a" "#, "a"),
            (r#""a"; v=1;w="x,y\"";flag"#, "a"),
            (r#""abc ""#, "abc "),
            (r#""a,b""#, "a,b"),
        ] {
            assert_eq!(
                lenient(value).unwrap().as_bytes(),
                key.as_bytes(),
                "{value}"
            );
        }
    }

    #[test]
    fn what_is_not_one_key_is_refused_with_its_reason() {
        for (value, error) in [
            ("", KeyError::Empty),
            ("   ", KeyError::Empty),
            (r#""""#, KeyError::Empty),
            (r#""a"#, KeyError::Unterminated),
            (r#""a\"#, KeyError::BadCharacter),
            (r#""a\x""#, KeyError::BadCharacter),
            ("\"a\u{7f}\"", KeyError::BadCharacter),
            ("\"\u{e9}\"", KeyError::BadCharacter),
            ("\u{e9}", KeyError::BadCharacter),
            ("a\0b", KeyError::BadCharacter),
            ("a b", KeyError::BadCharacter),
            ("a,b", KeyError::BadCharacter),
            ("a;b=c", KeyError::BadCharacter),
            (r#""a","b""#, KeyError::NotAnItem),
            (r#""a", b"#, KeyError::NotAnItem),
            (r#""a"b"#, KeyError::NotAnItem),
            (r#""a";V=1"#, KeyError::NotAnItem),
            (r#""a";v="1"#, KeyError::NotAnItem),
            (r#""a";v="#, KeyError::NotAnItem),
        ] {
            assert_eq!(lenient(value), Err(error), "{value:?}");
        }
    }

    #[test]
    fn length_is_counted_after_unquoting() {
        let at_the_limit = "k".repeat(255);
        assert!(lenient(&at_the_limit).is_ok());
        assert!(lenient(&format!("\"{at_the_limit}\"")).is_ok());
        assert!(lenient(&format!("\"{}\"", r"\\".repeat(255))).is_ok());
        for over in [256, 8 * 1024, 1024 * 1024] {
            let over = "k".repeat(over);
            assert_eq!(lenient(&over), Err(KeyError::TooLong));
            assert_eq!(lenient(&format!("\"{over}\"")), Err(KeyError::TooLong));
        }
    }

    #[test]
    fn lookalikes_are_different_keys() {
        let keys = [
            "abc",
            "ABC",
            "abc ",
            "a\u{e1}bc",
            "aa\u{301}bc",
            "1",
            "01",
            "a\u{200b}bc",
            "\u{df}",
            "ss",
            "a\0",
            "a",
        ];
        let all: std::collections::HashSet<_> =
            keys.iter().map(|key| Key::new(key).unwrap()).collect();
        assert_eq!(all.len(), keys.len());
    }

    #[test]
    fn only_a_version_7_uuid_has_an_age() {
        let day = 86_400_000;
        let v7 = lenient("017f22e2-79b0-7cc3-98c4-dc0c0c07398f").unwrap(); // RFC 9562's own example
        let at = 1_645_557_742_000;
        assert_eq!(v7.created_at_ms(), Some(at));
        assert_eq!(
            lenient("8e03978e-40d5-43e8-bc93-6894a57f9324")
                .unwrap()
                .created_at_ms(),
            None
        );
        assert_eq!(lenient("order-17").unwrap().created_at_ms(), None);
        assert_eq!(v7.age(at + day, day, 0), Age::Fresh);
        assert_eq!(v7.age(at + day + 1, day, 0), Age::Expired);
        assert_eq!(v7.age(at - 5, day, 5), Age::Fresh);
        assert_eq!(v7.age(at - 6, day, 5), Age::FromTheFuture);
        assert_eq!(lenient("order-17").unwrap().age(0, day, 0), Age::Unknown);
    }
}
