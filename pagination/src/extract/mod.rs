//! The page extractor: how many rows, and from where, from the query string.

mod query;

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use axum_core::extract::FromRequestParts;
use axum_core::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, LINK};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Uri};
use mainstay_errors::{Category, Problem};
use serde::Serialize;

use self::query::read;
use crate::fault;
use crate::link::Links;
use crate::page::Page;
use crate::preset::Preset;
use crate::request::{PageLimits, PageRequest};

/// How many rows a list's pages have, and how its parameters are called: implement it on a marker type per list (or
/// one for all).
///
/// ```
/// use mainstay_pagination::{OnExceed, PageLimits, PagePolicy, Preset};
///
/// struct PaymentPages;
/// impl PagePolicy for PaymentPages {
///     const LIMITS: PageLimits = PageLimits::new(20, 100).on_exceed(OnExceed::Reject);
///     const PRESET: Preset = Preset::GitHub;
/// }
/// ```
pub trait PagePolicy {
    /// The page sizes of the list.
    const LIMITS: PageLimits;

    /// How the parameters are called.
    const PRESET: Preset = Preset::Plain;
}

/// 20 rows by default and at most 100; more is cut to 100.
#[derive(Clone, Copy, Debug)]
pub struct DefaultPages;

impl PagePolicy for DefaultPages {
    const LIMITS: PageLimits = PageLimits::new(20, 100);
}

/// The page a request asks for, from its query string. Under [`Preset::Plain`], which is the default:
///
/// | parameter | meaning |
/// |---|---|
/// | `limit` | rows, 1 up to the policy's maximum; the policy's default if absent |
/// | `after` | the page that follows this cursor |
/// | `before` | the page that precedes this cursor |
/// | `first`, `last` | so many rows from the start, or from the end: of the list, or of what `after` or `before` leaves |
///
/// Other parameters are left to others. What is wrong is refused with a [`Problem`] of status 400 that
/// has a violation per parameter, all of them at once: a number of rows that is 0, below 0, above the maximum (if
/// the policy rejects) or no number; an empty or overlong cursor; a parameter given twice; parameters that do not go
/// together, as [`Preset`] says. Whether a cursor is genuine is seen by `fetch`, whose error is a problem of the
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
        let request = read(query, P::PRESET, &P::LIMITS).map_err(fault::problem)?;
        Ok(Self {
            request,
            policy: PhantomData,
        })
    }

    /// The neighbours of the page that was asked for, the list's end among them. See
    /// [`Page::link_header`] on which URI to give.
    #[must_use]
    pub fn links<T>(&self, page: &Page<T>, uri: &Uri) -> Links {
        Links::of(&page.info, P::PRESET, uri, Some(self.request.limit()))
    }

    /// The answer as the preset has it: body, `Content-Type`, and `Link` where the preset has links in the header.
    /// See [`Page::link_header`] on which URI to give.
    ///
    /// A relay connection needs the cursors of its rows (`PageQuery::cursors`); without them, and where a row cannot
    /// be serialised, the answer is a 500.
    pub fn respond<T: Serialize>(&self, page: Page<T>, uri: &Uri) -> Response {
        let mut headers = HeaderMap::new();
        if matches!(P::PRESET, Preset::Plain | Preset::GitHub) {
            headers.extend(self.links(&page, uri).header().map(|link| (LINK, link)));
        }
        let json = match P::PRESET {
            Preset::Plain => serde_json::to_vec(&page),
            Preset::GitHub => serde_json::to_vec(&page.items),
            Preset::Aip158 => serde_json::to_vec(&page.into_token_page()),
            Preset::JsonApi => serde_json::to_vec(&page.into_json_api(uri)),
            Preset::Relay => match page.into_connection() {
                Some(connection) => serde_json::to_vec(&connection),
                None => {
                    return unanswerable(
                        "a connection was asked of a page without the cursors of its rows",
                    );
                }
            },
        };
        let content_type = match P::PRESET {
            Preset::JsonApi => "application/vnd.api+json",
            _ => "application/json",
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        match json {
            Ok(json) => (headers, json).into_response(),
            Err(error) => unanswerable(&error.to_string()),
        }
    }
}

