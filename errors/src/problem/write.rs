//! The write side: member order is fixed and no member is null, so equal problems are equal bytes.

use std::time::Duration;

use bytes::Bytes;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::code::{is_unreserved, type_of, words};
use super::{DEFAULT_TYPE_BASE, Problem, TypeUri};

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let doc = &self.0;
        let mut out = serializer.serialize_map(None)?;
        match &doc.type_uri {
            TypeUri::Exact(uri) => out.serialize_entry("type", uri)?,
            TypeUri::Default => {
                out.serialize_entry("type", &TypeOf(DEFAULT_TYPE_BASE, &doc.code))?;
            }
            TypeUri::Base(base) => out.serialize_entry("type", &TypeOf(base, &doc.code))?,
        }
        match &doc.title {
            Some(title) => out.serialize_entry("title", title)?,
            None if self.is_blank() => out.serialize_entry("title", &self.title())?,
            None => out.serialize_entry("title", &Words(&doc.code))?,
        }
        out.serialize_entry("status", &doc.status)?;
        if let Some(detail) = &doc.detail {
            out.serialize_entry("detail", detail)?;
        }
        if let Some(instance) = &doc.instance {
            out.serialize_entry("instance", instance)?;
        }
        out.serialize_entry("code", &doc.code)?;
        out.serialize_entry("retry", doc.retry.as_str())?;
        if let Some(wait) = doc.retry_after {
            out.serialize_entry("retry_after", &whole_seconds(wait))?;
        }
        out.serialize_entry("outcome", doc.outcome.as_str())?;
        if let Some(id) = &doc.request_id {
            out.serialize_entry("request_id", id.as_str())?;
        }
        if !doc.errors.is_empty() {
            out.serialize_entry("errors", &doc.errors)?;
        }
        // `serde_json::Map` keeps insertion order when anybody in the build turns that feature on.
        let mut extensions: Vec<_> = doc.extensions.iter().collect();
        extensions.sort_unstable_by_key(|(name, _)| *name);
        for (name, value) in extensions {
            if !value.is_null() {
                out.serialize_entry(name, value)?;
            }
        }
        out.end()
    }
}

impl Problem {
    /// The document as it is sent, without the newline nobody needs.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.bytes_expected());
        // Strings, numbers and a map with string keys: nothing here can refuse to be JSON.
        match serde_json::to_writer(&mut out, self) {
            Ok(()) => Bytes::from(out),
            Err(_) => Bytes::from_static(b"{}"),
        }
    }

    /// Room for the document without growing, unless it has members that are rare or much to escape.
    fn bytes_expected(&self) -> usize {
        let doc = &self.0;
        let texts = [
            doc.detail.as_deref().map_or(0, str::len),
            doc.instance.as_deref().map_or(0, str::len),
            doc.title.as_deref().map_or(doc.code.len(), str::len),
            match &doc.type_uri {
                TypeUri::Default => DEFAULT_TYPE_BASE.len() + doc.code.len(),
                TypeUri::Base(base) => base.len() + doc.code.len(),
                TypeUri::Exact(uri) => uri.len(),
            },
            doc.code.len(),
            doc.request_id.as_ref().map_or(0, |id| id.as_str().len()),
        ];
        // The names of all members and the words of the fixed ones are less than 200 bytes.
        200 + texts.iter().sum::<usize>()
    }

    /// The value of the `Retry-After` header, in whole seconds, where a wait is known.
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.0.retry_after.map(whole_seconds)
    }
}

/// Longer texts than this are put together on the heap. Codes and bases are half as long.
const STACK_BYTES: usize = 128;

/// [`type_of`] base and code, without an allocation where nothing has to be escaped.
struct TypeOf<'a>(&'a str, &'a str);

impl Serialize for TypeOf<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(base, code) = *self;
        let mut stack = [0; STACK_BYTES];
        let joined = code
            .bytes()
            .all(is_unreserved)
            .then(|| stack.get_mut(..base.len() + code.len()))
            .flatten();
        match joined {
            Some(joined) => {
                let (front, back) = joined.split_at_mut(base.len());
                front.copy_from_slice(base.as_bytes());
                back.copy_from_slice(code.as_bytes());
                text(joined, serializer)
            }
            None => serializer.serialize_str(&type_of(base, code)),
        }
    }
}

