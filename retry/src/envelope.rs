//! Our refusals as problem documents, for a service that answers with what its own client met.
//!
//! The documents say nothing of which dependency it was: that is for the log.

use std::time::Duration;

use mainstay_errors::{Category, Descriptor, Fault, Outcome, Retry};

use crate::error::{AttemptTimedOut, CircuitOpen, DeadlineExceeded, Error, SelfThrottled};

const CIRCUIT_OPEN: Descriptor = Descriptor::new("circuit_open", Category::Unavailable)
    .with_docs("A dependency has been failing, and is not asked until it has had time to recover.")
    .with_outcome(Outcome::NotApplied)
    .with_owner("mainstay_retry::CircuitOpen");

const SELF_THROTTLED: Descriptor = Descriptor::new("dependency_overloaded", Category::Unavailable)
    .with_docs("A dependency has been refusing work, and is asked less until it accepts more.")
    .with_outcome(Outcome::NotApplied)
    .with_owner("mainstay_retry::SelfThrottled");

const DEADLINE_EXCEEDED: Descriptor =
    Descriptor::new("deadline_exceeded", Category::DeadlineExceeded)
        .with_docs("There was not enough time to finish the request.")
        .with_owner("mainstay_retry::DeadlineExceeded");

const ATTEMPT_TIMED_OUT: Descriptor =
    Descriptor::new("attempt_timed_out", Category::DeadlineExceeded)
        .with_docs("A dependency did not answer in time.")
        .with_owner("mainstay_retry::AttemptTimedOut");

const DEPENDENCY_FAILED: Descriptor = Descriptor::new("dependency_failed", Category::Unavailable)
    .with_docs("A dependency could not be reached, or did not answer.")
    .with_retry(Retry::SameKeyOnly)
    .with_outcome(Outcome::Unknown)
    .with_owner("mainstay_retry::Error");

impl Fault for CircuitOpen {
    const CATALOG: &'static [Descriptor] = &[CIRCUIT_OPEN];

    fn descriptor(&self) -> &'static Descriptor {
        &CIRCUIT_OPEN
    }

    fn retry(&self) -> Retry {
        match (self.attempted(), self.retry_after()) {
            (true, _) => Retry::SameKeyOnly,
            (false, Duration::ZERO) => Retry::Backoff,
            (false, wait) => Retry::After(wait),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        Some(CircuitOpen::retry_after(self)).filter(|wait| !wait.is_zero())
    }

    fn outcome(&self) -> Outcome {
        if self.attempted() {
            Outcome::Unknown
        } else {
            Outcome::NotApplied
        }
    }
}

impl Fault for SelfThrottled {
    const CATALOG: &'static [Descriptor] = &[SELF_THROTTLED];

    fn descriptor(&self) -> &'static Descriptor {
        &SELF_THROTTLED
    }

    fn retry(&self) -> Retry {
        if self.attempted() {
            Retry::SameKeyOnly
        } else {
            Retry::Backoff
        }
    }

    fn outcome(&self) -> Outcome {
        if self.attempted() {
            Outcome::Unknown
        } else {
            Outcome::NotApplied
        }
    }
}

impl Fault for DeadlineExceeded {
    const CATALOG: &'static [Descriptor] = &[DEADLINE_EXCEEDED];

    fn descriptor(&self) -> &'static Descriptor {
        &DEADLINE_EXCEEDED
    }

    fn outcome(&self) -> Outcome {
        if self.started() {
            Outcome::Unknown
        } else {
            Outcome::NotApplied
        }
    }
}

impl Fault for AttemptTimedOut {
    const CATALOG: &'static [Descriptor] = &[ATTEMPT_TIMED_OUT];

    fn descriptor(&self) -> &'static Descriptor {
        &ATTEMPT_TIMED_OUT
    }
}

