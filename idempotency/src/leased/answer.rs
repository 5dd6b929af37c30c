//! What a service answers over HTTP in a handler's place, as the layer of the Local protocol does.

use super::{Claimed, Lease, LeaseError, LeasedStore};
use crate::{Age, Error, ErrorKind, IdempotencyError, Recorded};

/// A claim that is not refused.
#[derive(Debug)]
pub enum Admitted<S: LeasedStore> {
    /// Work, then [complete](Lease::complete).
    Run(Lease<S>),
    /// Send this, marked `Idempotent-Replayed: true`.
    Replay(Recorded),
}

impl<S: LeasedStore> Claimed<S> {
    /// The lease or the record; else the problem that the layer would answer with: 409 in flight, 422 for another request,
    /// 412 or 400 for a key's own time, 503 for what nobody knows.
    ///
    /// # Errors
    /// Those.
    pub fn admitted(self) -> Result<Admitted<S>, IdempotencyError> {
        Err(match self {
            Self::Run(lease) => return Ok(Admitted::Run(lease)),
            Self::Replay(recorded) => return Ok(Admitted::Replay(recorded)),
            Self::InFlight { .. } => IdempotencyError::KeyInFlight,
            Self::Mismatch => IdempotencyError::KeyReused,
            Self::Unknown => unknown("a remote step of an earlier attempt"),
            Self::Refused(Age::FromTheFuture) => IdempotencyError::KeyFromTheFuture,
            Self::Refused(_) => IdempotencyError::KeyExpired,
        })
    }
}

impl<E> LeaseError<E> {
    /// The step's own error, which its service answers; else the problem to answer with. A store that fails between steps, and
    /// a step that takes too long, leave done what was done, so that is 503 with `outcome: unknown`: the same key finds out.
    ///
    /// # Errors
    /// That problem.
    pub fn of_step(self) -> Result<E, IdempotencyError> {
        Err(match self {
            Self::Step(error) => return Ok(error),
            Self::Fenced => IdempotencyError::KeyInFlight,
            Self::Unknown => unknown("a remote step of an earlier attempt"),
            Self::Store(error) => IdempotencyError::OutcomeUnknown(error),
            Self::TimedOut => unknown("a step took longer than it may"),
            Self::NotKept(reason) => unknown(format!("a step's result: {reason}")),
        })
    }
}

/// For a cause that no asking again at once would mend.
pub(super) fn unknown(
    cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> IdempotencyError {
    IdempotencyError::OutcomeUnknown(Error::new(ErrorKind::Corrupt, cause))
}

#[cfg(all(test, feature = "memory"))]
mod tests {
    use mainstay_errors::{Error as Fault, Outcome, Problem};

    use super::*;
    use crate::leased::MemoryStore;

    #[test]
    fn each_refusal_is_the_problem_that_the_layer_has_for_it() {
        type Found = Claimed<MemoryStore>;
        for (found, status, code) in [
            (
                Found::InFlight {
                    retry_after: std::time::Duration::from_secs(1),
                },
                409,
                "idempotency_key_in_flight",
            ),
            (Found::Mismatch, 422, "idempotency_key_reused"),
            (Found::Unknown, 503, "idempotency_outcome_unknown"),
            (Found::Refused(Age::Expired), 412, "idempotency_key_expired"),
            (
                Found::Refused(Age::FromTheFuture),
                400,
                "idempotency_key_malformed",
            ),
        ] {
            let problem = Problem::from(Fault::from(found.admitted().unwrap_err()));
            assert_eq!((problem.status(), problem.code()), (status, code));
        }
        assert_eq!(LeaseError::Step(17).of_step().unwrap(), 17);
        // Other steps are done, whatever became of this one.
        for (error, status) in [
            (LeaseError::<()>::Fenced, 409),
            (LeaseError::Unknown, 503),
            (LeaseError::TimedOut, 503),
            (LeaseError::Store(ErrorKind::Unavailable.into()), 503),
        ] {
            let problem = Problem::from(Fault::from(error.of_step().unwrap_err()));
            assert_eq!(
                (problem.status(), problem.outcome()),
                (status, Outcome::Unknown)
            );
        }
    }
}
