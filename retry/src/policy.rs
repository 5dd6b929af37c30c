//! When to try again and after what wait: the decision itself, used by the layer and by [`retry()`](crate::retry()).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    backoff::Backoff,
    budget::{Budget, Purse, TokenBudget},
    classify::Classify,
    deadline::Deadline,
    decision::Decision,
    dice::Dice,
    error::{mark_attempted, own_kind},
    verdict::{Kind, Verdict},
};

/// How a call is tried again: who judges, how often, after what waits, and from which budget.
///
/// Cloning shares the budget. Make one per dependency and keep it.
#[derive(Clone, Debug)]
pub struct RetryPolicy<C> {
    classify: C,
    max_attempts: u32,
    backoff: Backoff,
    purse: Purse,
    retry_after_cap: Duration,
    on_unready: OnUnready,
    dice: Option<Arc<Dice>>,
}

impl<C> RetryPolicy<C> {
    /// Three attempts, 100 ms to 20 s of full jitter, a [`TokenBudget`] of its own, waits asked for by the server
    /// capped at 60 s.
    pub fn new(classify: C) -> Self {
        Self {
            classify,
            max_attempts: 3,
            backoff: Backoff::default(),
            purse: Purse::Tokens(Arc::new(TokenBudget::default())),
            retry_after_cap: Duration::from_secs(60),
            on_unready: OnUnready::Wait,
            dice: None,
        }
    }

    /// Most attempts of one call, the first included. Zero counts as 1. Default 3.
    #[must_use]
    pub const fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = if attempts == 0 { 1 } else { attempts };
        self
    }

    /// The waits between attempts. Default 100 ms doubling to 20 s, full jitter.
    #[must_use]
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Pays for further attempts from this budget, usually shared with other clients of the same dependency.
    #[must_use]
    pub fn budget(mut self, budget: Arc<dyn Budget>) -> Self {
        self.purse = Purse::new(budget);
        self
    }

    /// Tries again without a budget. In an outage this multiplies the load by [`max_attempts`](Self::max_attempts).
    #[must_use]
    pub fn without_budget(mut self) -> Self {
        self.purse = Purse::Bottomless;
        self
    }

    /// The longest wait a server may ask for; more is cut to this. Default 60 s.
    #[must_use]
    pub const fn retry_after_cap(mut self, cap: Duration) -> Self {
        self.retry_after_cap = cap;
        self
    }

    /// What to do when a further attempt is due and the service is not ready. Default [`OnUnready::Wait`]. Only a layer
    /// has a service to ask.
    #[must_use]
    pub const fn on_unready(mut self, on_unready: OnUnready) -> Self {
        self.on_unready = on_unready;
        self
    }

    /// Draws the jitter of its waits from this seed, so that the same calls wait the same times again: for tests and
    /// simulations. Clones draw from the same sequence. Default: random numbers of the thread's own.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.dice = Some(Arc::new(Dice::new(seed)));
        self
    }

    pub(crate) const fn attempts(&self) -> u32 {
        self.max_attempts
    }

    pub(crate) const fn unready(&self) -> OnUnready {
        self.on_unready
    }

    /// Judges an outcome and lets the budget know.
    #[inline]
    pub(crate) fn judge<T, E>(
        &self,
        outcome: &Result<T, E>,
        repeat: &Option<Repeat>,
    ) -> Result<(), Failed>
    where
        C: Classify<T, E>,
    {
        let repeats = || repeat.as_ref().map(|repeat| repeat.kind);
        match self.classify.classify(outcome.as_ref()) {
            Verdict::Success => {
                self.purse.credit_success(repeats);
                Ok(())
            }
            verdict => {
                self.purse.credit(verdict, repeats());
                Err(match verdict {
                    Verdict::Retryable(kind, hint) if kind.is_retryable() => {
                        Failed::Retryable(kind, hint)
                    }
                    _ => Failed::Finally,
                })
            }
        }
    }

    /// The wait before the next attempt, already paid for, which is then in `repeat` in place of the last.
    #[inline]
    pub(crate) fn decide(
        &self,
        failed: Failed,
        repeat: &mut Option<Repeat>,
        deadline: Option<Deadline>,
        now: impl Fn() -> Instant,
    ) -> Option<Duration> {
        match failed {
            Failed::Retryable(kind, hint) => self.decide_on(kind, hint, repeat, deadline, now),
            Failed::Finally => None,
        }
    }

    /// Apart, so that the way of a success stays short; and with the failure in pieces, which are registers.
    #[inline(never)]
    fn decide_on(
        &self,
        kind: Kind,
        hint: Option<Duration>,
        repeat: &mut Option<Repeat>,
        deadline: Option<Deadline>,
        now: impl Fn() -> Instant,
    ) -> Option<Duration> {
        let number = Repeat::number(repeat);
        if number >= self.max_attempts {
            return None;
        }
        let prev = || repeat.as_ref().map_or(Duration::ZERO, |last| last.delay);
        let delay = self.backoff.wait(number, prev, self.dice.as_deref());
        let wait = match hint {
            None => delay,
            // The server's wish is a floor and the jitter comes on top: all who got it would else be back at once.
            Some(hint) => hint.min(self.retry_after_cap).saturating_add(delay),
        };
        let decision = if deadline.is_some_and(|deadline| deadline.remaining(now()) <= wait) {
            Decision::NoTime
        } else if self.purse.try_spend(now, kind) {
            Decision::Again
        } else {
            Decision::NoBudget
        };
        decision.tell(number, kind, wait);
        if decision != Decision::Again {
            return None;
        }
        *repeat = Some(Repeat {
            kind,
            number: number.saturating_add(1),
            delay,
            wait,
        });
        Some(wait)
    }
}

