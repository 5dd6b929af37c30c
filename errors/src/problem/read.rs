//! The read side, which never fails: whatever a server answered, the caller gets a [`Problem`].
//!
//! RFC 9457 §3.1 asks a reader to ignore what it does not understand. Mistyped members are dropped
//! one by one, unknown ones are kept as extensions, and a body that is no problem document at all
//! still leaves what the HTTP status says.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

use super::Problem;
use super::body::members;
use super::weigh::{bare, decode};
use crate::RequestId;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Category, Retry, Violation};

    const PROBLEM: Option<&str> = Some("application/problem+json");

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
