//! HTTP responses.

use http::{Extensions, HeaderMap, StatusCode, header};

use super::{Classify, error_verdict};
use crate::{
    problem, retry_after,
    verdict::{Kind, Verdict},
};

/// Judges HTTP responses by status, and treats an error as an answer that never came.
///
/// | outcome | verdict |
/// |---|---|
/// | 1xx–4xx other than below | success: the server did its job; a caller's mistake says nothing against its health |
/// | 408 | retryable: the request did not get there in time, which may be its sender's fault |
/// | 409 with `Retry-After` | retryable: an earlier attempt with the same idempotency key is still running |
/// | 429 | retryable, throttled; `Retry-After` heeded |
/// | 503 | retryable, overloaded; `Retry-After` heeded |
/// | 501, 505 | success: it will not learn to by tomorrow, and is not ill |
/// | other 5xx | retryable, server |
/// | open circuit, throttle of our own, spent deadline | failure, final |
/// | attempt timed out, any other error | retryable |
///
/// The wait is what [`retry_after::wait`] finds in the headers.
///
/// A server that answers with the problem documents of [`mainstay_errors`] says itself whether to come back. With a
/// [`ReadProblemLayer`](crate::ReadProblemLayer) below the retry layer its advice goes before the table: nothing is
/// tried again that took effect, that will fail the same way, or that needs other credentials or another state; what
/// may be tried again is, whatever the status; and what may be only under the same key is, if it had one or its method
/// is idempotent.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpClassify;

impl<B, E: 'static> Classify<http::Response<B>, E> for HttpClassify {
    fn classify(&self, outcome: Result<&http::Response<B>, &E>) -> Verdict {
        match outcome {
            Ok(response) => judge(response.status(), response.headers(), response.extensions()),
            Err(error) => error_verdict(error),
        }
    }
}

#[cfg(feature = "reqwest")]
impl<E: 'static> Classify<reqwest::Response, E> for HttpClassify {
    fn classify(&self, outcome: Result<&reqwest::Response, &E>) -> Verdict {
        match outcome {
            Ok(response) => judge(response.status(), response.headers(), response.extensions()),
            Err(error) => error_verdict(error),
        }
    }
}

#[inline]
fn judge(status: StatusCode, headers: &HeaderMap, extensions: &Extensions) -> Verdict {
    if status.as_u16() < 400 {
        return Verdict::Success;
    }
    let verdict = by_status(status, headers);
    problem::advised(verdict, status, extensions)
}

fn by_status(status: StatusCode, headers: &HeaderMap) -> Verdict {
    match status.as_u16() {
        408 => Verdict::Retryable(Kind::RequestTimeout, None),
        409 if headers.contains_key(header::RETRY_AFTER) => match retry_after::wait(headers) {
            Some(wait) => Verdict::Retryable(Kind::InFlight, Some(wait)),
            None => Verdict::Success,
        },
        429 => Verdict::Retryable(Kind::Throttled, retry_after::wait(headers)),
        503 => Verdict::Retryable(Kind::Overloaded, retry_after::wait(headers)),
        501 | 505 => Verdict::Success,
        500.. => Verdict::Retryable(Kind::Server, None),
        _ => Verdict::Success,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::BoxError;

    fn response(status: u16, headers: &[(&str, &str)]) -> Verdict {
        let mut response = http::Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let response = response.body(()).unwrap();
        HttpClassify.classify(Ok::<_, &BoxError>(&response))
    }

    #[test]
    fn statuses_have_their_verdicts() {
        use Verdict::{Retryable, Success};
        let cases = [
            (200, Success),
            (304, Success),
            (400, Success),
            (404, Success),
            (409, Success),
            (408, Retryable(Kind::RequestTimeout, None)),
            (429, Retryable(Kind::Throttled, None)),
            (500, Retryable(Kind::Server, None)),
            (501, Success),
            (502, Retryable(Kind::Server, None)),
            (503, Retryable(Kind::Overloaded, None)),
            (504, Retryable(Kind::Server, None)),
            (599, Retryable(Kind::Server, None)),
        ];
        for (status, verdict) in cases {
            assert_eq!(response(status, &[]), verdict, "{status}");
        }
    }

    #[test]
    fn retry_after_is_heeded_only_where_it_means_come_back() {
        let seven = Some(Duration::from_secs(7));
        let header = [("retry-after", "7")];
        assert_eq!(
            response(429, &header),
            Verdict::Retryable(Kind::Throttled, seven)
        );
        assert_eq!(
            response(503, &header),
            Verdict::Retryable(Kind::Overloaded, seven)
        );
        assert_eq!(
            response(409, &header),
            Verdict::Retryable(Kind::InFlight, seven)
        );
        assert_eq!(
            response(500, &header),
            Verdict::Retryable(Kind::Server, None)
        );
        assert_eq!(response(301, &header), Verdict::Success);
        assert_eq!(
            response(503, &[("retry-after", "-1")]),
            Verdict::Retryable(Kind::Overloaded, None)
        );
    }

    #[test]
    fn a_date_is_read_on_the_servers_clock() {
        let headers = [
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("retry-after", "Sun, 06 Nov 1994 08:49:40 GMT"),
        ];
        let expected = Verdict::Retryable(Kind::Overloaded, Some(Duration::from_secs(3)));
        assert_eq!(response(503, &headers), expected);
    }
}
