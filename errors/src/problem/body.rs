//! What is in a body that is, or passes for, a problem document: as many of its members as can be read.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Visitor};
use serde_json::value::RawValue;

use super::PROBLEM_JSON;
use super::members::Members;
use super::plain::Plain;

/// A media type without its parameters.
pub(crate) fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// The members of a body that is, or passes for, a problem document.
pub(super) fn members(content_type: Option<&str>, body: &[u8]) -> Option<Members> {
    let essence = content_type.map(essence);
    let declared = essence.is_some_and(|essence| essence.eq_ignore_ascii_case(PROBLEM_JSON));
    let perhaps = declared
        || essence.is_none_or(|essence| {
            let essence = essence.to_ascii_lowercase();
            essence == "application/json" || essence.ends_with("+json")
        });
    if !perhaps {
        return None;
    }
    // RFC 8259 §8.1 lets a reader pass over a byte order mark, and some servers write one.
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    // serde_json bounds the depth.
    let members = match serde_json::from_slice(body) {
        Ok(members) => members,
        Err(_) => readable_members(body)?,
    };
    (declared || members.evident).then_some(members)
}

/// The members that can be read of a document of which one cannot: `1e999`, half a surrogate pair, an
/// array nested a thousand deep, Latin-1 in a text. A member's value is looked at only after its end was
/// found, so that one bad value takes itself away and no other (RFC 9457 §3.1).
fn readable_members(body: &[u8]) -> Option<Members> {
    let body = String::from_utf8_lossy(body);
    let raw: BTreeMap<RawName, &RawValue> = serde_json::from_str(&body).ok()?;
    let mut members = Members::default();
    members.extend(raw.into_iter().filter_map(|(name, value)| {
        // Within something, as it is in the document, so that the bound on the depth is the same, and whoever
        // the problem is passed on to can read it too.
        let [Plain(value)] = serde_json::from_str(&format!("[{value}]")).ok()?;
        Some((name.0?, value))
    }));
    Some(members)
}

/// A member's name, unless half a surrogate pair is in it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct RawName(Option<String>);

impl<'de> Deserialize<'de> for RawName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = RawName;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_bytes<E>(self, name: &[u8]) -> Result<RawName, E> {
                Ok(RawName(std::str::from_utf8(name).ok().map(str::to_owned)))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::{DOCUMENT_BYTES_MAX, Problem};
    use crate::{Outcome, Retry};

    const PROBLEM: Option<&str> = Some("application/problem+json");

    fn read(body: &str) -> Problem {
        Problem::read_document(404, PROBLEM, body.as_bytes())
    }

    #[test]
    fn d8_a_body_that_is_no_document_leaves_what_the_status_says() {
        let deep = "[".repeat(10_000);
        let large = format!(r#"{{"code":"{}"}}"#, "x".repeat(DOCUMENT_BYTES_MAX));
        for (content_type, body) in [
            (Some("text/html"), "<html>busy</html>"),
            (PROBLEM, ""),
            (PROBLEM, r#"{"type":"x","#),
            (PROBLEM, "[1]"),
            (PROBLEM, "null"),
            (PROBLEM, deep.as_str()),
            (PROBLEM, large.as_str()),
            (Some("text/plain"), r#"{"type":"x"}"#),
            (Some("application/json"), r#"{"message":"no"}"#),
            (None, "busy"),
        ] {
            let problem = Problem::read_document(503, content_type, body.as_bytes());
            assert_eq!(problem.code(), "unavailable", "{content_type:?}");
            assert_eq!(problem.status(), 503);
            assert_eq!(
                (problem.retry(), problem.outcome()),
                (Retry::Backoff, Outcome::Unknown)
            );
        }
        assert_eq!(
            Problem::read_document(503, PROBLEM, b"{\"type\":\"\xff\"}").code(),
            "unavailable"
        );
    }

    fn deepest(value: &Value) -> usize {
        1 + match value {
            Value::Array(items) => items.iter().map(deepest).max().unwrap_or_default(),
            Value::Object(members) => members.values().map(deepest).max().unwrap_or_default(),
            _ => 0,
        }
    }

    #[test]
    fn a_name_that_cannot_be_read_takes_only_its_member_away() {
        let problem = read(r#"{"\ud800":1,"code":"gone","\udfff\"":{"a":[]},"left":3}"#);
        assert_eq!(problem.code(), "gone");
        assert_eq!(problem.extensions().len(), 1);
        assert_eq!(problem.extensions()["left"], 3);
    }

    /// serde_json takes a lone member of this name for text of its own, and begins to count the depth anew in it.
    #[test]
    fn a_value_that_says_it_is_raw_json_is_no_way_around_the_depth() {
        let (open, close) = ("[".repeat(90), "]".repeat(90));
        for name in [
            "$serde_json::private::RawValue",
            "$serde_json::private::R\\u0061wValue",
        ] {
            let mut value = "0".to_owned();
            for _ in 0..9 {
                let text = Value::from(value.as_str());
                value = format!(r#"{open}{{"{name}":{text}}}{close}"#);
            }
            let body = format!(r#"{{"code":"gone","deep":{value}}}"#);
            assert!(body.len() < DOCUMENT_BYTES_MAX, "{}", body.len());
            let problem = read(&body);
            assert_eq!(problem.code(), "gone");
            assert!(
                problem.extensions().is_empty() || deepest(&problem.extensions()["deep"]) < 127
            );
            let again = read(std::str::from_utf8(&problem.to_bytes()).unwrap());
            assert!(again == problem);
        }
        let problem = read(r#"{"$serde_json::private::RawValue":"{\"code\":\"gone\"}"}"#);
        assert_eq!(problem.code(), "not_found");
    }

    #[test]
    fn d10_media_types_are_matched_as_media_types() {
        for content_type in [
            "application/problem+json; charset=utf-8",
            "APPLICATION/Problem+JSON",
            "application/json",
            "application/vnd.api+json",
        ] {
            let problem =
                Problem::read_document(404, Some(content_type), br#"{"title":"t","code":"c"}"#);
            assert_eq!(problem.code(), "c", "{content_type}");
        }
        assert_eq!(
            Problem::read_document(404, None, br#"{"title":"t","code":"c"}"#).code(),
            "c"
        );
    }
}
