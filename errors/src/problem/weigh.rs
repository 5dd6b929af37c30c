//! What a document says, weighed against the status of the answer; and what the status says alone.

use std::borrow::Cow;

use super::members::Members;
use super::{Problem, TypeUri, cut};
use crate::{Category, Outcome, RequestId, Retry};

/// What the status alone says.
pub(super) fn bare(status: u16) -> Problem {
    let category = Category::from_http_status(status);
    let mut problem = Problem::new(category, category.as_str());
    problem.0.type_uri = TypeUri::Exact(Cow::Borrowed("about:blank"));
    problem.0.status = if (400..600).contains(&status) {
        status
    } else {
        category.http_status()
    };
    problem.0.title = http::StatusCode::from_u16(problem.0.status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .map(Cow::Borrowed);
    problem
}

/// What both say together. Where they differ in the status, that of the answer counts.
pub(super) fn decode(status: u16, members: Members) -> Problem {
    let mut problem = bare(status);
    let doc = &mut *problem.0;

    if let Some(uri) = members.type_uri {
        doc.type_uri = TypeUri::Exact(Cow::Owned(uri));
    }
    if let Some(title) = members.title {
        doc.title = Some(Cow::Owned(title));
    }
    doc.detail = members.detail.map(|detail| cut(Cow::Owned(detail)));
    doc.instance = members.instance;
    doc.request_id = members.request_id.and_then(|id| RequestId::parse(&id));
    doc.reported_status = members
        .status
        .and_then(|status| u16::try_from(status).ok())
        .filter(|reported| *reported != status);
    doc.retry_after = members.retry_after;
    // Advice that a newer server spells is not guessed: under the same key, asking again does no harm.
    let retry = members
        .retry
        .map(|word| Retry::from_wire(&word, doc.retry_after).unwrap_or(Retry::SameKeyOnly));
    doc.category = narrow(status, doc.category, retry);
    doc.retry = retry.unwrap_or(match (doc.category.retry(), doc.retry_after) {
        (Retry::Backoff, Some(wait)) => Retry::After(wait),
        (advice, _) => advice,
    });
    doc.outcome = match members.outcome {
        // A word of a newer server must not be taken for a promise that nothing happened.
        Some(word) => Outcome::from_wire(&word).unwrap_or(Outcome::Unknown),
        None => doc.category.outcome(),
    };
    doc.code = match members.code {
        Some(code) if !code.is_empty() => Cow::Owned(code),
        _ => Cow::Borrowed(doc.category.as_str()),
    };
    doc.errors = members.errors;
    doc.extensions = members.extensions;
    problem
}

/// Several categories share a status; the advice on the wire tells them apart.
fn narrow(status: u16, category: Category, retry: Option<Retry>) -> Category {
    match (status, retry) {
        (400, Some(Retry::AfterStateChange)) => Category::FailedPrecondition,
        (409, Some(Retry::Never)) => Category::AlreadyExists,
        (409, Some(Retry::Transaction)) => Category::Aborted,
        _ => category,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBLEM: Option<&str> = Some("application/problem+json");

    fn read(body: &str) -> Problem {
        Problem::read_document(404, PROBLEM, body.as_bytes())
    }

    #[test]
    fn d1_a_mistyped_member_is_ignored_and_the_rest_is_kept() {
        let problem = read(
            r#"{"type":7,"title":["x"],"status":"404","detail":{},"instance":null,"code":"gone",
                "retry":1,"retry_after":"soon","outcome":false,"request_id":9,"errors":"no"}"#,
        );
        assert_eq!(problem.code(), "gone");
        assert_eq!(problem.type_uri(), "about:blank");
        assert_eq!(problem.title(), "Not Found");
        assert_eq!((problem.detail(), problem.instance()), (None, None));
        assert_eq!(
            (problem.retry(), problem.outcome()),
            (Retry::Never, Outcome::NotApplied)
        );
        assert_eq!(problem.retry_after(), None);
        assert!(problem.errors().is_empty() && problem.extensions().is_empty());
    }

    #[test]
    fn words_of_a_newer_server_promise_nothing() {
        let problem = read(r#"{"retry":"at_dawn","outcome":"half_applied"}"#);
        assert_eq!(
            (problem.retry(), problem.outcome()),
            (Retry::SameKeyOnly, Outcome::Unknown)
        );
    }

    #[test]
    fn d2_unknown_members_are_kept_for_pass_through() {
        let problem = read(r#"{"balance":30,"x-y":[1],"nested":{"a":null}}"#);
        assert_eq!(problem.extensions()["balance"], 30);
        assert_eq!(problem.extensions()["x-y"][0], 1);
        let again = Problem::read_document(404, PROBLEM, &problem.to_bytes());
        assert_eq!(again.extensions(), problem.extensions());
    }

    #[test]
    fn d3_a_missing_type_is_about_blank() {
        for body in ["{}", r#"{"type":null}"#, r#"{"type":["x"]}"#, ""] {
            assert_eq!(read(body).type_uri(), "about:blank", "{body}");
        }
    }

    #[test]
    fn d4_type_is_the_identity_and_kept_byte_for_byte() {
        for uri in [
            "https://iana.org/assignments/http-problem-types#date",
            "HTTPS://Errors.Example/%7euser/../x",
            "urn:uuid:0",
            "../x?y#z",
            "",
            "not a uri ä",
        ] {
            let problem = read(&format!(r#"{{"type":"{uri}"}}"#));
            assert_eq!(problem.type_uri(), uri);
        }
        // What stands in the texts makes it nothing it is not.
        let problem = read(r#"{"title":"Order not found","detail":"order_not_found"}"#);
        assert_eq!(problem.code(), "not_found");
    }

    #[test]
    fn d5_the_http_status_wins_and_both_are_kept() {
        let problem = read(r#"{"status":403}"#);
        assert_eq!(
            (problem.status(), problem.reported_status()),
            (404, Some(403))
        );
        assert_eq!(read(r#"{"status":404}"#).reported_status(), None);
        assert_eq!(read(r#"{"status":70000}"#).reported_status(), None);
        assert_eq!(read(r#"{"status":-1}"#).reported_status(), None);
        assert_eq!(Problem::read_document(200, PROBLEM, b"{}").status(), 500);
    }

    #[test]
    fn d9_of_a_repeated_member_the_last_is_taken() {
        assert_eq!(read(r#"{"code":"a","code":"b"}"#).code(), "b");
    }
}
