//! JSON as it stands there.
//!
//! `serde_json::Value` reads an object with the one member `$serde_json::private::RawValue` as the JSON in that
//! member's text (whenever any crate in the build turns `raw_value` on), and counts the depth anew in it. What comes
//! from others would so be nested deeper than anybody reads again, and than the stack is long.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The value of the whole text. At most 127 levels deep, as serde_json bounds it.
#[cfg(any(test, feature = "tonic"))]
pub(crate) fn from_str(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text).map(|Plain(value)| value)
}

/// How a number arrives where `serde_json/arbitrary_precision` is on in the build: its text under this name.
const NUMBER: &str = "$serde_json::private::Number";

pub(super) struct Plain(pub(super) Value);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any).map(Self)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Plain(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((name, Plain(value))) = members.next_entry::<String, _>()? {
            all.insert(name, value);
        }
        let number = match all.get(NUMBER) {
            Some(Value::String(text)) if all.len() == 1 => text.parse::<Number>().ok(),
            _ => None,
        };
        Ok(number.map_or(Value::Object(all), Value::Number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serde_json_writes_comes_back() {
        for text in [
            "null",
            "true",
            "-9223372036854775808",
            "18446744073709551615",
            "1.5",
            r#""a\"\u0000ä""#,
            "[]",
            "{}",
            r#"[{"a":[null,{"b":-1}]},2]"#,
            r#"{"$serde_json::private::RawValue":"[1]"}"#,
        ] {
            assert_eq!(from_str(text).unwrap().to_string(), text);
        }
        assert_eq!(from_str(r#"{"a":1,"a":2}"#).unwrap()["a"], 2);
        for text in ["", "1 2", "[", "{\"a\"}", "1e999"] {
            assert!(from_str(text).is_err(), "{text}");
        }
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(from_str(&deep(127)).is_ok() && from_str(&deep(128)).is_err());
    }
}
