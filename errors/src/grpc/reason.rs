//! What of ours becomes a constant of google.rpc: codes as reasons, members as metadata.
//!
//! AIP-193 wants reasons of `[A-Z][A-Z0-9_]+[A-Z0-9]` up to 63 bytes and metadata keys of
//! `[a-z][a-zA-Z0-9-_]+` up to 64. A snake-case code of three letters or more is such a reason in lower case.

use std::borrow::Cow;

use serde_json::Value;

use crate::problem::plain_json;

const REASON_BYTES_MAX: usize = 63;
const KEY_BYTES_MAX: usize = 64;

/// The reason of a code that has nothing in common with a reason.
const OTHER: &str = "OTHER";

/// A code as a reason, and whether the reason says all of it.
pub(super) fn reason_of(code: &str) -> (String, bool) {
    let reason = code.to_ascii_uppercase();
    if is_reason(&reason) && !code.bytes().any(|b| b.is_ascii_uppercase()) {
        return (reason, true);
    }
    let similar: String = code
        .chars()
        .take(REASON_BYTES_MAX)
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect();
    let similar = similar.trim_matches('_');
    let reason = if is_reason(similar) { similar } else { OTHER };
    (reason.to_owned(), false)
}

/// The code of a reason. The `exact` code that was sent beside it counts when it is of that very reason, so that
/// metadata which somebody else calls `code` does not.
pub(super) fn code_of<'a>(reason: &'a str, exact: Option<&'a str>) -> Cow<'a, str> {
    if let Some(exact) = exact
        && reason_of(exact).0 == reason
    {
        return Cow::Borrowed(exact);
    }
    if is_reason(reason) {
        Cow::Owned(reason.to_ascii_lowercase())
    } else {
        Cow::Borrowed(reason)
    }
}

fn is_reason(text: &str) -> bool {
    (3..=REASON_BYTES_MAX).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_uppercase())
        && !text.ends_with('_')
        && text
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// Whether a member's name can be a key of metadata.
pub(super) fn is_key(name: &str) -> bool {
    (2..=KEY_BYTES_MAX).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// A member's value as text: a string as it is unless it would read as JSON, anything else as JSON.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) if plain_json(text).is_err() => text.clone(),
        value => value.to_string(),
    }
}

/// The value that [`text_of`] wrote.
pub(super) fn value_of(text: String) -> Value {
    plain_json(&text).unwrap_or(Value::String(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_snake_case_code_is_its_reason() {
        for (code, reason, whole) in [
            ("order_not_found", "ORDER_NOT_FOUND", true),
            ("e42", "E42", true),
            ("Order", "ORDER", false),
            ("order-gone", "ORDER_GONE", false),
            ("_order_", "ORDER", false),
            ("42", OTHER, false),
            ("", OTHER, false),
            ("ä", OTHER, false),
        ] {
            assert_eq!(reason_of(code), (reason.to_owned(), whole), "{code}");
        }
        assert!(!reason_of(&"x".repeat(64)).1);
    }

    #[test]
    fn metadata_that_somebody_else_calls_code_is_not_the_code() {
        assert_eq!(code_of("STOCKOUT", Some("42")), "stockout");
        assert_eq!(code_of("ORDER_GONE", Some("order-gone")), "order-gone");
        assert_eq!(code_of("rateLimitExceeded", None), "rateLimitExceeded");
    }

    #[test]
    fn a_string_that_looks_like_json_stays_a_string() {
        for (value, text) in [
            (json!("tea"), "tea"),
            (json!(""), ""),
            (json!("7"), r#""7""#),
            (json!("null"), r#""null""#),
            (json!(" 7 "), r#"" 7 ""#),
            (json!(7), "7"),
            (json!({"a": [true]}), r#"{"a":[true]}"#),
            // What serde_json takes for a value written in JSON within JSON.
            (
                json!({"$serde_json::private::RawValue": "7"}),
                r#"{"$serde_json::private::RawValue":"7"}"#,
            ),
        ] {
            assert_eq!(text_of(&value), text);
            assert_eq!(value_of(text.to_owned()), value);
        }
    }

    proptest! {
        #[test]
        fn every_code_comes_back(code in "[a-zA-Z0-9_ä-]{0,70}") {
            let (reason, whole) = reason_of(&code);
            prop_assert!(is_reason(&reason));
            prop_assert_eq!(code_of(&reason, (!whole).then_some(&code)), code.as_str());
        }

        #[test]
        fn every_string_comes_back(text in any::<String>()) {
            let value = Value::String(text);
            prop_assert_eq!(value_of(text_of(&value)), value);
        }
    }
}
