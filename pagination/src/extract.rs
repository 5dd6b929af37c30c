//! The page extractor: `limit`, `after` and `before` from the query string.

use std::convert::AsRef;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use axum_core::extract::FromRequestParts;
use http::request::Parts;
use mainstay_errors::{Problem, Violation};
use percent_encoding::percent_decode_str;

use crate::codec::CURSOR_CHARS_MAX;
use crate::cursor::CursorError;
use crate::fault;
use crate::request::{PageDirection, PageLimits, PageRequest};

/// How many rows a list's pages have: implement it on a marker type per list (or one for all).
///
/// ```
/// use mainstay_pagination::{OnExceed, PageLimits, PagePolicy};
///
/// struct PaymentPages;
/// impl PagePolicy for PaymentPages {
///     const LIMITS: PageLimits = PageLimits::new(20, 100).on_exceed(OnExceed::Reject);
/// }
/// ```
pub trait PagePolicy {
    /// The page sizes of the list.
    const LIMITS: PageLimits;
}

/// 20 rows by default and at most 100; more is cut to 100.
#[derive(Clone, Copy, Debug)]
pub struct DefaultPages;

impl PagePolicy for DefaultPages {
    const LIMITS: PageLimits = PageLimits::new(20, 100);
}

/// The page a request asks for, from its query string:
///
/// | parameter | meaning |
/// |---|---|
/// | `limit` | rows, 1 up to the policy's maximum; the policy's default if absent |
/// | `after` | the page that follows this cursor |
/// | `before` | the page that precedes this cursor |
///
/// Other parameters are left to others. What is wrong is refused with a [`Problem`] of status 400 that
/// has a violation per parameter, all of them at once: a limit of 0, below 0, above the maximum (if
/// the policy rejects) or not a number; an empty or overlong cursor; a parameter given twice; `after`
/// together with `before`. Whether a cursor is genuine is seen by `fetch`, whose error is a problem of the
/// same shape.
///
/// ```
/// use axum::{Router, routing::get};
/// use mainstay_pagination::{DefaultPages, Paged};
///
/// async fn list(Paged { request, .. }: Paged<DefaultPages>) -> String {
///     format!("{} rows", request.limit())
/// }
/// let app: Router = Router::new().route("/v1/payments", get(list));
/// ```
pub struct Paged<P = DefaultPages> {
    /// The page.
    pub request: PageRequest,
    policy: PhantomData<fn() -> P>,
}

impl<P: PagePolicy> Paged<P> {
    /// Reads a query string (without the `?`).
    ///
    /// # Errors
    /// A problem with a violation per parameter that is wrong.
    pub fn parse(query: &str) -> Result<Self, Problem> {
        let request = read(query, &P::LIMITS).map_err(fault::problem)?;
        Ok(Self {
            request,
            policy: PhantomData,
        })
    }
}

impl<P> Deref for Paged<P> {
    type Target = PageRequest;

    fn deref(&self) -> &PageRequest {
        &self.request
    }
}

impl<P> fmt::Debug for Paged<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Paged").field(&self.request).finish()
    }
}

impl<P: PagePolicy, S: Sync> FromRequestParts<S> for Paged<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

/// The three parameters as they were found.
#[derive(Default)]
struct Found {
    limit: Option<String>,
    after: Option<String>,
    before: Option<String>,
}

