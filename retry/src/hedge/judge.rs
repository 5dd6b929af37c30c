//! Which HTTP responses end a race.

use http::StatusCode;

use crate::{
    classify::{Classify, HttpClassify},
    verdict::{Kind, Verdict},
};

/// [`HttpClassify`] for attempts that are under way together: a 409 does not end the race.
///
/// A server that tells repetitions by their idempotency key refuses the one that comes while the other is under way
/// with 409 (`draft-ietf-httpapi-idempotency-key-header`), with or without a `Retry-After`. Were that an answer, the
/// attempt that is doing the work would be dropped for it. So a 409 stands back while another attempt is under way, and
/// no further hedge is sent; when no other is, it is the answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpRaceClassify;

fn race(status: StatusCode, verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Success if status == StatusCode::CONFLICT => {
            Verdict::Retryable(Kind::InFlight, None)
        }
        verdict => verdict,
    }
}

impl<B, E: 'static> Classify<http::Response<B>, E> for HttpRaceClassify {
    fn classify(&self, outcome: Result<&http::Response<B>, &E>) -> Verdict {
        let verdict = HttpClassify.classify(outcome);
        outcome.map_or(verdict, |response| race(response.status(), verdict))
    }
}

#[cfg(feature = "reqwest")]
impl<E: 'static> Classify<reqwest::Response, E> for HttpRaceClassify {
    fn classify(&self, outcome: Result<&reqwest::Response, &E>) -> Verdict {
        let verdict = HttpClassify.classify(outcome);
        outcome.map_or(verdict, |response| race(response.status(), verdict))
    }
}
