//! The read side, which never fails: whatever a server answered, the caller gets a [`Problem`].
//!
//! RFC 9457 §3.1 asks a reader to ignore what it does not understand. Mistyped members are dropped
//! one by one, unknown ones are kept as extensions, and a body that is no problem document at all
//! still leaves what the HTTP status says.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use serde::de::{Deserialize, Deserializer, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::members::Members;
use super::plain::Plain;
use super::{Problem, TypeUri, cut};
use crate::{Category, Location, Outcome, RequestId, Retry, Violation};

/// The largest body that is decoded, in bytes (64 KiB); a larger one is judged by its status alone.
pub const DOCUMENT_BYTES_MAX: usize = 64 * 1024;

/// The longest wait that is believed, so that arithmetic with it cannot overflow: one year.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// How a failed answer is read: the bounds, and what relative things are relative to.
///
/// ```
/// use http::{HeaderMap, header};
/// use mainstay_errors::ProblemReader;
///
/// let mut headers = HeaderMap::new();
/// headers.insert(header::CONTENT_TYPE, "application/problem+json".parse()?);
/// let problem = ProblemReader::new()
///     .base("https://api.example.com/orders/7")
///     .read(404, &headers, br#"{"type":"/problems/order_not_found"}"#);
/// assert_eq!(problem.type_uri(), "https://api.example.com/problems/order_not_found");
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
#[derive(Debug, Clone)]
pub struct ProblemReader {
    document_bytes_max: usize,
    base: Option<String>,
    now: Option<SystemTime>,
}

impl ProblemReader {
    /// Bodies up to [`DOCUMENT_BYTES_MAX`], no base, no clock but the answer's own `Date`.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            document_bytes_max: DOCUMENT_BYTES_MAX,
            base: None,
            now: None,
        }
    }

    /// Decodes bodies up to this many bytes; a larger one is judged by its status alone.
    #[must_use]
    pub const fn document_bytes_max(mut self, bytes: usize) -> Self {
        self.document_bytes_max = bytes;
        self
    }

    /// The URL that answered: what a relative `type` and `instance` are relative to.
    #[must_use]
    pub fn base(mut self, url: impl Into<String>) -> Self {
        self.base = Some(url.into());
        self
    }

    /// When the answer arrived, for a `Retry-After` that is a date on an answer without a `Date`.
    #[must_use]
    pub const fn arrived(mut self, now: SystemTime) -> Self {
        self.now = Some(now);
        self
    }

    /// What the edge knows of an answer it received, as far as nothing else was set.
    #[cfg(any(feature = "client", feature = "reqwest"))]
    pub(crate) fn received(&self, now: SystemTime, url: Option<String>) -> Self {
        Self {
            document_bytes_max: self.document_bytes_max,
            base: self.base.clone().or(url),
            now: self.now.or(Some(now)),
        }
    }

    /// The bound that is set, for who collects the body.
    #[must_use]
    pub const fn bytes_max(&self) -> usize {
        self.document_bytes_max
    }

    /// Reads an error response. Total: every status, set of headers and body gives a problem.
    ///
    /// The HTTP `status` wins over the document's, which is kept as
    /// [`reported_status`](Problem::reported_status) when they differ; a status outside 400–599 reads as
    /// 500. `Retry-After` wins over the document's `retry_after`: in seconds, or as a date in any of the three forms of
    /// RFC 9110 §5.6.7, counted from the answer's own `Date`, so that the two clocks need not agree.
    /// `x-request-id` stands in for a missing `request_id`.
    #[must_use]
    pub fn read(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Problem {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let mut problem = self.read_document(status, text("content-type"), body);
        let wait = text("retry-after").and_then(|value| {
            let sent = text("date").and_then(|date| httpdate::parse_http_date(date).ok());
            wait(value.trim(), sent.or(self.now))
        });
        if let Some(wait) = wait {
            problem = problem.with_retry_after(wait);
        }
        if problem.0.request_id.is_none() {
            problem.0.request_id = text("x-request-id").and_then(RequestId::parse);
        }
        problem
    }

    /// Reads an error response of which only the media type is known. As total as [`read`](Self::read).
    #[must_use]
    pub fn read_document(&self, status: u16, content_type: Option<&str>, body: &[u8]) -> Problem {
        let members = if body.len() <= self.document_bytes_max {
            members(content_type, body)
        } else {
            None
        };
        let problem = match members {
            Some(members) => decode(status, members),
            None => bare(status),
        };
        match &self.base {
            Some(base) => problem.resolved(base),
            None => problem,
        }
    }
}

impl Default for ProblemReader {
    fn default() -> Self {
        Self::new()
    }
}

impl Problem {
    /// Reads an error response as a [`ProblemReader`] with nothing set does.
    #[must_use]
    pub fn read(status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        ProblemReader::new().read(status, headers, body)
    }

    /// Reads an error response of which only the media type is known. As total as [`read`](Self::read).
    #[must_use]
    pub fn read_document(status: u16, content_type: Option<&str>, body: &[u8]) -> Self {
        ProblemReader::new().read_document(status, content_type, body)
    }
}

/// A `Retry-After` as a time to wait: none for a date without a clock, nothing for one that has passed.
fn wait(value: &str, now: Option<SystemTime>) -> Option<Duration> {
    // `parse` takes a sign, which RFC 9110 §10.2.3 does not.
    let seconds = value.bytes().all(|b| b.is_ascii_digit());
    let wait = match value.parse::<u64>() {
        Ok(number) if seconds => Duration::from_secs(number),
        _ => httpdate::parse_http_date(value)
            .ok()?
            .duration_since(now?)
            .unwrap_or_default(),
    };
    Some(wait.min(WAIT_MAX))
}

