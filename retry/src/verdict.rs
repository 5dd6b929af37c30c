//! One judgement about an attempt, read by the retry layer, the breaker and the budget alike.

use std::time::Duration;

/// What an attempt's outcome means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The other side did its job, whatever it answered: credits the budget, counts as health.
    Success,
    /// Says nothing about the other side: nothing is counted and nothing is tried again.
    Ignore,
    /// Failed in a way that may pass. The duration is the server's own wish for a wait, if it named one.
    Retryable(Kind, Option<Duration>),
    /// Failed, and asking again would not help.
    Failure(Kind),
}

/// The sort of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// No answer: refused, reset or broken on the way.
    Transient,
    /// No answer in time.
    Timeout,
    /// The server gave up waiting for the request (408): a stale connection, or a slow sender.
    RequestTimeout,
    /// The server asks this caller to slow down (429).
    Throttled,
    /// The server has too much to do (503).
    Overloaded,
    /// The server failed (500, 502, 504 and their like).
    Server,
    /// An earlier attempt of the same call is still running there (409 with `Retry-After`).
    InFlight,
    /// Something else is in the way for now, says the server, and will not be later.
    Conflict,
    /// Our own breaker refused the attempt.
    CircuitOpen,
    /// Our own throttle refused the attempt, because the server has been refusing too many.
    SelfThrottled,
    /// The call's deadline has passed.
    DeadlineExceeded,
}

impl Kind {
    pub(crate) const ALL: [Self; 11] = [
        Self::Transient,
        Self::Timeout,
        Self::RequestTimeout,
        Self::Throttled,
        Self::Overloaded,
        Self::Server,
        Self::InFlight,
        Self::Conflict,
        Self::CircuitOpen,
        Self::SelfThrottled,
        Self::DeadlineExceeded,
    ];

    pub(crate) const COUNT: usize = Self::ALL.len();

    /// The place in [`ALL`](Self::ALL).
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// The name used in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Timeout => "timeout",
            Self::RequestTimeout => "request_timeout",
            Self::Throttled => "throttled",
            Self::Overloaded => "overloaded",
            Self::Server => "server",
            Self::InFlight => "in_flight",
            Self::Conflict => "conflict",
            Self::CircuitOpen => "circuit_open",
            Self::SelfThrottled => "self_throttled",
            Self::DeadlineExceeded => "deadline_exceeded",
        }
    }

    /// Whether a further attempt could be of use. Refusals made on this side are final, whatever a classifier says.
    pub const fn is_retryable(self) -> bool {
        !matches!(
            self,
            Self::CircuitOpen | Self::SelfThrottled | Self::DeadlineExceeded
        )
    }

    /// Whether this speaks against the health of the other side.
    ///
    /// A slow or throttled caller, a call that is still running, and a refusal or a deadline of our own do not: one caller's
    /// haste must not open the circuit for everybody.
    pub const fn is_unhealthy(self) -> bool {
        matches!(
            self,
            Self::Transient | Self::Timeout | Self::Overloaded | Self::Server
        )
    }
}

impl Verdict {
    /// What the outcome says about the other side's health: good, bad, or nothing.
    pub const fn health(self) -> Option<bool> {
        match self {
            Self::Success => Some(true),
            Self::Ignore => None,
            Self::Retryable(kind, _) | Self::Failure(kind) => {
                if kind.is_unhealthy() {
                    Some(false)
                } else {
                    None
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_stands_where_its_index_says() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), index, "{kind:?}");
        }
    }
}
