//! Which answers are kept: the handler has answered, and now its effects and its words part ways or stay together.

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Effects and record commit together; a retry gets this answer.
    Commit,
    /// Effects are rolled back, the answer is recorded; a retry gets this answer.
    Record,
    /// Effects are rolled back and nothing is recorded; a retry runs again.
    Release,
}

/// Decides per status. A closure `Fn(u16) -> Keep` is a policy too.
pub trait OutcomePolicy: Send + Sync + 'static {
    /// What becomes of an answer with this HTTP status.
    fn keep(&self, status: u16) -> Keep;
}

/// The default: success commits, a refusal that asking again cannot change is recorded, everything else is released.
///
/// 5xx is released because the transaction took the effects back: running again is safe and may work. So are the 4xx
/// that speak of now rather than of the request: 401, 403, 407, 408, 409, 421, 423, 424, 425, 428, 429 and 499.
#[derive(Debug, Clone, Copy, Default)]
pub struct TerminalOnly;

impl OutcomePolicy for TerminalOnly {
    fn keep(&self, status: u16) -> Keep {
        match status {
            ..400 => Keep::Commit,
            401 | 403 | 407 | 408 | 409 | 421 | 423 | 424 | 425 | 428 | 429 | 499 => Keep::Release,
            400..500 => Keep::Record,
            500.. => Keep::Release,
        }
    }
}

/// Success commits, everything else is released: a refused request runs again, and may be mended under the same key.
#[derive(Debug, Clone, Copy, Default)]
pub struct SuccessOnly;

impl OutcomePolicy for SuccessOnly {
    fn keep(&self, status: u16) -> Keep {
        if status < 400 {
            Keep::Commit
        } else {
            Keep::Release
        }
    }
}

/// As version 1 of Stripe's interface documents it: once execution began its answer stands, 500s included.
#[derive(Debug, Clone, Copy, Default)]
pub struct StripeV1;

impl OutcomePolicy for StripeV1 {
    fn keep(&self, status: u16) -> Keep {
        if status < 400 {
            Keep::Commit
        } else {
            Keep::Record
        }
    }
}

impl<F: Fn(u16) -> Keep + Send + Sync + 'static> OutcomePolicy for F {
    fn keep(&self, status: u16) -> Keep {
        self(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_of_a_failure_never_commit_under_a_preset() {
        for status in 400..1000 {
            assert_ne!(TerminalOnly.keep(status), Keep::Commit);
            assert_ne!(SuccessOnly.keep(status), Keep::Commit);
            assert_ne!(StripeV1.keep(status), Keep::Commit);
        }
    }

    #[test]
    fn refusals_are_kept_and_passing_troubles_are_not() {
        for (status, keep) in [
            (200, Keep::Commit),
            (302, Keep::Commit),
            (400, Keep::Record),
            (404, Keep::Record),
            (422, Keep::Record),
            (402, Keep::Record),
        ] {
            assert_eq!(TerminalOnly.keep(status), keep, "{status}");
        }
        for status in [401, 403, 408, 409, 425, 429, 500, 503, 504] {
            assert_eq!(TerminalOnly.keep(status), Keep::Release, "{status}");
        }
        assert_eq!(StripeV1.keep(500), Keep::Record);
        let all = |_: u16| Keep::Commit;
        assert_eq!(all.keep(500), Keep::Commit);
    }
}
