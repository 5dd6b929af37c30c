//! Memory: the state machine itself, behind a mutex. For tests, and for single processes whose keys may die with them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::leased::state::{Change, Decision, State, change, request};
use crate::leased::{Abandoned, Holder, LeasedStore, Retention, Taken, Token, Work};
use crate::store::Claim;
use crate::{Age, Error, Key, Recorded, Scope};

/// Leases in this process. Clones share them. Its clock is tokio's, which tests can pause.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    keys: Arc<Mutex<HashMap<(Scope, Key), Entry>>>,
    started: Instant,
    started_ms: u64,
}

#[derive(Debug, Default)]
struct Entry {
    state: State,
    journal: Vec<u8>,
    work: Work,
    created_ms: u64,
    /// The end of its last lease: when it ran out, or when the key was completed or released.
    until_ms: u64,
}

impl Entry {
    fn may_go(&self, retention: &Retention, now_ms: u64) -> bool {
        let older = |since_ms: u64, time| since_ms.saturating_add(millis(time)) < now_ms;
        let unfinished = retention.unfinished.max(retention.ended);
        match self.state {
            State::Absent | State::Done { .. } | State::Released { .. } => {
                older(self.until_ms, retention.ended)
            }
            State::Claimed { until_ms, .. } => {
                let untouched = self.journal.is_empty() && self.work.handler.is_empty();
                let over = until_ms <= now_ms;
                (untouched && over && older(self.created_ms, retention.ended))
                    || older(until_ms, unfinished)
            }
            State::Unknown { .. } => older(self.until_ms, unfinished),
        }
    }
}

