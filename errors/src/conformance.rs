//! What a crate's own tests ask of its errors (feature `conformance`, for `[dev-dependencies]`).
//!
//! Whoever derives `FromProblem` promises that clients get back what the service had. These checks hold the
//! promise against the bytes: every value goes out and comes in as it would between two processes.
//!
//! ```
//! # #[cfg(feature = "derive")] {
//! use mainstay_errors::{Fault, Violation, Violations, conformance};
//!
//! #[derive(Debug, PartialEq, thiserror::Error, Fault)]
//! #[fault(decode, domain = "orders.example.com")]
//! enum OrderError {
//!     /// No order has this id.
//!     #[error("order {id} not found")]
//!     #[fault(not_found, public)]
//!     OrderNotFound {
//!         #[fault(ext = "order_id")]
//!         id: u64,
//!     },
//!     /// The payment provider does not answer.
//!     #[error("payment provider")]
//!     #[fault(unavailable)]
//!     Provider(String), // not sent, so it cannot come back
//!     #[error(transparent)]
//!     #[fault(delegate)]
//!     Invalid(#[from] Violations),
//! }
//!
//! // In a test: one value of each variant, with the values that are hard to write down.
//! let without_value = conformance::round_trip_each([
//!     OrderError::OrderNotFound { id: u64::MAX },
//!     OrderError::Invalid(Violation::body("/lines/0", "too_small").with_param("min", 1).into()),
//! ]);
//! assert_eq!(without_value, ["provider"]); // a new variant fails here until somebody decides
//! assert_eq!(conformance::lint::<OrderError>(), []);
//! # }
//! ```
//!
//! The derive does not write these tests by itself. Values it made up would be defaults — an empty string, a
//! zero, `None` — which come back through almost any mistake; and a test that is there but proves nothing is
//! worse than a list with a gap in it that has a name.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};

use http::{HeaderMap, HeaderValue, header};
use serde_json::{Map, Value};

use crate::{Descriptor, Fault, FromProblem, PROBLEM_JSON, Problem};

/// Sends an error over HTTP and has it back: document, bytes, document, error. With the feature `tonic`, over gRPC
/// too: document, status, document, error.
///
/// It holds when the error is equal, its code, status, retry advice, wait and outcome are the same, and a
/// second writing gives the same bytes. That no other code is taken for this one is checked with it.
///
/// # Panics
/// When it does not hold, with a message that names the code and the member. What cannot hold: a wait that is
/// not in whole seconds (RFC 9110 §10.2.3 has no others), a float that is not finite, more than
/// [`VIOLATIONS_MAX`](crate::VIOLATIONS_MAX) violations, a document beyond
/// [`DOCUMENT_BYTES_MAX`](crate::DOCUMENT_BYTES_MAX); over gRPC, what the bound on a status leaves out.
#[track_caller]
pub fn round_trip<E: FromProblem + PartialEq + Debug>(error: &E) {
    let sent = error.to_problem();
    same(error, &sent, &over_http(&sent), "HTTP");
    #[cfg(feature = "tonic")]
    same(error, &sent, &over_grpc(&sent), "gRPC");
    only_this_code::<E>(&sent);
}

/// [`round_trip`] of each; returns the codes of the catalogue that no value had, in its order.
///
/// Compare them with the codes that are meant not to come back: the list is then what clients cannot match on,
/// and a variant that is added later is in it until there is a value of it.
///
/// # Panics
/// As [`round_trip`].
#[track_caller]
#[must_use = "the codes that were not tried"]
pub fn round_trip_each<E: FromProblem + PartialEq + Debug>(
    errors: impl IntoIterator<Item = E>,
) -> Vec<&'static str> {
    let mut without_value: Vec<_> = E::CATALOG.iter().map(Descriptor::code).collect();
    for error in errors {
        round_trip(&error);
        let code = error.descriptor().code();
        without_value.retain(|untried| *untried != code);
    }
    without_value
}

/// Something about a code that should not be released like this.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// Two different errors have this code.
    Repeated(&'static str),
    /// Clients match on it, and it is not at most 63 of `a-z 0-9 _`, starting with a letter.
    Malformed(&'static str),
    /// Its page has no text: RFC 9457 §4 asks what a type is documented with.
    Undocumented(&'static str),
    /// A header it brings is none, and is left out.
    Header(&'static str, &'static str),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repeated(code) => write!(f, "two errors have the code `{code}`"),
            Self::Malformed(code) => write!(
                f,
                "the code `{code}` is not at most 63 of a-z 0-9 _, starting with a letter"
            ),
            Self::Undocumented(code) => {
                write!(f, "the page of `{code}` is empty: write a doc comment")
            }
            Self::Header(code, name) => {
                write!(f, "`{code}` brings `{name}`, which is no header like this")
            }
        }
    }
}