/// How an attempt failed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failed {
    Retryable(Kind, Option<Duration>),
    Finally,
}

/// An attempt after the first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Repeat {
    /// The failure it was paid for to make good.
    pub(crate) kind: Kind,
    pub(crate) number: u32,
    /// What the backoff gave. What the server asked for is not part of our own schedule.
    pub(crate) delay: Duration,
    /// The whole wait before it.
    pub(crate) wait: Duration,
}

impl Repeat {
    /// The number of the attempt that this is, if it is one: the first is none.
    #[inline]
    pub(crate) fn number(repeat: &Option<Self>) -> u32 {
        repeat.as_ref().map_or(1, |repeat| repeat.number)
    }
}

/// Of every tracing event.
pub(crate) const TARGET: &str = "mainstay_retry";

/// What to do when it is time for a further attempt and the service is not ready for one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnUnready {
    /// Wait until it is. The default: only a deadline above cuts that short.
    #[default]
    Wait,
    /// Return the outcome of the attempt before, which is kept, with its connection, until then. A service that has no
    /// room is overloaded, and what would wait for room is more load. Readiness is asked for once: not for services
    /// that are never ready at the first time of asking. What was paid stays paid.
    ReturnLast,
}

/// Whether this is a refusal of our own, which no classifier may overrule.
pub(crate) fn is_final<T, E: 'static>(outcome: &Result<T, E>) -> bool {
    let kind = outcome.as_ref().err().and_then(own_kind);
    kind.is_some_and(|kind| !kind.is_retryable())
}

/// The outcome as the caller gets it. A refusal of our own must not hide that earlier attempts went out.
pub(crate) fn last<T, E: 'static>(mut outcome: Result<T, E>, repeated: bool) -> Result<T, E> {
    mark(&mut outcome, repeated);
    outcome
}

pub(crate) fn mark<T, E: 'static>(outcome: &mut Result<T, E>, repeated: bool) {
    if let (true, Err(error)) = (repeated, outcome) {
        mark_attempted(error);
    }
}