impl MemoryStore {
    /// Knows no keys.
    #[expect(
        clippy::disallowed_methods,
        reason = "this store's own clock: asked once, to count from"
    )]
    pub fn new() -> Self {
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            keys: Arc::default(),
            started: Instant::now(),
            started_ms: since_1970.map_or(0, millis),
        }
    }

    fn now(&self) -> u64 {
        self.started_ms + millis(self.started.elapsed())
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<(Scope, Key), Entry>> {
        // Nothing panics while it is held, and an entry is whole at every moment.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(
        &self,
        holder: &Holder,
        to: impl FnOnce(&mut Entry, u64) -> Change,
    ) -> Result<bool, Error> {
        let now = self.now();
        let mut keys = self.keys();
        let Some(entry) = keys.get_mut(&(holder.scope, holder.key.clone())) else {
            return Ok(false);
        };
        // What `to` writes beside the state must wait for the token's check.
        let held =
            matches!(entry.state, State::Claimed { token, .. } if token == holder.token.number);
        if !held {
            return Ok(false);
        }
        let wanted = to(entry, now);
        let Some(changed) = change(&entry.state, holder.token.number, wanted) else {
            return Ok(false);
        };
        if let State::Claimed { until_ms, .. } = changed {
            entry.until_ms = until_ms;
        }
        entry.state = changed;
        Ok(true)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl LeasedStore for MemoryStore {
    async fn migrate(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn claim(&self, claim: &Claim, work: &Work, lease: Duration) -> Result<Taken, Error> {
        let now = self.now();
        let mut keys = self.keys();
        let entry = keys.entry((claim.scope, claim.key.clone())).or_default();
        let of = match &entry.state {
            State::Claimed { fingerprint, .. }
            | State::Done { fingerprint, .. }
            | State::Unknown { fingerprint, .. } => *fingerprint,
            State::Absent | State::Released { .. } => claim.fingerprint,
        };
        let (fingerprint, after) =
            match request(&entry.state, &claim.fingerprint, Age::Unknown, now) {
                Decision::Run { after } => {
                    entry.work = work.clone();
                    entry.journal.clear();
                    entry.created_ms = now;
                    (claim.fingerprint, after.unwrap_or(0))
                }
                Decision::TakeOver { after } => (of, after),
                Decision::InFlight { left_ms } => {
                    return Ok(Taken::InFlight {
                        fingerprint: of,
                        left: Duration::from_millis(left_ms),
                    });
                }
                // Whose it is, the caller compares.
                Decision::Mismatch
                | Decision::Replay(_)
                | Decision::Unknown
                | Decision::Refused(_) => {
                    return Ok(match &entry.state {
                        State::Done { recorded, .. } => Taken::Done {
                            fingerprint: of,
                            recorded: recorded.clone(),
                        },
                        State::Unknown { .. } => Taken::Unknown { fingerprint: of },
                        State::Claimed { until_ms, .. } => Taken::InFlight {
                            fingerprint: of,
                            left: Duration::from_millis(until_ms.saturating_sub(now)),
                        },
                        State::Absent | State::Released { .. } => Taken::InFlight {
                            fingerprint: of,
                            left: Duration::ZERO,
                        },
                    });
                }
            };
        let number = (after + 1).max(now);
        entry.until_ms = until(now, lease);
        entry.state = State::Claimed {
            token: number,
            fingerprint,
            until_ms: entry.until_ms,
        };
        Ok(Taken::Ours {
            token: Token {
                number,
                run: "".into(),
            },
            journal: entry.journal.clone(),
        })
    }

    async fn now_ms(&self) -> Result<u64, Error> {
        Ok(self.now())
    }

    async fn exists(&self, scope: &Scope, key: &Key) -> Result<bool, Error> {
        let keys = self.keys();
        let state = keys.get(&(*scope, key.clone())).map(|entry| &entry.state);
        Ok(!matches!(
            state,
            None | Some(State::Absent | State::Released { .. })
        ))
    }

    async fn renew(&self, holder: &Holder, lease: Duration) -> Result<bool, Error> {
        self.change(holder, |_, now| Change::Renew {
            until_ms: until(now, lease),
        })
    }

    async fn append(&self, holder: &Holder, entry: &[u8], lease: Duration) -> Result<bool, Error> {
        self.change(holder, |at, now| {
            at.journal.extend_from_slice(entry);
            Change::Renew {
                until_ms: until(now, lease),
            }
        })
    }

    async fn complete(&self, holder: &Holder, recorded: &Recorded) -> Result<bool, Error> {
        self.change(holder, |at, now_ms| {
            at.journal.clear();
            at.work.input.clear();
            at.until_ms = now_ms;
            Change::Complete(recorded.clone())
        })
    }

    async fn release(&self, holder: &Holder) -> Result<bool, Error> {
        self.change(holder, |at, now_ms| {
            let begun = !at.journal.is_empty();
            at.until_ms = now_ms;
            if !begun {
                at.work.input.clear();
            }
            Change::Release { begun, now_ms }
        })
    }

    async fn lose(&self, holder: &Holder) -> Result<bool, Error> {
        self.change(holder, |_, _| Change::Lose)
    }

    async fn reopen(&self, scope: &Scope, key: &Key) -> Result<bool, Error> {
        let now = self.now();
        let mut keys = self.keys();
        let Some(entry) = keys.get_mut(&(*scope, key.clone())) else {
            return Ok(false);
        };
        let State::Unknown { token, fingerprint } = entry.state else {
            return Ok(false);
        };
        entry.until_ms = now;
        entry.state = State::Claimed {
            token,
            fingerprint,
            until_ms: now,
        };
        Ok(true)
    }

    async fn abandoned(&self, handler: &str, max: u32) -> Result<Vec<Abandoned>, Error> {
        let now = self.now();
        let keys = self.keys();
        let mut found: Vec<(u64, Abandoned)> = keys
            .iter()
            .filter_map(|((scope, key), entry)| {
                let State::Claimed {
                    until_ms,
                    fingerprint,
                    ..
                } = entry.state
                else {
                    return None;
                };
                let claim = Claim {
                    scope: *scope,
                    key: key.clone(),
                    fingerprint,
                };
                let over = until_ms <= now && !handler.is_empty() && entry.work.handler == handler;
                over.then(|| {
                    let work = entry.work.clone();
                    (until_ms, Abandoned { claim, work })
                })
            })
            .collect();
        found.sort_by_key(|(until_ms, _)| *until_ms);
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        Ok(found
            .into_iter()
            .take(max)
            .map(|(_, found)| found)
            .collect())
    }

    async fn reap(&self, retention: Retention, batch_max: u32) -> Result<u64, Error> {
        let now = self.now();
        let mut left = u64::from(batch_max);
        self.keys().retain(|_, entry| {
            let goes = left > 0 && entry.may_go(&retention, now);
            left -= u64::from(goes);
            !goes
        });
        Ok(u64::from(batch_max) - left)
    }
}

fn until(now_ms: u64, lease: Duration) -> u64 {
    now_ms.saturating_add(millis(lease))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
