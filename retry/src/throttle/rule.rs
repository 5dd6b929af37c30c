//! The rule itself: pure.

use crate::verdict::{Kind, Verdict};

/// The share of attempts to refuse here, from 0 to 1, when the other side accepted `accepts` of `requests`:
/// `max(0, (requests − K·accepts) / (requests + 1))`.
///
/// Google's book *Site Reliability Engineering* gives it in the chapter on handling overload. `requests` counts what
/// was refused here too, so that the share grows while nothing gets better.
///
/// ```
/// use mainstay_retry::throttle::rejection_probability;
///
/// assert_eq!(rejection_probability(100, 50, 2.0), 0.0); // half is accepted: all may go
/// assert_eq!(rejection_probability(99, 12, 2.0), 0.75); // an eighth: four times too much with what it refuses
/// ```
pub fn rejection_probability(requests: u64, accepts: u64, k: f64) -> f64 {
    // Counts are far below 2^52: nothing is lost in a float.
    let (requests, accepts) = (requests as f64, accepts as f64);
    ((requests - k * accepts) / (requests + 1.0)).clamp(0.0, 1.0)
}

/// What an outcome says about whether the other side took the work: yes, no, or nothing.
///
/// Only answers count. Silence, such as a refused connection or a timeout, may have many reasons, and is for a circuit
/// breaker; a refusal of our own says nothing at all.
pub(super) const fn accepted(verdict: Verdict) -> Option<bool> {
    match verdict {
        Verdict::Success => Some(true),
        Verdict::Ignore => None,
        Verdict::Retryable(kind, _) | Verdict::Failure(kind) => match kind {
            Kind::Throttled | Kind::Overloaded => Some(false),
            Kind::Transient
            | Kind::Timeout
            | Kind::CircuitOpen
            | Kind::SelfThrottled
            | Kind::DeadlineExceeded => None,
            _ => Some(true),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_gives_these_shares() {
        let cases = [
            (0, 0, 2.0, 0.0),
            (1, 0, 2.0, 0.5),
            (9, 0, 2.0, 0.9),
            (99, 0, 2.0, 0.99),
            (100, 50, 2.0, 0.0),
            (99, 12, 2.0, 0.75),
            (199, 50, 2.0, 0.495),
            (100, 100, 1.0, 0.0),
            (99, 50, 1.0, 0.49),
            (999, 500, 1.1, 0.449),
            (5, 9, 2.0, 0.0), // answers to what was sent before the window
            (u64::MAX, 0, 2.0, 1.0),
            (u64::MAX, u64::MAX, f64::MAX, 0.0),
        ];
        for (requests, accepts, k, share) in cases {
            let got = rejection_probability(requests, accepts, k);
            assert!(
                (got - share).abs() < 1e-12,
                "{requests} {accepts} {k}: {got}"
            );
        }
    }

    #[test]
    fn only_answers_count() {
        let judge = |kind| accepted(Verdict::Retryable(kind, None));
        assert_eq!(accepted(Verdict::Success), Some(true));
        assert_eq!(accepted(Verdict::Ignore), None);
        assert_eq!(judge(Kind::Throttled), Some(false));
        assert_eq!(judge(Kind::Overloaded), Some(false));
        assert_eq!(judge(Kind::Server), Some(true));
        assert_eq!(judge(Kind::InFlight), Some(true));
        for silent in [Kind::Transient, Kind::Timeout, Kind::DeadlineExceeded] {
            assert_eq!(judge(silent), None);
        }
        for own in [Kind::CircuitOpen, Kind::SelfThrottled] {
            assert_eq!(accepted(Verdict::Failure(own)), None);
        }
    }
}
