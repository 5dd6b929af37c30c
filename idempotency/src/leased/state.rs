//! The life of a leased key, without I/O: what a request finds, and what a holder may still do.
//!
//! ```text
//!           request            business transaction commits
//!  Absent ───────────▶ Claimed ─────────────────────────────▶ Done
//!     ▲  release: no     │ ▲ │ lease over, request: token + 1
//!     └──── step done ───┘ └─┘
//!                        │ nobody can tell what a remote step did
//!                        └──────────────────────────────────▶ Unknown
//! ```
//!
//! Every store follows it: the one in memory by calling it, the others by SQL and Lua that the conformance suite holds
//! against the same sentences.

use crate::{Age, Fingerprint, Recorded};

/// What a key is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum State {
    /// Never claimed.
    #[default]
    Absent,
    /// An attempt is at work, or was.
    Claimed {
        /// Of the attempt. Each one's is larger than those before it.
        token: u64,
        /// For what.
        fingerprint: Fingerprint,
        /// When others may take over, in milliseconds of the store's clock.
        until_ms: u64,
    },
    /// Given back before anything had happened. As good as absent, but it remembers which tokens are spent.
    Released {
        /// The last attempt's.
        token: u64,
    },
    /// Answered.
    Done {
        /// For what.
        fingerprint: Fingerprint,
        /// With what.
        recorded: Recorded,
    },
    /// A remote step may or may not have happened. Neither run again nor answered: somebody must look.
    Unknown {
        /// The last attempt's.
        token: u64,
        /// For what.
        fingerprint: Fingerprint,
    },
}

/// What a request with a key is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Claim it under a first token, or one larger than that given.
    Run {
        /// The largest token spent so far.
        after: Option<u64>,
    },
    /// The holder's lease is over: claim it under a larger token and go on behind the steps that are done.
    TakeOver {
        /// The token to exceed.
        after: u64,
    },
    /// Somebody is at work for that long at least.
    InFlight {
        /// What is left of the lease.
        left_ms: u64,
    },
    /// The key stands for another request.
    Mismatch,
    /// Answer with the record.
    Replay(Recorded),
    /// Nobody knows; see [`State::Unknown`].
    Unknown,
    /// The key's own time says that its record may be gone already, or that it would outlive its record.
    Refused(Age),
}

/// What a request finds. `age` is the key's ([`Key::age`](crate::Key::age)); `now_ms` is the store's clock.
///
/// A different request is told so before anything else, whatever the key is doing.
pub fn request(state: &State, fingerprint: &Fingerprint, age: Age, now_ms: u64) -> Decision {
    let new = |after| match age {
        Age::Fresh | Age::Unknown => Decision::Run { after },
        old @ (Age::Expired | Age::FromTheFuture) => Decision::Refused(old),
    };
    match state {
        State::Absent => new(None),
        State::Released { token } => new(Some(*token)),
        State::Claimed {
            fingerprint: of, ..
        }
        | State::Done {
            fingerprint: of, ..
        }
        | State::Unknown {
            fingerprint: of, ..
        } if !of.matches(fingerprint) => Decision::Mismatch,
        State::Claimed {
            token, until_ms, ..
        } => match until_ms.checked_sub(now_ms) {
            None | Some(0) => Decision::TakeOver { after: *token },
            Some(left_ms) => Decision::InFlight { left_ms },
        },
        State::Done { recorded, .. } => Decision::Replay(recorded.clone()),
        State::Unknown { .. } => Decision::Unknown,
    }
}

/// What a holder wants to do to its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Hold it until then.
    Renew {
        /// Milliseconds of the store's clock.
        until_ms: u64,
    },
    /// The answer is there.
    Complete(Recorded),
    /// Stop. Where a step is done, the key stays claimed with its lease over, so that the next attempt goes on behind it.
    Release {
        /// Whether any step is done or has begun.
        begun: bool,
        /// The store's clock.
        now_ms: u64,
    },
    /// A remote step's outcome is not known.
    Lose,
}