impl Fault for Error {
    const CATALOG: &'static [Descriptor] = &[
        CIRCUIT_OPEN,
        SELF_THROTTLED,
        DEADLINE_EXCEEDED,
        ATTEMPT_TIMED_OUT,
        DEPENDENCY_FAILED,
    ];

    fn descriptor(&self) -> &'static Descriptor {
        match self {
            Self::CircuitOpen(_) => &CIRCUIT_OPEN,
            Self::SelfThrottled(_) => &SELF_THROTTLED,
            Self::DeadlineExceeded(_) => &DEADLINE_EXCEEDED,
            Self::AttemptTimedOut(_) => &ATTEMPT_TIMED_OUT,
            Self::Inner(_) => &DEPENDENCY_FAILED,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::CircuitOpen(error) => Fault::retry(error),
            Self::SelfThrottled(error) => Fault::retry(error),
            Self::DeadlineExceeded(error) => Fault::retry(error),
            Self::AttemptTimedOut(error) => Fault::retry(error),
            Self::Inner(_) => self.descriptor().retry(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::CircuitOpen(error) => Fault::retry_after(error),
            Self::SelfThrottled(_)
            | Self::DeadlineExceeded(_)
            | Self::AttemptTimedOut(_)
            | Self::Inner(_) => None,
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::CircuitOpen(error) => Fault::outcome(error),
            Self::SelfThrottled(error) => Fault::outcome(error),
            Self::DeadlineExceeded(error) => Fault::outcome(error),
            Self::AttemptTimedOut(error) => Fault::outcome(error),
            Self::Inner(_) => self.descriptor().outcome(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::Name;

    fn name(name: &str) -> Name {
        Arc::new(name.into())
    }

    #[test]
    fn an_open_circuit_tells_when_to_come_back_and_that_nothing_happened() {
        let open = CircuitOpen::new(name("ledger-db-7"), 3_000_000_000);
        let problem = Error::from(open).to_problem();
        assert_eq!((problem.status(), problem.code()), (503, "circuit_open"));
        assert_eq!(problem.retry_after(), Some(Duration::from_secs(3)));
        assert_eq!(problem.outcome(), Outcome::NotApplied);
        let sent = String::from_utf8(problem.to_bytes().to_vec()).unwrap();
        assert!(
            !sent.contains("ledger"),
            "the dependency's name is for the log: {sent}"
        );
    }

    #[test]
    fn a_refusal_after_an_attempt_does_not_claim_that_nothing_happened() {
        let mut error = Error::from(CircuitOpen::new(name("x"), 3_000_000_000));
        crate::error::mark_attempted(&mut error);
        assert_eq!(Fault::outcome(&error), Outcome::Unknown);
        assert_eq!(Fault::retry(&error), Retry::SameKeyOnly);
    }

    #[test]
    fn a_throttle_of_our_own_is_the_dependencys_overload_and_nothing_happened() {
        let mut error = Error::from(SelfThrottled::new(name("ledger-db-7")));
        let problem = error.to_problem();
        assert_eq!(
            (problem.status(), problem.code()),
            (503, "dependency_overloaded")
        );
        assert_eq!(problem.outcome(), Outcome::NotApplied);
        assert_eq!(problem.retry(), Retry::Backoff);
        let sent = String::from_utf8(problem.to_bytes().to_vec()).unwrap();
        assert!(!sent.contains("ledger"), "{sent}");
        crate::error::mark_attempted(&mut error);
        assert_eq!(error.to_problem().outcome(), Outcome::Unknown);
    }

    #[test]
    fn timeouts_leave_the_outcome_open_unless_nothing_was_sent() {
        let outcome = |error: Error| error.to_problem().outcome();
        assert_eq!(
            outcome(DeadlineExceeded::new(false).into()),
            Outcome::NotApplied
        );
        assert_eq!(
            outcome(DeadlineExceeded::new(true).into()),
            Outcome::Unknown
        );
        assert_eq!(
            outcome(AttemptTimedOut::new(Duration::ZERO).into()),
            Outcome::Unknown
        );
        assert_eq!(outcome(Error::Inner("reset".into())), Outcome::Unknown);
        let late = Error::from(DeadlineExceeded::new(true)).to_problem();
        assert_eq!(late.status(), 504);
    }
}