fn read(query: &str, limits: &PageLimits) -> Result<PageRequest, Vec<Violation>> {
    let (found, mut wrong) = find(query);
    let limit = match found.limit.map(|text| limits.parse(&text)) {
        None => limits.default_rows(),
        Some(Ok(rows)) => rows,
        Some(Err(error)) => {
            wrong.push(fault::limit(error));
            0
        }
    };
    for (name, cursor) in [("after", &found.after), ("before", &found.before)] {
        let error = match cursor.as_ref().map(String::len) {
            Some(0) => CursorError::Malformed,
            Some(len) if len > CURSOR_CHARS_MAX => CursorError::TooLong,
            _ => continue,
        };
        wrong.push(fault::cursor(name, error));
    }
    if found.after.is_some() && found.before.is_some() {
        for name in ["after", "before"] {
            wrong.push(
                Violation::query(name, "conflicting_parameters")
                    .with_detail("give either after or before"),
            );
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(match (found.after, found.before) {
        (_, Some(cursor)) => PageRequest::last(limit).before(cursor),
        (Some(cursor), None) => PageRequest::first(limit).after(cursor),
        (None, None) => PageRequest::first(limit),
    })
}

/// Looks for the parameters; a second occurrence or text that is not UTF-8 is wrong at once.
fn find(query: &str) -> (Found, Vec<Violation>) {
    let mut found = Found::default();
    let mut wrong: Vec<Violation> = Vec::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(name) = decode(name) else { continue };
        let (name, slot) = match name.as_str() {
            fault::LIMIT => (fault::LIMIT, &mut found.limit),
            "after" => (PageDirection::Forward.cursor_parameter(), &mut found.after),
            "before" => (
                PageDirection::Backward.cursor_parameter(),
                &mut found.before,
            ),
            _ => continue,
        };
        if slot.is_some() {
            let repeated = |v: &Violation| v.pointer().strip_prefix('/') == Some(name);
            if !wrong.iter().any(repeated) {
                wrong
                    .push(Violation::query(name, "repeated_parameter").with_detail("give it once"));
            }
            continue;
        }
        // Text that is not UTF-8 becomes text that is neither a number nor a cursor.
        *slot = Some(decode(value).unwrap_or_else(|| char::REPLACEMENT_CHARACTER.to_string()));
    }
    (found, wrong)
}

/// Decodes a name or a value as forms are: `+` is a space.
fn decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced)
        .decode_utf8()
        .ok()
        .map(|text| AsRef::<str>::as_ref(&text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cursor, OnExceed};

    struct Strict;
    impl PagePolicy for Strict {
        const LIMITS: PageLimits = PageLimits::new(20, 100).on_exceed(OnExceed::Reject);
    }

    #[test]
    fn good_queries_become_requests() {
        for (query, request) in [
            ("", PageRequest::first(20)),
            ("limit=1", PageRequest::first(1)),
            ("limit=100&x=1", PageRequest::first(100)),
            ("limit=007", PageRequest::first(7)),
            ("l%69mit=7", PageRequest::first(7)),
            ("after=AQ&limit=3", PageRequest::first(3).after("AQ")),
            ("before=AQ", PageRequest::last(20).before("AQ")),
            ("currency=EUR&currency=USD", PageRequest::first(20)),
            ("LIMIT=0&%FF=1&&=", PageRequest::first(20)),
        ] {
            assert_eq!(
                Paged::<Strict>::parse(query).unwrap().request,
                request,
                "{query}"
            );
        }
        assert_eq!(
            Paged::<DefaultPages>::parse("limit=5000").unwrap().limit(),
            100
        );
        assert_eq!(
            Paged::<DefaultPages>::parse("limit=99999999999999999999")
                .unwrap()
                .limit(),
            100
        );
    }

    #[test]
    fn bad_queries_name_their_parameter() {
        let long = format!("after={}", "A".repeat(CURSOR_CHARS_MAX + 1));
        for (query, violations) in [
            ("limit=0", &[("/limit", "limit_zero")][..]),
            ("limit=-1", &[("/limit", "limit_negative")]),
            ("limit=101", &[("/limit", "limit_too_large")]),
            ("limit=4294967296", &[("/limit", "limit_too_large")]),
            (
                "limit=99999999999999999999",
                &[("/limit", "limit_too_large")],
            ),
            ("limit=", &[("/limit", "limit_not_a_number")]),
            ("limit", &[("/limit", "limit_not_a_number")]),
            ("limit=ten", &[("/limit", "limit_not_a_number")]),
            ("limit=1.5", &[("/limit", "limit_not_a_number")]),
            ("limit=%2B5", &[("/limit", "limit_not_a_number")]),
            ("limit=+5", &[("/limit", "limit_not_a_number")]),
            ("limit=%FF", &[("/limit", "limit_not_a_number")]),
            ("limit=%D9%A3", &[("/limit", "limit_not_a_number")]),
            ("limit=--1", &[("/limit", "limit_not_a_number")]),
            ("limit=5&limit=5", &[("/limit", "repeated_parameter")]),
            (
                "limit=5&limit=6&limi%74=7",
                &[("/limit", "repeated_parameter")],
            ),
            ("after=", &[("/after", "cursor_malformed")]),
            ("before", &[("/before", "cursor_malformed")]),
            (&long, &[("/after", "cursor_too_long")]),
            ("after=A&after=A", &[("/after", "repeated_parameter")]),
            (
                "after=A&before=B",
                &[
                    ("/after", "conflicting_parameters"),
                    ("/before", "conflicting_parameters"),
                ],
            ),
            (
                "limit=0&after=",
                &[("/limit", "limit_zero"), ("/after", "cursor_malformed")],
            ),
        ] {
            let problem = Paged::<Strict>::parse(query).unwrap_err();
            let found: Vec<_> = problem
                .errors()
                .iter()
                .map(|v| (v.pointer(), v.code()))
                .collect();
            assert_eq!(
                (problem.status(), found.as_slice()),
                (400, violations),
                "{query}"
            );
            assert_eq!(problem.code(), "page_request_invalid");
        }
    }

    #[test]
    fn text_that_is_not_a_cursor_reaches_the_codec_unchanged() {
        let paged = Paged::<Strict>::parse("after=%2541+%FF").unwrap();
        assert_eq!(paged.anchor(), Some(&Cursor::from("\u{fffd}")));
        let paged = Paged::<Strict>::parse("after=%2541+").unwrap();
        assert_eq!(paged.anchor(), Some(&Cursor::from("%41 ")));
    }
}