/// The state behind a holder's change; `None` when its token is not the key's: another attempt has taken over, and
/// nothing of this one may take effect.
pub fn change(state: &State, token: u64, change: Change) -> Option<State> {
    let State::Claimed {
        token: current,
        fingerprint,
        ..
    } = state
    else {
        return None;
    };
    if *current != token {
        return None;
    }
    let fingerprint = *fingerprint;
    Some(match change {
        Change::Renew { until_ms } => State::Claimed {
            token,
            fingerprint,
            until_ms,
        },
        Change::Complete(recorded) => State::Done {
            fingerprint,
            recorded,
        },
        Change::Release { begun: false, .. } => State::Released { token },
        Change::Release {
            begun: true,
            now_ms,
        } => State::Claimed {
            token,
            fingerprint,
            until_ms: now_ms,
        },
        Change::Lose => State::Unknown { token, fingerprint },
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    fn of(body: &str) -> Fingerprint {
        Fingerprint::new("POST", "/", body)
    }

    fn answer() -> Recorded {
        Recorded {
            status: 201,
            headers: HeaderMap::new(),
            body: Bytes::from_static(b"done"),
        }
    }

    fn claimed(token: u64, until_ms: u64) -> State {
        State::Claimed {
            token,
            fingerprint: of("this"),
            until_ms,
        }
    }

    #[test]
    fn each_request_finds_what_the_table_says() {
        let done = State::Done {
            fingerprint: of("this"),
            recorded: answer(),
        };
        let unknown = State::Unknown {
            token: 3,
            fingerprint: of("this"),
        };
        let run = |after| Decision::Run { after };
        for (state, body, age, expected) in [
            (State::Absent, "this", Age::Fresh, run(None)),
            (State::Absent, "this", Age::Unknown, run(None)),
            (
                State::Absent,
                "this",
                Age::Expired,
                Decision::Refused(Age::Expired),
            ),
            (
                State::Absent,
                "this",
                Age::FromTheFuture,
                Decision::Refused(Age::FromTheFuture),
            ),
            (
                State::Released { token: 3 },
                "that",
                Age::Unknown,
                run(Some(3)),
            ),
            (
                State::Released { token: 3 },
                "this",
                Age::Expired,
                Decision::Refused(Age::Expired),
            ),
            (
                claimed(3, 101),
                "this",
                Age::Fresh,
                Decision::InFlight { left_ms: 1 },
            ),
            (
                claimed(3, 100),
                "this",
                Age::Fresh,
                Decision::TakeOver { after: 3 },
            ),
            (
                claimed(3, 1),
                "this",
                Age::Expired,
                Decision::TakeOver { after: 3 },
            ),
            (claimed(3, 101), "that", Age::Fresh, Decision::Mismatch),
            (claimed(3, 1), "that", Age::Fresh, Decision::Mismatch),
            (
                done.clone(),
                "this",
                Age::Expired,
                Decision::Replay(answer()),
            ),
            (done, "that", Age::Fresh, Decision::Mismatch),
            (unknown.clone(), "this", Age::Fresh, Decision::Unknown),
            (unknown, "that", Age::Fresh, Decision::Mismatch),
        ] {
            assert_eq!(
                request(&state, &of(body), age, 100),
                expected,
                "{state:?} {body} {age:?}"
            );
        }
    }

    #[test]
    fn only_the_current_token_changes_a_claimed_key() {
        let changes = [
            Change::Renew { until_ms: 9 },
            Change::Complete(answer()),
            Change::Release {
                begun: false,
                now_ms: 5,
            },
            Change::Release {
                begun: true,
                now_ms: 5,
            },
            Change::Lose,
        ];
        let after = [
            claimed(3, 9),
            State::Done {
                fingerprint: of("this"),
                recorded: answer(),
            },
            State::Released { token: 3 },
            claimed(3, 5),
            State::Unknown {
                token: 3,
                fingerprint: of("this"),
            },
        ];
        for (wanted, expected) in changes.into_iter().zip(after) {
            assert_eq!(
                change(&claimed(3, 1), 3, wanted.clone()),
                Some(expected.clone()),
                "the lease may be over: the token decides"
            );
            for token in [2, 4] {
                assert_eq!(change(&claimed(3, 1), token, wanted.clone()), None);
            }
            for ended in [
                State::Absent,
                State::Released { token: 3 },
                State::Unknown {
                    token: 3,
                    fingerprint: of("this"),
                },
            ] {
                assert_eq!(change(&ended, 3, wanted.clone()), None);
            }
        }
    }
}
