//! What counts as failure: the one judge whose verdict the retry layer, the breaker and the budget share.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};

use crate::{
    error::own_kind,
    retry_after,
    verdict::{Kind, Verdict},
};

/// Judges the outcome of an attempt.
///
/// A closure `Fn(Result<&Res, &E>) -> Verdict` is a classifier. It is not shown this crate's own refusals: an open
/// circuit and a spent deadline are final whatever it would say. A type that implements this by hand is shown them;
/// they are not tried again either way.
pub trait Classify<Res, E> {
    /// The verdict on one attempt. Called once per attempt, on the hot path.
    fn classify(&self, outcome: Result<&Res, &E>) -> Verdict;
}

impl<F, Res, E> Classify<Res, E> for F
where
    F: Fn(Result<&Res, &E>) -> Verdict,
    E: 'static,
{
    fn classify(&self, outcome: Result<&Res, &E>) -> Verdict {
        match outcome.err().and_then(own_kind) {
            Some(kind) if !kind.is_retryable() => Verdict::Failure(kind),
            _ => self(outcome),
        }
    }
}

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
/// | open circuit, spent deadline | failure, final |
/// | attempt timed out, any other error | retryable |
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpClassify;

impl<B, E: 'static> Classify<http::Response<B>, E> for HttpClassify {
    fn classify(&self, outcome: Result<&http::Response<B>, &E>) -> Verdict {
        match outcome {
            Ok(response) => http_verdict(response.status(), response.headers()),
            Err(error) => error_verdict(error),
        }
    }
}

/// Every `Ok` is a success and every `Err` may pass: for plain code and services without a status.
#[derive(Clone, Copy, Debug, Default)]
pub struct EveryError;

impl<T, E: 'static> Classify<T, E> for EveryError {
    fn classify(&self, outcome: Result<&T, &E>) -> Verdict {
        match outcome {
            Ok(_) => Verdict::Success,
            Err(error) => error_verdict(error),
        }
    }
}

fn error_verdict<E: 'static>(error: &E) -> Verdict {
    let kind = own_kind(error).unwrap_or(Kind::Transient);
    if kind.is_retryable() {
        Verdict::Retryable(kind, None)
    } else {
        Verdict::Failure(kind)
    }
}

fn http_verdict(status: StatusCode, headers: &HeaderMap) -> Verdict {
    match status.as_u16() {
        408 => Verdict::Retryable(Kind::RequestTimeout, None),
        409 => match wait(headers) {
            Some(wait) => Verdict::Retryable(Kind::InFlight, Some(wait)),
            None => Verdict::Success,
        },
        429 => Verdict::Retryable(Kind::Throttled, wait(headers)),
        503 => Verdict::Retryable(Kind::Overloaded, wait(headers)),
        501 | 505 => Verdict::Success,
        500.. => Verdict::Retryable(Kind::Server, None),
        _ => Verdict::Success,
    }
}

fn wait(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.as_bytes();
    retry_after::parse(value, server_time(headers))
}

/// The server's own clock where it tells us, so that a skew between the machines does not become a wait.
fn server_time(headers: &HeaderMap) -> SystemTime {
    let date = headers
        .get(header::DATE)
        .and_then(|date| date.to_str().ok());
    match date.and_then(|date| httpdate::parse_http_date(date).ok()) {
        Some(date) => date,
        #[expect(
            clippy::disallowed_methods,
            reason = "a date without the server's Date has only our clock to go by"
        )]
        None => SystemTime::now(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{BoxError, CircuitOpen, DeadlineExceeded, Error};

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

    #[test]
    fn our_own_refusals_are_final_for_every_classifier() {
        let eager = |outcome: Result<&(), &Error>| match outcome {
            Ok(()) => Verdict::Success,
            Err(_) => Verdict::Retryable(Kind::Transient, None),
        };
        let open = Error::from(CircuitOpen::new("x".into(), Duration::ZERO));
        let late = Error::from(DeadlineExceeded::new(true));
        let reset = Error::Inner("reset".into());
        for (error, verdict) in [
            (open, Verdict::Failure(Kind::CircuitOpen)),
            (late, Verdict::Failure(Kind::DeadlineExceeded)),
            (reset, Verdict::Retryable(Kind::Transient, None)),
        ] {
            assert_eq!(eager.classify(Err(&error)), verdict);
            assert_eq!(
                Classify::<(), _>::classify(&EveryError, Err(&error)),
                verdict
            );
            assert_eq!(
                Classify::<http::Response<()>, _>::classify(&HttpClassify, Err(&error)),
                verdict
            );
        }
    }
}