/// What the status alone says.
fn bare(status: u16) -> Problem {
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

/// A media type without its parameters.
pub(crate) fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// The members of a body that is, or passes for, a problem document.
fn members(content_type: Option<&str>, body: &[u8]) -> Option<Members> {
    let essence = content_type.map(essence);
    let declared = essence.is_some_and(|essence| essence.eq_ignore_ascii_case(super::PROBLEM_JSON));
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

fn decode(status: u16, members: Members) -> Problem {
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

/// A wait in seconds; a fraction is kept, a negative or boundless number is not.
pub(super) fn seconds(value: &Value) -> Option<Duration> {
    let seconds = value.as_f64().filter(|seconds| *seconds >= 0.0)?;
    Duration::try_from_secs_f64(seconds.min(WAIT_MAX.as_secs_f64())).ok()
}

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
    fn d6_nothing_that_a_document_points_at_is_fetched() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let body = format!(
            r##"{{"type":"{base}/type","instance":"{base}/instance","$ref":"{base}/ref"}}"##
        );
        let problem = ProblemReader::new()
            .base(format!("{base}/orders"))
            .read_document(404, PROBLEM, body.as_bytes());
        assert_eq!(problem.type_uri(), format!("{base}/type"));
        assert_eq!(problem.to_string(), "404 not_found");
        let nobody = listener.accept().unwrap_err();
        assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
    }

    #[test]
    fn d7_relative_references_resolve_at_the_address_that_answered() {
        let reader = ProblemReader::new().base("https://api.example.com/v1/orders/7?x=1");
        let read = |body: &str| reader.read_document(404, PROBLEM, body.as_bytes());
        let problem = read(r##"{"type":"../problems/gone","instance":"#here"}"##);
        assert_eq!(
            problem.type_uri(),
            "https://api.example.com/v1/problems/gone"
        );
        assert_eq!(
            problem.instance(),
            Some("https://api.example.com/v1/orders/7?x=1#here")
        );
        let kept = read(r##"{"type":"https://Other.example/../x#Y","instance":"urn:uuid:0"}"##);
        assert_eq!(kept.type_uri(), "https://Other.example/../x#Y");
        assert_eq!(kept.instance(), Some("urn:uuid:0"));
        assert_eq!(read("{}").type_uri(), "about:blank");
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
    fn d9_of_a_repeated_member_the_last_is_taken() {
        assert_eq!(read(r#"{"code":"a","code":"b"}"#).code(), "b");
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

    #[test]
    fn headers_complete_the_document() {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", " 7 ".parse().unwrap());
        headers.insert("x-request-id", "r-9".parse().unwrap());
        let problem = Problem::read(429, &headers, b"slow down");
        assert_eq!(problem.retry(), Retry::After(Duration::from_secs(7)));
        assert_eq!(problem.request_id().unwrap().as_str(), "r-9");
        for hostile in [
            "-1",
            "+7",
            "99999999999999999999",
            "2.5",
            "Fri, 31 Dec 9999 23:59:59 GMT", // no clock to count it from
        ] {
            headers.insert("retry-after", hostile.parse().unwrap());
            assert_eq!(
                Problem::read(429, &headers, b"").retry(),
                Retry::Backoff,
                "{hostile}"
            );
        }
    }

    #[test]
    fn a_date_to_retry_after_counts_from_the_answers_own_clock() {
        let mut headers = HeaderMap::new();
        let mut retry = |after: &str, date: Option<&str>, reader: &ProblemReader| {
            headers.insert("retry-after", after.parse().unwrap());
            match date {
                Some(date) => headers.insert("date", date.parse().unwrap()),
                None => headers.remove("date"),
            };
            reader.read(503, &headers, b"").retry()
        };
        let date = Some("Sun, 06 Nov 1994 08:49:30 GMT");
        for form in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(
                retry(form, date, &ProblemReader::new()),
                Retry::After(Duration::from_secs(7)),
                "{form}"
            );
            assert_eq!(
                retry(form, None, &ProblemReader::new()),
                Retry::Backoff,
                "{form}"
            );
            let late = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_776);
            assert_eq!(
                retry(form, None, &ProblemReader::new().arrived(late)),
                Retry::After(Duration::from_secs(1)),
                "{form}"
            );
        }
        let past = "Sun, 06 Nov 1994 08:00:00 GMT";
        assert_eq!(
            retry(past, date, &ProblemReader::new()),
            Retry::After(Duration::ZERO)
        );
        let far = "Fri, 31 Dec 9999 23:59:59 GMT";
        assert_eq!(
            retry(far, date, &ProblemReader::new()),
            Retry::After(WAIT_MAX)
        );
    }

    #[test]
    fn the_bound_on_documents_can_be_set() {
        let body = br#"{"type":"x","code":"gone"}"#;
        let read = |bytes| {
            ProblemReader::new()
                .document_bytes_max(bytes)
                .read_document(404, PROBLEM, body)
        };
        assert_eq!(read(body.len()).code(), "gone");
        assert_eq!(read(body.len() - 1).code(), "not_found");
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        for category in Category::ALL {
            let written = Problem::new(category, "some_code")
                .with_title("A title")
                .with_type("/problems/some_code")
                .with_detail("detail")
                .with_retry_after(Duration::from_secs(3))
                .with_violation(
                    Violation::query("limit", "c")
                        .with_detail("d")
                        .with_param("max", 100),
                )
                .with_request_id(RequestId::generate());
            let read = Problem::read_document(written.status(), PROBLEM, &written.to_bytes());
            assert_eq!(read.to_bytes(), written.to_bytes(), "{category}");
            assert_eq!(read.retry(), written.retry(), "{category}");
            assert_eq!(read.outcome(), written.outcome(), "{category}");
        }
    }
}