/// A code as a title: [`words`], without an allocation for the codes that people write.
struct Words<'a>(&'a str);

impl Serialize for Words<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let code = self.0.as_bytes();
        let mut stack = [0; STACK_BYTES];
        match stack.get_mut(..code.len()) {
            // A leading separator is no word's first letter; `words` knows what to do with it.
            Some(title)
                if code.first().is_some_and(u8::is_ascii_alphanumeric) && code.is_ascii() =>
            {
                for (to, from) in title.iter_mut().zip(code) {
                    *to = if matches!(from, b'_' | b'-') {
                        b' '
                    } else {
                        *from
                    };
                }
                if let Some(first) = title.first_mut() {
                    first.make_ascii_uppercase();
                }
                text(title, serializer)
            }
            _ => serializer.serialize_str(&words(self.0)),
        }
    }
}

/// Bytes of whole strings, which are UTF-8.
fn text<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(std::str::from_utf8(bytes).unwrap_or_default())
}

/// Rounded up: coming back a little late is harmless, a little early is refused again.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs()
        .saturating_add(u64::from(wait.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::{Category, Outcome, Problem, RequestId, Retry, Violation};

    #[test]
    fn members_come_in_one_order_and_none_is_null() {
        let problem = Problem::new(Category::Unavailable, "provider_down")
            .with_extension("zone", "b")
            .unwrap()
            .with_extension("nothing", serde_json::Value::Null)
            .unwrap()
            .with_extension("attempt", 3)
            .unwrap()
            .with_retry_after(Duration::from_millis(1500))
            .with_outcome(Outcome::NotApplied)
            .with_detail("The provider does not answer.")
            .with_instance("/payments/7")
            .with_violation(Violation::query("limit", "too_large").with_detail("at most 100"))
            .with_request_id(RequestId::parse("r-1").unwrap());
        insta::assert_snapshot!(String::from_utf8_lossy(&problem.to_bytes()), @r#"{"type":"/problems/provider_down","title":"Provider down","status":503,"detail":"The provider does not answer.","instance":"/payments/7","code":"provider_down","retry":"after","retry_after":2,"outcome":"not_applied","request_id":"r-1","errors":[{"pointer":"/limit","location":"query","code":"too_large","detail":"at most 100"}],"attempt":3,"zone":"b"}"#);
    }

    #[test]
    fn the_smallest_document_has_the_six_members() {
        let bytes = Problem::new(Category::NotFound, "order_not_found").to_bytes();
        insta::assert_snapshot!(String::from_utf8_lossy(&bytes), @r#"{"type":"/problems/order_not_found","title":"Order not found","status":404,"code":"order_not_found","retry":"never","outcome":"not_applied"}"#);
    }

    #[test]
    fn the_short_way_and_the_long_way_write_the_same() {
        let long = "l".repeat(200);
        let base = "https://e.example/".repeat(8);
        for code in [
            "a",
            "",
            "_a",
            "-",
            "snake_case-too",
            "A.b~c",
            "ärger_nis",
            "a b/c",
            "1st",
            "ß_x",
            "\u{1}_\"",
            &long,
            // Around the bound of the short way: alone, and with the base before it.
            &long[..127],
            &long[..128],
            &long[..129],
            &long[..128 - "/problems/".len()],
            &long[..129 - "/problems/".len()],
        ] {
            for base in ["", "/problems/", "/ü\"/", &base] {
                let problem = Problem::new(Category::NotFound, code.to_owned())
                    .with_type_base(base.to_owned());
                let written: serde_json::Value =
                    serde_json::from_slice(&problem.to_bytes()).unwrap();
                assert_eq!(written["type"], *problem.type_uri(), "{base} {code}");
                assert_eq!(written["title"], *problem.title(), "{code}");
            }
        }
    }

    #[test]
    fn waits_are_rounded_up_and_never_overflow() {
        let seconds = |wait| {
            Problem::new(Category::Unavailable, "x")
                .with_retry(Retry::After(wait))
                .retry_after_seconds()
        };
        assert_eq!(seconds(Duration::ZERO), Some(0));
        assert_eq!(seconds(Duration::from_nanos(1)), Some(1));
        assert_eq!(seconds(Duration::from_millis(1900)), Some(2));
        assert_eq!(seconds(Duration::MAX), Some(u64::MAX));
    }
}
