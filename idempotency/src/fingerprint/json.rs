//! What a JSON text says, whatever its spelling: blanks, the order of members, escapes, `1.0` for `1`.
//!
//! This is the sense of RFC 8785 without its text: values go into the hash with a tag and a length each, so nothing has to
//! be written canonically first. Where two readers could read one text differently there is no one sense, and the body
//! counts byte for byte: repeated names, and numbers that a double does not keep.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use sha2::{Digest, Sha256};

use crate::scope::update_with_length;

/// A JSON value with one meaning.
pub(super) enum Json {
    Null,
    Bool(bool),
    Integer(i128),
    /// Not integral; by its bits.
    Fraction(u64),
    Text(String),
    List(Vec<Json>),
    /// Names in the order of their bytes: RFC 8785 takes UTF-16's, but any fixed order tells objects apart as well.
    Object(BTreeMap<String, Json>),
}

/// Integers up to here are doubles, and no two of them the same one.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

impl Json {
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body)
            .ok()
            .filter(|_| doubles_keep_numbers(body))
    }

    /// What an RFC 6901 pointer finds.
    pub(super) fn at(&self, pointer: &str) -> Option<&Self> {
        let Some(path) = pointer.strip_prefix('/') else {
            return pointer.is_empty().then_some(self);
        };
        path.split('/').try_fold(self, |value, step| match value {
            Self::Object(members) => members.get(&step.replace("~1", "/").replace("~0", "~")),
            Self::List(items) => items.get(step.parse::<usize>().ok()?),
            _ => None,
        })
    }

    pub(super) fn feed(&self, hash: &mut Sha256) {
        match self {
            Self::Null => hash.update([0]),
            Self::Bool(value) => hash.update([1, u8::from(*value)]),
            Self::Integer(value) => {
                hash.update([2]);
                hash.update(value.to_be_bytes());
            }
            Self::Fraction(bits) => {
                hash.update([3]);
                hash.update(bits.to_be_bytes());
            }
            Self::Text(text) => {
                hash.update([4]);
                update_with_length(hash, text.as_bytes());
            }
            Self::List(items) => {
                hash.update([5]);
                hash.update((items.len() as u64).to_be_bytes());
                for item in items {
                    item.feed(hash);
                }
            }
            Self::Object(members) => {
                hash.update([6]);
                hash.update((members.len() as u64).to_be_bytes());
                for (name, value) in members {
                    update_with_length(hash, name.as_bytes());
                    value.feed(hash);
                }
            }
        }
    }
}

/// Whether no number of `body`, which is JSON, could be another one that becomes the same double.
fn doubles_keep_numbers(body: &[u8]) -> bool {
    let mut rest = body;
    while let [first, after @ ..] = rest {
        rest = match first {
            b'"' => behind_string(after),
            b'-' | b'0'..=b'9' => {
                let digits = rest.iter().take_while(|byte| {
                    matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')
                });
                let (number, after) = rest.split_at(digits.count());
                if !double_keeps(number) {
                    return false;
                }
                after
            }
            _ => after,
        };
    }
    true
}

fn behind_string(rest: &[u8]) -> &[u8] {
    let mut bytes = rest.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => break,
            b'\\' => _ = bytes.next(),
            _ => {}
        }
    }
    bytes.as_slice()
}

/// Two decimals of up to [`DIGITS_MAX`] digits are never one double, as long as they are far from its range's ends.
/// Integers are read exactly or not at all.
fn double_keeps(number: &[u8]) -> bool {
    let mut parts = number.splitn(2, |byte| matches!(byte, b'e' | b'E'));
    let (mantissa, exponent) = (parts.next().unwrap_or_default(), parts.next());
    if exponent.is_none() && !mantissa.contains(&b'.') {
        return true;
    }
    let digits = mantissa.iter().filter(|byte| byte.is_ascii_digit());
    digits.skip_while(|digit| **digit == b'0').count() <= DIGITS_MAX
        && mantissa.len() <= MANTISSA_BYTES_MAX
        && exponent.is_none_or(|exponent| exponent.len() <= EXPONENT_BYTES_MAX)
}

const DIGITS_MAX: usize = 15;
const MANTISSA_BYTES_MAX: usize = 40;
/// A sign and two digits.
const EXPONENT_BYTES_MAX: usize = 3;

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON with one meaning")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        if value.fract() != 0.0 {
            return Ok(Json::Fraction(value.to_bits()));
        }
        if value.abs() >= EXACT_MAX {
            return Err(E::custom("a number that a double may have rounded"));
        }
        #[expect(clippy::cast_possible_truncation, reason = "integral and below 2^53")]
        Ok(Json::Integer(value as i128))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Json, E> {
        Ok(Json::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object = BTreeMap::new();
        while let Some((name, value)) = members.next_entry()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a name that is there twice"));
            }
        }
        Ok(Json::Object(object))
    }
}
