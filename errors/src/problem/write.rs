//! The write side: member order is fixed and no member is null, so equal problems are equal bytes.

use std::time::Duration;

use bytes::Bytes;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{Problem, TypeUri};

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let doc = &self.0;
        let mut out = serializer.serialize_map(None)?;
        match &doc.type_uri {
            TypeUri::Exact(uri) => out.serialize_entry("type", uri)?,
            TypeUri::Default | TypeUri::Base(_) => out.serialize_entry("type", &self.type_uri())?,
        }
        out.serialize_entry("title", &self.title())?;
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
        // Strings, numbers and a map with string keys: nothing here can refuse to be JSON.
        serde_json::to_vec(self).map_or_else(|_| Bytes::from_static(b"{}"), Bytes::from)
    }

    /// The value of the `Retry-After` header, in whole seconds, where a wait is known.
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.0.retry_after.map(whole_seconds)
    }
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