/// A bug of the application's; its log says which.
fn unanswerable(why: &str) -> Response {
    tracing::error!(target: "mainstay_pagination", why, "a page could not be answered");
    Problem::new(Category::Internal, "page_unreadable").into_response()
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

#[cfg(test)]
mod tests {
    use mainstay_errors::Violation;

    use super::*;
    use crate::{CURSOR_CHARS_MAX, Cursor, OnExceed};

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
            ("first=5", PageRequest::first(5)),
            ("first=5&after=AQ", PageRequest::first(5).after("AQ")),
            ("last=5", PageRequest::last(5)),
            ("before=AQ&last=5", PageRequest::last(5).before("AQ")),
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
                "last=5&after=A",
                &[
                    ("/after", "conflicting_parameters"),
                    ("/last", "conflicting_parameters"),
                ],
            ),
            (
                "first=5&before=A",
                &[
                    ("/before", "conflicting_parameters"),
                    ("/first", "conflicting_parameters"),
                ],
            ),
            (
                "limit=5&last=5",
                &[
                    ("/limit", "conflicting_parameters"),
                    ("/last", "conflicting_parameters"),
                ],
            ),
            ("first=0", &[("/first", "limit_zero")]),
            ("last=101", &[("/last", "limit_too_large")]),
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

    fn ask(preset: Preset, query: &str) -> Result<PageRequest, Vec<(String, String)>> {
        read(query, preset, &Strict::LIMITS).map_err(|wrong| {
            let names = |v: &Violation| (v.pointer().to_owned(), v.code().to_owned());
            wrong.iter().map(names).collect()
        })
    }

    #[test]
    fn every_preset_reads_its_own_names() {
        use Preset::{Aip158, GitHub, JsonApi, Relay};
        for (preset, query, request) in [
            (GitHub, "per_page=5&limit=0", PageRequest::first(5)),
            (
                GitHub,
                "per_page=5&before=AQ",
                PageRequest::last(5).before("AQ"),
            ),
            (Aip158, "", PageRequest::first(20)),
            (Aip158, "page_size=0&page_token=", PageRequest::first(20)),
            (
                Aip158,
                "page_size=5&page_token=AQ&after=x",
                PageRequest::first(5).after("AQ"),
            ),
            (JsonApi, "page[size]=5", PageRequest::first(5)),
            (
                JsonApi,
                "page%5Bsize%5D=5&page[after]=AQ",
                PageRequest::first(5).after("AQ"),
            ),
            (
                JsonApi,
                "page[before]=AQ",
                PageRequest::last(20).before("AQ"),
            ),
            (
                JsonApi,
                "page[after]=A&page[before]=B",
                PageRequest::first(20).after("A").before("B"),
            ),
            (Relay, "first=5&limit=0", PageRequest::first(5)),
            (
                Relay,
                "first=5&after=A&before=B",
                PageRequest::first(5).after("A").before("B"),
            ),
            (
                Relay,
                "last=5&after=A&before=B",
                PageRequest::last(5).after("A").before("B"),
            ),
            (Relay, "last=5&after=A", PageRequest::last(5).after("A")),
            (Relay, "before=B", PageRequest::last(20).before("B")),
        ] {
            assert_eq!(
                ask(preset, query),
                Ok(request.named(preset)),
                "{preset:?} {query}"
            );
        }
    }

    #[test]
    fn every_preset_refuses_under_its_own_names() {
        use Preset::{Aip158, GitHub, JsonApi, Relay};
        let conflict = "conflicting_parameters";
        for (preset, query, wrong) in [
            (GitHub, "per_page=0", vec![("/per_page", "limit_zero")]),
            (
                GitHub,
                "per_page=101",
                vec![("/per_page", "limit_too_large")],
            ),
            (
                GitHub,
                "after=A&last=5",
                vec![("/after", conflict), ("/last", conflict)],
            ),
            (
                Aip158,
                "page_size=-1",
                vec![("/page_size", "limit_negative")],
            ),
            (
                Aip158,
                "page_size=x",
                vec![("/page_size", "limit_not_a_number")],
            ),
            (JsonApi, "page[size]=0", vec![("/page[size]", "limit_zero")]),
            (
                JsonApi,
                "page[after]=",
                vec![("/page[after]", "cursor_malformed")],
            ),
            (
                JsonApi,
                "page[size]=1&page%5bsize]=1",
                vec![("/page[size]", "repeated_parameter")],
            ),
            (Relay, "first=-1", vec![("/first", "limit_negative")]),
            (Relay, "last=-1", vec![("/last", "limit_negative")]),
            (
                Relay,
                "first=1&last=1",
                vec![("/first", conflict), ("/last", conflict)],
            ),
        ] {
            let wrong: Vec<_> = wrong
                .into_iter()
                .map(|(p, c)| (p.to_owned(), c.to_owned()))
                .collect();
            assert_eq!(ask(preset, query), Err(wrong), "{preset:?} {query}");
        }
    }

    #[test]
    fn a_refused_number_of_rows_is_told_what_would_be_right() {
        let problem = Paged::<Strict>::parse("limit=0").unwrap_err();
        let detail = problem.errors()[0].detail().unwrap();
        assert!(
            detail.ends_with("give a whole number from 1 to 100"),
            "{detail}"
        );
        let params: Vec<_> = problem.errors()[0]
            .params()
            .map(|(name, value)| (name, value.to_string()))
            .collect();
        assert_eq!(params, [("max", "100".to_owned()), ("min", "1".to_owned())]);
    }

    #[test]
    fn text_that_is_not_a_cursor_reaches_the_codec_unchanged() {
        let paged = Paged::<Strict>::parse("after=%2541+%FF").unwrap();
        assert_eq!(paged.anchor(), Some(&Cursor::from("\u{fffd}")));
        let paged = Paged::<Strict>::parse("after=%2541+").unwrap();
        assert_eq!(paged.anchor(), Some(&Cursor::from("%41 ")));
    }
}
