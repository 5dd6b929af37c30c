//! What counts as failure: the one judge whose verdict the retry layer, the breaker and the budget share.

mod grpc;
mod http;

pub use self::{grpc::GrpcClassify, http::HttpClassify};
use crate::{
    error::own_kind,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{CircuitOpen, DeadlineExceeded, Error};

    #[test]
    fn our_own_refusals_are_final_for_every_classifier() {
        let eager = |outcome: Result<&(), &Error>| match outcome {
            Ok(()) => Verdict::Success,
            Err(_) => Verdict::Retryable(Kind::Transient, None),
        };
        let open = Error::from(CircuitOpen::new(std::sync::Arc::new("x".into()), 0));
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
                Classify::<::http::Response<()>, _>::classify(&HttpClassify, Err(&error)),
                verdict
            );
        }
    }
}