/// Reads the catalogue of an error type with the eyes of its clients. Nothing found is an empty list.
///
/// The derive refuses most of this when it compiles; a doc comment it cannot ask for, and a [`Fault`] written by
/// hand can have any of it.
#[must_use = "what was found"]
pub fn lint<E: Fault>() -> Vec<Finding> {
    let mut found = Vec::new();
    let mut seen: BTreeMap<&str, &Descriptor> = BTreeMap::new();
    for descriptor in E::CATALOG {
        let code = descriptor.code();
        match seen.insert(code, descriptor) {
            // Met again through another delegate.
            Some(before) if before == descriptor => continue,
            Some(_) => found.push(Finding::Repeated(code)),
            None => {}
        }
        if !is_code(code) {
            found.push(Finding::Malformed(code));
        }
        if descriptor.docs().trim().is_empty() {
            found.push(Finding::Undocumented(code));
        }
        for (name, value) in descriptor.headers() {
            let name_is_one = header::HeaderName::from_bytes(name.as_bytes()).is_ok();
            if !name_is_one || HeaderValue::from_str(value).is_err() {
                found.push(Finding::Header(code, name));
            }
        }
    }
    found
}

fn is_code(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// As the other process reads it: status, headers and body are all it has.
fn over_http(sent: &Problem) -> Problem {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    if let Some(seconds) = sent.retry_after_seconds() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    Problem::read(sent.status(), &headers, &sent.to_bytes())
}

/// As the other process reads it, of whatever the service itself would have sent.
#[cfg(feature = "tonic")]
fn over_grpc(sent: &Problem) -> Problem {
    Problem::from_status(&tonic::Status::from(crate::Error::from(sent.clone())))
}

#[track_caller]
fn same<E: FromProblem + PartialEq + Debug>(
    error: &E,
    sent: &Problem,
    received: &Problem,
    wire: &str,
) {
    let code = sent.code();
    for (fact, before, after) in facts(sent, received) {
        assert!(
            before == after,
            "`{code}` over {wire}: `{fact}` was {before} and is {after}"
        );
    }
    let Some(decoded) = E::from_problem(received) else {
        fail(&format!(
            "`{code}` over {wire}: does not come back. Either its variant holds a field that is not sent \
             (mark it `ext`, `violations`, `retry_after` or `default`), or a member does not deserialise to \
             what it was serialised from; the members are {}",
            Value::Object(received.extensions().clone())
        ));
    };
    let again = decoded.to_problem();
    if let Some((member, before, after)) = first_difference(sent, &again) {
        fail(&format!(
            "`{code}` over {wire}: `{member}` was {before} and is {after} when written again"
        ));
    }
    assert!(
        decoded == *error,
        "`{code}` over {wire}: the documents are the same and the errors are not, so something that is not sent \
         tells them apart: was {error:?} and is {decoded:?}"
    );
    assert!(
        again.to_bytes() == sent.to_bytes(),
        "`{code}` over {wire}: the same members are written in other bytes"
    );
}

/// What a caller acts on, as text.
fn facts(sent: &Problem, received: &Problem) -> [(&'static str, String, String); 5] {
    let fact = |name, read: fn(&Problem) -> String| (name, read(sent), read(received));
    [
        fact("code", |problem| problem.code().to_owned()),
        fact("status", |problem| problem.status().to_string()),
        fact("retry", |problem| format!("{:?}", problem.retry())),
        fact("retry_after", |problem| {
            format!("{:?}", problem.retry_after())
        }),
        fact("outcome", |problem| problem.outcome().to_string()),
    ]
}

/// The first member in which two documents differ, with both values.
fn first_difference(before: &Problem, after: &Problem) -> Option<(String, Value, Value)> {
    let (mut before, mut after) = (members(before), members(after));
    let names: Vec<String> = before.keys().chain(after.keys()).cloned().collect();
    names.into_iter().find_map(|name| {
        let take = |members: &mut Map<String, Value>| members.remove(&name).unwrap_or_default();
        let (before, after) = (take(&mut before), take(&mut after));
        (before != after).then_some((name, before, after))
    })
}

fn members(problem: &Problem) -> Map<String, Value> {
    match serde_json::to_value(problem) {
        Ok(Value::Object(members)) => members,
        _ => Map::new(),
    }
}

/// A service answers with codes this enum does not know: those of a newer version, of a proxy, of nobody.
#[track_caller]
fn only_this_code<E: FromProblem + Debug>(sent: &Problem) {
    let mut other = Problem::new(sent.category(), "code_of_nobody")
        .with_violations(sent.errors().iter().cloned())
        .extended(sent.extensions().clone());
    if let Some(wait) = sent.retry_after() {
        other = other.with_retry_after(wait);
    }
    if let Some(taken) = E::from_problem(&other) {
        fail(&format!(
            "a document with the code `code_of_nobody` was taken for {taken:?}: `from_problem` must look at the code"
        ));
    }
}

#[expect(clippy::panic, reason = "an assertion, called by tests alone")]
#[track_caller]
fn fail(message: &str) -> ! {
    panic!("{message}")
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    use super::*;
    use crate::{Category, Members, Violation, Violations};

    /// What may be wrong with an error that was written by hand.
    #[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
    #[error("x")]
    enum Wrong {
        StaysUnknown,
        AnyCode,
        ForgetsMember(u8),
        HoldsUnsent(u8),
        Fraction,
    }

    impl Fault for Wrong {
        const CATALOG: &'static [Descriptor] = &[
            Descriptor::new("wrong", Category::Unavailable).with_docs("Wrong."),
            Descriptor::new("Not Well", Category::Internal)
                .with_docs(" ")
                .with_headers(&[("a b", "x"), ("allow", "\r\n")]),
            Descriptor::new("wrong", Category::Internal).with_docs("Another."),
        ];

        fn descriptor(&self) -> &'static Descriptor {
            &Self::CATALOG[0]
        }

        fn extensions(&self, out: &mut Members) {
            out.insert("kind", format!("{self:?}").split('(').next())
                .unwrap();
            if let Self::ForgetsMember(value) = self {
                out.insert("value", value).unwrap();
            }
        }

        fn retry_after(&self) -> Option<Duration> {
            matches!(self, Self::Fraction).then_some(Duration::from_millis(1500))
        }
    }

    impl FromProblem for Wrong {
        fn from_problem(problem: &Problem) -> Option<Self> {
            let kind = problem.extensions().get("kind")?.as_str()?;
            let is_wrong = problem.code() == "wrong";
            match kind {
                "AnyCode" => Some(Self::AnyCode),
                "ForgetsMember" if is_wrong => Some(Self::ForgetsMember(0)),
                "HoldsUnsent" if is_wrong => Some(Self::HoldsUnsent(0)),
                "Fraction" if is_wrong => Some(Self::Fraction),
                _ => None,
            }
        }
    }

    #[test]
    fn what_does_not_come_back_is_named_with_its_code_and_member() {
        for (wrong, parts) in [
            (Wrong::StaysUnknown, ["`wrong`", "does not come back"]),
            (Wrong::AnyCode, ["`code_of_nobody`", "AnyCode"]),
            (
                Wrong::ForgetsMember(7),
                ["`wrong`", "`value` was 7 and is 0"],
            ),
            (Wrong::HoldsUnsent(7), ["`wrong`", "HoldsUnsent(7)"]),
            (
                Wrong::Fraction,
                ["`wrong`", "was After(1.5s) and is After(2s)"],
            ),
        ] {
            let panic = catch_unwind(AssertUnwindSafe(|| round_trip(&wrong))).unwrap_err();
            let message = panic.downcast::<String>().unwrap();
            for part in parts {
                assert!(message.contains(part), "{wrong:?}: {message}");
            }
        }
        round_trip(&Wrong::ForgetsMember(0));
    }

    #[test]
    fn violations_come_back_with_their_parameters() {
        let found: Violations = (0..100)
            .map(|i| Violation::query("limit", "too_large").with_param("max", i))
            .collect();
        assert!(round_trip_each([found, Violations::new()]).is_empty());
        assert_eq!(round_trip_each::<Violations>([]), ["validation_failed"]);
        assert_eq!(lint::<Violations>(), []);
    }

    #[test]
    fn a_catalogue_is_read_with_the_eyes_of_its_clients() {
        assert_eq!(
            lint::<Wrong>(),
            [
                Finding::Malformed("Not Well"),
                Finding::Undocumented("Not Well"),
                Finding::Header("Not Well", "a b"),
                Finding::Header("Not Well", "allow"),
                Finding::Repeated("wrong"),
            ]
        );
    }
}
