//! The Local protocol: claim, effect and record in one transaction. Its lock is left out, for it only saves work: the
//! index decides.

use super::search;

pub const ATTEMPTS: usize = 3;

/// The rules; take one away and see.
pub struct Model {
    /// A second record of a key does not commit.
    pub unique_index: bool,
    /// Keys are claimed last: an attempt runs whatever there is, and how old its key is is seen when it commits.
    pub claims_last: bool,
    /// An attempt that fails without having claimed its key looks for a record. Without this rule it says that nothing was done.
    pub looks_after_failure: bool,
    /// A commit without an answer is looked up. Without this rule it is taken for a failure.
    pub reads_back: bool,
    /// A key older than what is kept does not run.
    pub refuses_stale: bool,
    /// The retention is longer than the longest handler.
    pub retention_outlives_handlers: bool,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            unique_index: true,
            claims_last: false,
            looks_after_failure: true,
            reads_back: true,
            refuses_stale: true,
            retention_outlives_handlers: true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attempt {
    Not,
    /// In its transaction, having found no record; the effect is written, nobody sees it.
    Running,
    /// COMMIT was sent and no answer came.
    Unheard,
    /// The client knows that it was done.
    ToldDone,
    /// The client knows that this attempt did nothing and that nothing was done before it.
    ToldNothing,
    /// The client was told that it is not known.
    ToldUnknown,
    /// Crashed, or told to nobody: the client has left.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    attempts: [Attempt; ATTEMPTS],
    recorded: bool,
    effects: u8,
    /// The retention is over.
    old: bool,
    /// Somebody was told "done".
    acknowledged: bool,
    /// Somebody was told "nothing was done" while it was.
    lied: bool,
}

impl State {
    fn with(mut self, n: usize, attempt: Attempt) -> Self {
        self.attempts[n] = attempt;
        self.acknowledged |= attempt == Attempt::ToldDone;
        self
    }

    /// A COMMIT that arrives. `None` when the index refuses it.
    fn committed(mut self, model: &Model) -> Option<Self> {
        if self.recorded && model.unique_index || model.claims_last && model.is_stale(&self) {
            return None;
        }
        self.recorded = true;
        self.effects += 1;
        Some(self)
    }

    /// Whoever holds the key's lock has found no record, and there is none as long as it runs. Whoever claims last has not looked.
    fn fails(self, n: usize, model: &Model) -> Self {
        let mut told = self.with(n, Attempt::ToldNothing);
        told.lied |= self.recorded && model.claims_last;
        told
    }

    /// What an attempt finds that asks for the record.
    fn found(self, n: usize) -> Self {
        if self.recorded {
            self.with(n, Attempt::ToldDone)
        } else {
            let mut told = self.with(n, Attempt::ToldNothing);
            // After a reaping nobody can know; the retention is the promise.
            told.lied |= self.effects > 0 && !self.old;
            told
        }
    }
}

impl Model {
    fn is_stale(&self, state: &State) -> bool {
        state.old && self.refuses_stale
    }
}

impl search::Model for Model {
    type State = State;

    fn start(&self) -> State {
        State {
            attempts: [Attempt::Not; ATTEMPTS],
            recorded: false,
            effects: 0,
            old: false,
            acknowledged: false,
            lied: false,
        }
    }

    fn next(&self, state: &State) -> Vec<(String, State)> {
        let mut next = Vec::new();
        let mut may =
            |what: &str, n: usize, state: State| next.push((format!("{n} {what}"), state));
        for n in 0..ATTEMPTS {
            match state.attempts[n] {
                Attempt::Not if self.claims_last => {
                    may("begins", n, state.with(n, Attempt::Running));
                }
                Attempt::Not if state.recorded => {
                    may("replays", n, state.with(n, Attempt::ToldDone));
                    may("replays to nobody", n, state.with(n, Attempt::Gone));
                }
                Attempt::Not if self.is_stale(state) => {
                    may("is too old", n, state.with(n, Attempt::ToldUnknown));
                }
                Attempt::Not => may("begins", n, state.with(n, Attempt::Running)),
                Attempt::Running => {
                    may("crashes", n, state.with(n, Attempt::Gone));
                    let looks = self.claims_last && self.looks_after_failure;
                    if looks && state.recorded {
                        may("fails and replays", n, state.with(n, Attempt::ToldDone));
                    } else {
                        may("fails", n, state.fails(n, self));
                    }
                    may(
                        "sends a COMMIT that is lost",
                        n,
                        state.with(n, Attempt::Unheard),
                    );
                    match state.committed(self) {
                        Some(done) => {
                            may("commits", n, done.with(n, Attempt::ToldDone));
                            may("commits for nobody", n, done.with(n, Attempt::Gone));
                            may("commits unheard", n, done.with(n, Attempt::Unheard));
                        }
                        None if !state.recorded => {
                            may("is too old", n, state.with(n, Attempt::ToldUnknown));
                        }
                        // The index has refused it: another attempt's record stands.
                        None => may("replays", n, state.with(n, Attempt::ToldDone)),
                    }
                }
                Attempt::Unheard => {
                    may("crashes", n, state.with(n, Attempt::Gone));
                    if self.reads_back {
                        may("finds no database", n, state.with(n, Attempt::ToldUnknown));
                        if !state.old || state.recorded {
                            may("reads back", n, state.found(n));
                        }
                    } else {
                        let mut told = state.with(n, Attempt::ToldNothing);
                        told.lied |= state.recorded;
                        may("gives up", n, told);
                    }
                }
                _ => {}
            }
        }
        let running = state.attempts.contains(&Attempt::Running);
        if !(state.old || running && self.retention_outlives_handlers) {
            next.push((
                "time passes".into(),
                State {
                    old: true,
                    ..*state
                },
            ));
        }
        if state.old && state.recorded {
            next.push((
                "the reaper comes".into(),
                State {
                    recorded: false,
                    ..*state
                },
            ));
        }
        next
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        if state.effects > 1 {
            return Some("two effects");
        }
        if state.acknowledged && state.effects == 0 {
            return Some("an acknowledged effect is lost");
        }
        if state.lied {
            return Some("told that nothing was done");
        }
        // Whoever asks now is answered or runs to an end: there is no state between.
        let stuck = !state.recorded && state.effects > 0 && !state.old;
        stuck.then_some("a stuck key")
    }
}
