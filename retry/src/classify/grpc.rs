//! gRPC over HTTP/2, by the response's head.

use http::{HeaderMap, HeaderName, StatusCode};

use super::{Classify, error_verdict};
use crate::{
    retry_after::{Pushback, pushback},
    verdict::{Kind, Verdict},
};

/// Judges gRPC responses as gRFC A6 does: by the status of a response that has only trailers, which servers send for a
/// call that failed before its first message.
///
/// Such a status comes with the head, so nothing of the body is read. A response whose head has no status is
/// *committed*: messages follow, and how they end cannot be known before they are read. It counts as success here,
/// whatever its trailers will say.
///
/// | status | verdict |
/// |---|---|
/// | `UNAVAILABLE`, or an HTTP status that gRPC maps to it | retryable, overloaded |
/// | `RESOURCE_EXHAUSTED` with a pushback | retryable, throttled; without one it may be a quota that is gone for good: failure |
/// | a code named by [`retry_on`](Self::retry_on) | retryable |
/// | `DEADLINE_EXCEEDED` | failure, timeout: the time was the caller's to give |
/// | `UNKNOWN`, `INTERNAL`, `DATA_LOSS` | failure, server |
/// | `CANCELLED` | says nothing |
/// | others, `ABORTED` among them | success: the server did its job; the transaction is for the caller to start anew |
/// | open circuit, spent deadline | failure, final |
/// | attempt timed out, any other error | retryable |
///
/// `grpc-retry-pushback-ms` is heeded on every retryable status: a wait before the backoff, or, when it is negative or
/// not a number, an end of the retries.
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcClassify {
    /// One bit per code.
    more: u32,
}

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The numbers of the codes that are looked at.
mod code {
    pub(super) const CANCELLED: u8 = 1;
    pub(super) const UNKNOWN: u8 = 2;
    pub(super) const DEADLINE_EXCEEDED: u8 = 4;
    pub(super) const PERMISSION_DENIED: u8 = 7;
    pub(super) const RESOURCE_EXHAUSTED: u8 = 8;
    pub(super) const UNIMPLEMENTED: u8 = 12;
    pub(super) const INTERNAL: u8 = 13;
    pub(super) const UNAVAILABLE: u8 = 14;
    pub(super) const DATA_LOSS: u8 = 15;
    pub(super) const UNAUTHENTICATED: u8 = 16;
}

impl GrpcClassify {
    /// As the table says.
    pub const fn new() -> Self {
        Self { more: 0 }
    }

    /// Tries again after this status code too, by its number: 10 is `ABORTED`. Numbers above 31 are no codes and change
    /// nothing.
    #[must_use]
    pub const fn retry_on(mut self, code: u8) -> Self {
        if code < 32 {
            self.more |= 1 << code;
        }
        self
    }

    fn names(self, code: u8) -> bool {
        code < 32 && self.more & (1 << code) != 0
    }

    fn judge(self, status: StatusCode, headers: &HeaderMap) -> Verdict {
        let code = match headers.get(STATUS) {
            Some(value) => read(value.as_bytes()),
            None if status == StatusCode::OK => return Verdict::Success,
            None => of_http(status),
        };
        if code == 0 {
            return Verdict::Success;
        }
        let pushback = headers
            .get(PUSHBACK)
            .map(|value| pushback(value.as_bytes()));
        let kind = kind(code);
        let retryable = code == code::UNAVAILABLE
            || (code == code::RESOURCE_EXHAUSTED && pushback.is_some())
            || self.names(code);
        match (retryable, pushback) {
            (true, None) => Verdict::Retryable(kind.unwrap_or(Kind::Conflict), None),
            (true, Some(Pushback::After(wait))) => {
                Verdict::Retryable(kind.unwrap_or(Kind::Conflict), Some(wait))
            }
            (false, _) | (true, Some(Pushback::Stop)) => match kind {
                Some(kind) => Verdict::Failure(kind),
                None if code == code::CANCELLED => Verdict::Ignore,
                None => Verdict::Success,
            },
        }
    }
}

impl<B, E: 'static> Classify<http::Response<B>, E> for GrpcClassify {
    fn classify(&self, outcome: Result<&http::Response<B>, &E>) -> Verdict {
        match outcome {
            Ok(response) => self.judge(response.status(), response.headers()),
            Err(error) => error_verdict(error),
        }
    }
}

