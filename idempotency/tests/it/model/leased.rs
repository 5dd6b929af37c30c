//! The Leased protocol: the claim commits first, with a token; the effect's own transaction checks the token under the
//! row's lock and moves the recovery point; completion checks it again. A transaction that holds the row's lock is one
//! step here, for nothing can come between.

use super::search;

pub const ATTEMPTS: usize = 3;

/// The rules; take one away and see.
pub struct Model {
    /// The second row of a key is not inserted.
    pub unique_index: bool,
    /// The step's transaction checks the token.
    pub fenced_in_step: bool,
    /// The step's transaction reads the recovery point under the row's lock: the attempt's own memory may lack it.
    pub reads_in_step: bool,
    /// A commit's answer may be lost, or its caller leave, and the attempt say the step again.
    pub unheard: bool,
    /// Completion checks the token.
    pub fenced_on_completion: bool,
    /// A key older than what is kept does not run.
    pub refuses_stale: bool,
    /// The reaper deletes claims whose steps are done, not only old answers and claims that were left before any step.
    pub reaps_steps: bool,
    /// A key that was reaped and comes again has a larger token than before.
    pub tokens_grow: bool,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            unique_index: true,
            fenced_in_step: true,
            reads_in_step: true,
            unheard: true,
            fenced_on_completion: true,
            refuses_stale: true,
            reaps_steps: false,
            tokens_grow: true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Row {
    token: u8,
    lease_over: bool,
    /// The recovery point: the effect is behind it.
    stepped: bool,
    done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Attempt {
    Not,
    /// Has looked and found no row; about to insert one.
    SawNothing,
    /// Holds, or believes to hold, the lease. `stepped` is what its claim found.
    Holds {
        token: u8,
        stepped: bool,
    },
    /// Completed, about to answer.
    Completed,
    ToldDone,
    /// In flight, fenced, too old: the client asks again or finds out.
    ToldLater,
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    attempts: [Attempt; ATTEMPTS],
    /// One row; without the index, one for each attempt.
    rows: [Option<Row>; ATTEMPTS],
    effects: u8,
    /// The largest token that was given.
    spent: u8,
    old: bool,
    acknowledged: bool,
}

impl State {
    fn with(mut self, n: usize, attempt: Attempt) -> Self {
        self.attempts[n] = attempt;
        self.acknowledged |= attempt == Attempt::ToldDone;
        self
    }

    fn and_row(mut self, at: usize, row: Row) -> Self {
        self.spent = self.spent.max(row.token);
        self.rows[at] = Some(row);
        self
    }
}

impl Model {
    /// Where the row of an attempt is.
    fn at(&self, n: usize) -> usize {
        if self.unique_index { 0 } else { n }
    }

    fn claimed(&self, state: &State, n: usize, at: usize) -> State {
        // Of its own row, without the index.
        let grows = self.tokens_grow && self.unique_index;
        let token = if grows { state.spent + 1 } else { 1 };
        let row = Row {
            token,
            lease_over: false,
            stepped: false,
            done: false,
        };
        let holds = Attempt::Holds {
            token,
            stepped: false,
        };
        state.with(n, holds).and_row(at, row)
    }

    /// What a claim does with a row that is there.
    fn meets(&self, state: &State, n: usize, at: usize, row: Row) -> (&'static str, State) {
        if row.done {
            return ("replays", state.with(n, Attempt::ToldDone));
        }
        if !row.lease_over {
            return ("finds it in flight", state.with(n, Attempt::ToldLater));
        }
        let token = row.token + 1;
        let taken = Row {
            token,
            lease_over: false,
            ..row
        };
        let holds = Attempt::Holds {
            token,
            stepped: row.stepped,
        };
        ("takes over", state.with(n, holds).and_row(at, taken))
    }
}

impl search::Model for Model {
    type State = State;

    fn start(&self) -> State {
        State {
            attempts: [Attempt::Not; ATTEMPTS],
            rows: [None; ATTEMPTS],
            effects: 0,
            spent: 0,
            old: false,
            acknowledged: false,
        }
    }

    fn next(&self, state: &State) -> Vec<(String, State)> {
        let mut next = Vec::new();
        let mut may =
            |what: &str, n: usize, state: State| next.push((format!("{n} {what}"), state));
        for n in 0..ATTEMPTS {
            let at = self.at(n);
            let row = state.rows[at];
            let attempt = state.attempts[n];
            match attempt {
                Attempt::Not => {
                    let found = (0..ATTEMPTS).find_map(|at| Some((at, state.rows[at]?)));
                    if let Some((at, row)) = found {
                        let (what, met) = self.meets(state, n, at, row);
                        may(what, n, met);
                    } else if state.old && self.refuses_stale {
                        may("is too old", n, state.with(n, Attempt::ToldLater));
                    } else if self.unique_index {
                        // One statement: the index finds a row that was inserted meanwhile.
                        may("claims", n, self.claimed(state, n, at));
                    } else {
                        may("sees nothing", n, state.with(n, Attempt::SawNothing));
                    }
                }
                Attempt::SawNothing => may("claims", n, self.claimed(state, n, at)),
                Attempt::Holds { token, stepped } => {
                    let mine = row.is_some_and(|row| row.token == token && !row.done);
                    if !stepped {
                        match row {
                            Some(row) if mine && row.stepped && self.reads_in_step => {
                                let holds = Attempt::Holds {
                                    token,
                                    stepped: true,
                                };
                                may("finds it done", n, state.with(n, holds));
                            }
                            Some(row) if mine || !self.fenced_in_step => {
                                let mut acted = state.and_row(
                                    at,
                                    Row {
                                        stepped: true,
                                        ..row
                                    },
                                );
                                acted.effects += 1;
                                if self.unheard {
                                    may("acts unheard", n, acted);
                                }
                                let holds = Attempt::Holds {
                                    token,
                                    stepped: true,
                                };
                                may("acts", n, acted.with(n, holds));
                            }
                            None if !self.fenced_in_step => {
                                let mut acted = *state;
                                acted.effects += 1;
                                may("acts", n, acted.with(n, Attempt::Gone));
                            }
                            _ => may("is fenced", n, state.with(n, Attempt::ToldLater)),
                        }
                    } else {
                        match row {
                            Some(row) if mine || !self.fenced_on_completion => {
                                let done = state.and_row(at, Row { done: true, ..row });
                                may("completes", n, done.with(n, Attempt::Completed));
                            }
                            _ => may("is fenced", n, state.with(n, Attempt::ToldLater)),
                        }
                    }
                    if let Some(row) = row.filter(|row| mine && row.lease_over) {
                        let renewed = Row {
                            lease_over: false,
                            ..row
                        };
                        may("renews", n, state.and_row(at, renewed));
                    }
                }
                Attempt::Completed => {
                    may("answers", n, state.with(n, Attempt::ToldDone));
                    may("answers nobody", n, state.with(n, Attempt::Gone));
                }
                Attempt::ToldDone | Attempt::ToldLater | Attempt::Gone => {}
            }
            if matches!(attempt, Attempt::SawNothing | Attempt::Holds { .. }) {
                may("crashes", n, state.with(n, Attempt::Gone));
            }
        }
        for at in 0..ATTEMPTS {
            let Some(row) = state.rows[at] else { continue };
            if !row.done && !row.lease_over {
                let over = Row {
                    lease_over: true,
                    ..row
                };
                next.push(("the lease runs out".into(), state.and_row(at, over)));
            }
            // Keys without a time are never too old to be run: what is left before any step may go at any moment.
            let left = !row.done && row.lease_over && (!row.stepped || self.reaps_steps);
            if (row.done && state.old) || left {
                let mut reaped = *state;
                reaped.rows[at] = None;
                next.push(("the reaper comes".into(), reaped));
            }
        }
        if !state.old {
            next.push((
                "time passes".into(),
                State {
                    old: true,
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
        if state.rows.iter().flatten().any(|row| row.done) && state.effects == 0 {
            return Some("an answer without its effect");
        }
        // When everybody is gone and the lease is over, one more attempt must get through, and leave one effect.
        let ended = |attempt: &Attempt| {
            matches!(
                attempt,
                Attempt::ToldDone | Attempt::ToldLater | Attempt::Gone
            )
        };
        if !state.attempts.iter().all(ended) || !self.unique_index {
            return None;
        }
        let gets_through = match state.rows[0] {
            None => state.old || state.effects == 0,
            Some(row) if row.done => state.effects == 1,
            // It takes over, acts unless the recovery point is behind the effect, and completes.
            Some(row) => state.effects + u8::from(!row.stepped) == 1,
        };
        (!gets_through).then_some("a stuck key")
    }
}
