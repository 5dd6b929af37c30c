//! One entry of `errors`, read as leniently as the document around it.

use std::borrow::Cow;

use serde_json::Value;

use super::cut;
use crate::{Location, Violation};

/// One entry of `errors`. A missing pointer means the whole; the RFC's own examples write pointers
/// as URI fragments (`#/age`), which are unwrapped.
pub(super) fn violation(entry: Value) -> Option<Violation> {
    let Value::Object(mut entry) = entry else {
        return None;
    };
    let mut text = |name| match entry.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let (pointer, detail) = (text("pointer"), text("detail"));
    if pointer.is_none() && detail.is_none() {
        return None;
    }
    let pointer = pointer.unwrap_or_default();
    let pointer = pointer
        .strip_prefix('#')
        .map_or_else(|| pointer.clone(), unescape);
    let location = text("location").and_then(|word| Location::from_wire(&word));
    let code = text("code").map_or(Cow::Borrowed("invalid"), Cow::Owned);
    let mut violation = Violation::new(location.unwrap_or(Location::Body), pointer, code);
    if let Some(Value::Object(params)) = entry.remove("params") {
        violation = params
            .into_iter()
            .fold(violation, |violation, (name, value)| {
                violation.with_param(name, value)
            });
    }
    Some(match detail {
        Some(detail) => violation.with_detail(cut(Cow::Owned(detail))),
        None => violation,
    })
}

/// Undoes percent-encoding; what does not decode to UTF-8 stays as it was.
fn unescape(fragment: &str) -> String {
    let mut out = Vec::with_capacity(fragment.len());
    let mut rest = fragment.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let escaped = if byte == b'%' {
            after.split_at_checked(2)
        } else {
            None
        };
        let decoded = escaped.and_then(|(hex, after)| {
            let hex = std::str::from_utf8(hex).ok()?;
            Some((u8::from_str_radix(hex, 16).ok()?, after))
        });
        match decoded {
            Some((decoded, after)) => {
                out.push(decoded);
                rest = after;
            }
            None => out.push(byte),
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| fragment.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::Problem;

    const PROBLEM: Option<&str> = Some("application/problem+json");

    fn read(body: &str) -> Problem {
        Problem::read_document(404, PROBLEM, body.as_bytes())
    }

    #[test]
    fn violations_are_read_leniently() {
        let problem = read(
            r##"{"errors":[{"detail":"positive","pointer":"#/age%20now"},7,{},
                {"pointer":"/limit","location":"query","code":"too_large","detail":"d"},{"detail":"%"}]}"##,
        );
        let seen: Vec<_> = problem.errors().iter().map(ToString::to_string).collect();
        assert_eq!(
            seen,
            [
                "body /age now invalid: positive",
                "query /limit too_large: d",
                "body  invalid: %"
            ]
        );
    }
}
