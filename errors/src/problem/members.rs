//! The members of a document as they are read: each goes straight to its place, and one of the wrong type is left out.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::VIOLATIONS_MAX;
use super::entry::violation;
use super::plain::Plain;
use super::read::WAIT_MAX;
use crate::Violation;

/// What a document says, before the status of the answer is weighed against it.
#[derive(Default)]
pub(super) struct Members {
    pub(super) type_uri: Option<String>,
    pub(super) title: Option<String>,
    pub(super) status: Option<u64>,
    pub(super) detail: Option<String>,
    pub(super) instance: Option<String>,
    pub(super) code: Option<String>,
    pub(super) retry: Option<String>,
    pub(super) retry_after: Option<Duration>,
    pub(super) outcome: Option<String>,
    pub(super) request_id: Option<String>,
    pub(super) errors: Vec<Violation>,
    pub(super) extensions: Map<String, Value>,
    /// Whether it has a `type` or a `title`, of whatever type.
    pub(super) evident: bool,
}

impl Members {
    /// Of a repeated member the last counts, also where it is of the wrong type.
    fn set(&mut self, name: Name, value: Value) {
        match name {
            Name::Type => {
                self.type_uri = text(value);
                self.evident = true;
            }
            Name::Title => {
                self.title = text(value);
                self.evident = true;
            }
            Name::Status => self.status = value.as_u64(),
            Name::Detail => self.detail = text(value),
            Name::Instance => self.instance = text(value),
            Name::Code => self.code = text(value),
            Name::Retry => self.retry = text(value),
            Name::RetryAfter => self.retry_after = seconds(&value),
            Name::Outcome => self.outcome = text(value),
            Name::RequestId => self.request_id = text(value),
            Name::Errors => {
                self.errors = match value {
                    Value::Array(entries) => entries
                        .into_iter()
                        .filter_map(violation)
                        .take(VIOLATIONS_MAX)
                        .collect(),
                    _ => Vec::new(),
                }
            }
            Name::Other(name) => {
                self.extensions.insert(name, value);
            }
        }
    }
}

impl Extend<(String, Value)> for Members {
    fn extend<I: IntoIterator<Item = (String, Value)>>(&mut self, members: I) {
        for (name, value) in members {
            self.set(Name::of(&name), value);
        }
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Members::default();
        while let Some(name) = map.next_key()? {
            let Plain(value) = map.next_value()?;
            members.set(name, value);
        }
        Ok(members)
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// A wait in seconds; a fraction is kept, a negative or boundless number is not.
fn seconds(value: &Value) -> Option<Duration> {
    let seconds = value.as_f64().filter(|seconds| *seconds >= 0.0)?;
    Duration::try_from_secs_f64(seconds.min(WAIT_MAX.as_secs_f64())).ok()
}

/// The name of a member; only one of ours is known without a copy.
enum Name {
    Type,
    Title,
    Status,
    Detail,
    Instance,
    Code,
    Retry,
    RetryAfter,
    Outcome,
    RequestId,
    Errors,
    Other(String),
}

impl Name {
    fn of(name: &str) -> Self {
        match name {
            "type" => Self::Type,
            "title" => Self::Title,
            "status" => Self::Status,
            "detail" => Self::Detail,
            "instance" => Self::Instance,
            "code" => Self::Code,
            "retry" => Self::Retry,
            "retry_after" => Self::RetryAfter,
            "outcome" => Self::Outcome,
            "request_id" => Self::RequestId,
            "errors" => Self::Errors,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl Visitor<'_> for NameVisitor {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Name, E> {
        Ok(Name::of(name))
    }
}

#[cfg(test)]
mod tests {
    use super::super::RESERVED_MEMBERS;
    use super::*;

    #[test]
    fn every_reserved_member_has_a_place_of_its_own() {
        for name in RESERVED_MEMBERS {
            assert!(!matches!(Name::of(name), Name::Other(_)), "{name}");
        }
        assert!(matches!(Name::of("Type"), Name::Other(name) if name == "Type"));
    }

    #[test]
    fn of_a_repeated_member_the_last_counts() {
        let members: Members = serde_json::from_str(
            r#"{"code":"a","title":"t","code":"b","title":7,"errors":[{"detail":"d"}],"errors":0,"x":1,"x":2}"#,
        )
        .unwrap();
        assert_eq!(members.code.as_deref(), Some("b"));
        assert_eq!((members.title, members.evident), (None, true));
        assert!(members.errors.is_empty());
        assert_eq!(members.extensions["x"], 2);
    }
}