/// What the code says against the server, if anything.
const fn kind(code: u8) -> Option<Kind> {
    match code {
        code::UNAVAILABLE => Some(Kind::Overloaded),
        code::RESOURCE_EXHAUSTED => Some(Kind::Throttled),
        code::DEADLINE_EXCEEDED => Some(Kind::Timeout),
        code::UNKNOWN | code::INTERNAL | code::DATA_LOSS => Some(Kind::Server),
        _ => None,
    }
}

/// A status that is not a number is `UNKNOWN`, as gRPC wants.
fn read(value: &[u8]) -> u8 {
    match value {
        [digit @ b'0'..=b'9'] => digit - b'0',
        [b'1', digit @ b'0'..=b'6'] => 10 + digit - b'0',
        _ => code::UNKNOWN,
    }
}

/// gRPC's own table for answers of proxies that know nothing of it.
fn of_http(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => code::INTERNAL,
        401 => code::UNAUTHENTICATED,
        403 => code::PERMISSION_DENIED,
        404 => code::UNIMPLEMENTED,
        429 | 502 | 503 | 504 => code::UNAVAILABLE,
        _ => code::UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::BoxError;

    fn verdict(classify: GrpcClassify, status: u16, headers: &[(&str, &str)]) -> Verdict {
        let mut response = http::Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let response = response.body(()).unwrap();
        classify.classify(Ok::<_, &BoxError>(&response))
    }

    #[test]
    fn codes_have_their_verdicts() {
        use Verdict::{Failure, Ignore, Retryable, Success};
        let cases = [
            ("0", Success),
            ("1", Ignore),
            ("2", Failure(Kind::Server)),
            ("3", Success),
            ("4", Failure(Kind::Timeout)),
            ("5", Success),
            ("7", Success),
            ("8", Failure(Kind::Throttled)),
            ("10", Success),
            ("12", Success),
            ("13", Failure(Kind::Server)),
            ("14", Retryable(Kind::Overloaded, None)),
            ("15", Failure(Kind::Server)),
            ("16", Success),
            ("17", Failure(Kind::Server)),
            ("014", Failure(Kind::Server)),
            ("", Failure(Kind::Server)),
            ("UNAVAILABLE", Failure(Kind::Server)),
        ];
        for (code, expected) in cases {
            let headers = [("grpc-status", code)];
            assert_eq!(
                verdict(GrpcClassify::new(), 200, &headers),
                expected,
                "{code:?}"
            );
        }
    }

    #[test]
    fn a_response_that_goes_on_is_committed_and_a_proxys_answer_is_mapped() {
        use Verdict::{Failure, Retryable, Success};
        let cases = [
            (200, Success),
            (400, Failure(Kind::Server)),
            (401, Success),
            (404, Success),
            (429, Retryable(Kind::Overloaded, None)),
            (500, Failure(Kind::Server)),
            (503, Retryable(Kind::Overloaded, None)),
        ];
        for (status, expected) in cases {
            assert_eq!(
                verdict(GrpcClassify::new(), status, &[]),
                expected,
                "{status}"
            );
        }
    }

    #[test]
    fn pushback_is_a_wait_or_an_end() {
        use Verdict::{Failure, Retryable};
        let wait = |millis| Some(Duration::from_millis(millis));
        let cases = [
            ("14", "5000", Retryable(Kind::Overloaded, wait(5_000))),
            ("14", "0", Retryable(Kind::Overloaded, wait(0))),
            ("14", " 5000 ", Retryable(Kind::Overloaded, wait(5_000))),
            ("14", "-1", Failure(Kind::Overloaded)),
            ("14", "not-a-number", Failure(Kind::Overloaded)),
            ("8", "20", Retryable(Kind::Throttled, wait(20))),
            ("8", "-1", Failure(Kind::Throttled)),
            ("13", "20", Failure(Kind::Server)),
        ];
        for (code, pushback, expected) in cases {
            let headers = [("grpc-status", code), ("grpc-retry-pushback-ms", pushback)];
            assert_eq!(
                verdict(GrpcClassify::new(), 200, &headers),
                expected,
                "{code} {pushback}"
            );
        }
    }

    #[test]
    fn more_codes_can_be_named() {
        let classify = GrpcClassify::new().retry_on(10).retry_on(4).retry_on(200);
        let of = |code| verdict(classify, 200, &[("grpc-status", code)]);
        assert_eq!(of("10"), Verdict::Retryable(Kind::Conflict, None));
        assert_eq!(of("4"), Verdict::Retryable(Kind::Timeout, None));
        assert_eq!(of("13"), Verdict::Failure(Kind::Server));
    }
}
