//! When to try again and after what wait: the decision itself, used by the layer and by [`retry`].

use std::{
    fmt,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    backoff::Backoff,
    budget::{Budget, TokenBudget},
    classify::Classify,
    deadline::Deadline,
    error::{mark_attempted, own_kind},
    verdict::{Kind, Verdict},
};

/// Which attempt of a logical call this is. Found in the request's extensions below the retry layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Attempt {
    /// Counts from 1.
    pub number: u32,
    /// How many there will be at most.
    pub max: u32,
}

impl Attempt {
    pub(crate) const fn first(max: u32) -> Self {
        Self { number: 1, max }
    }

    pub(crate) const fn next(self) -> Self {
        Self {
            number: self.number.saturating_add(1),
            max: self.max,
        }
    }

    /// Whether no other will follow.
    pub const fn is_last(self) -> bool {
        self.number >= self.max
    }
}

/// How a call is tried again: who judges, how often, after what waits, and from which budget.
///
/// Cloning shares the budget. Make one per dependency and keep it.
#[derive(Clone, Debug)]
pub struct RetryPolicy<C> {
    classify: C,
    max_attempts: u32,
    backoff: Backoff,
    budget: Option<Arc<dyn Budget>>,
    retry_after_cap: Duration,
}

impl<C> RetryPolicy<C> {
    /// Three attempts, 100 ms to 20 s of full jitter, a [`TokenBudget`] of its own, waits asked for by the server
    /// capped at 60 s.
    pub fn new(classify: C) -> Self {
        Self {
            classify,
            max_attempts: 3,
            backoff: Backoff::default(),
            budget: Some(Arc::new(TokenBudget::default())),
            retry_after_cap: Duration::from_secs(60),
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
        self.budget = Some(budget);
        self
    }

    /// Tries again without a budget. In an outage this multiplies the load by [`max_attempts`](Self::max_attempts).
    #[must_use]
    pub fn without_budget(mut self) -> Self {
        self.budget = None;
        self
    }

    /// The longest wait a server may ask for; more is cut to this. Default 60 s.
    #[must_use]
    pub const fn retry_after_cap(mut self, cap: Duration) -> Self {
        self.retry_after_cap = cap;
        self
    }

    pub(crate) const fn attempts(&self) -> u32 {
        self.max_attempts
    }

    /// Judges an outcome and lets the budget know.
    pub(crate) fn judge<T, E>(&self, outcome: &Result<T, E>) -> Verdict
    where
        C: Classify<T, E>,
    {
        let verdict = self.classify.classify(outcome.as_ref());
        if let Some(budget) = &self.budget {
            budget.credit(verdict);
        }
        verdict
    }

    /// The wait before the next attempt, already paid for, or `None` when this was the last. `prev` is the delay that
    /// the backoff gave before.
    pub(crate) fn decide(
        &self,
        verdict: Verdict,
        attempt: Attempt,
        prev: &mut Duration,
        deadline: Option<Deadline>,
        now: Instant,
    ) -> Option<Duration> {
        let Verdict::Retryable(kind, hint) = verdict else {
            return None;
        };
        if !kind.is_retryable() || attempt.is_last() {
            return None;
        }
        // The server's wish is a floor and the jitter comes on top: all who got it would else be back at once.
        let floor = hint.unwrap_or_default().min(self.retry_after_cap);
        let delay = self.backoff.delay(attempt.number, *prev, &mut rand::rng());
        let wait = floor.saturating_add(delay);
        let decision = if deadline.is_some_and(|deadline| deadline.remaining(now) <= wait) {
            Decision::NoTime
        } else if self
            .budget
            .as_ref()
            .is_some_and(|budget| !budget.try_spend(now, kind))
        {
            Decision::NoBudget
        } else {
            Decision::Again
        };
        decision.tell(attempt, kind, wait);
        // What the server asked for is not part of our own schedule.
        *prev = delay;
        (decision == Decision::Again).then_some(wait)
    }
}

/// What came of a failure that might have been tried again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Decision {
    Again,
    NoTime,
    NoBudget,
}

impl Decision {
    fn tell(self, attempt: Attempt, kind: Kind, wait: Duration) {
        let (attempt, kind, wait) = (attempt.number, kind.as_str(), wait.as_secs_f64());
        let decision = match self {
            Self::Again => "again",
            Self::NoTime => "no_time",
            Self::NoBudget => "no_budget",
        };
        tracing::debug!(target: TARGET, attempt, kind, wait, decision, "attempt failed");
        #[cfg(feature = "metrics")]
        metrics::counter!("mainstay.retry.decisions", "kind" => kind, "decision" => decision)
            .increment(1);
    }
}

pub(crate) const TARGET: &str = "mainstay_retry";

/// Runs an operation until it succeeds, its failure is final, or the policy has had enough.
///
/// Whether it is safe to run the operation twice is for the caller to know.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// use mainstay_retry::{EveryError, RetryPolicy, retry};
///
/// let policy = RetryPolicy::new(EveryError);
/// let mut failures = 2;
/// let answer = retry(&policy, || {
///     failures -= 1;
///     async move { if failures >= 0 { Err("not yet") } else { Ok(42) } }
/// });
/// assert_eq!(answer.await, Ok(42));
/// # }
/// ```
///
/// # Errors
/// The error of the last run, untouched; but a refusal of our own is told when earlier runs went before it.
///
/// # Cancel safety
/// Dropping the future drops the run or the wait under way. What was paid from the budget stays paid.
pub async fn retry<C, T, E, F, Fut>(policy: &RetryPolicy<C>, operation: F) -> Result<T, E>
where
    C: Classify<T, E>,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: 'static,
{
    run(policy, None, operation).await
}

/// [`retry`], with a deadline: a wait that could not end before it is not begun. A run under way is not cut off.
///
/// # Errors
/// The error of the last run, untouched; but a refusal of our own is told when earlier runs went before it.
///
/// # Cancel safety
/// As [`retry`].
pub async fn retry_until<C, T, E, F, Fut>(
    policy: &RetryPolicy<C>,
    deadline: Deadline,
    operation: F,
) -> Result<T, E>
where
    C: Classify<T, E>,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: 'static,
{
    run(policy, Some(deadline), operation).await
}

async fn run<C, T, E, F, Fut>(
    policy: &RetryPolicy<C>,
    deadline: Option<Deadline>,
    mut operation: F,
) -> Result<T, E>
where
    C: Classify<T, E>,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: 'static,
{
    let mut attempt = Attempt::first(policy.attempts());
    let mut prev = Duration::ZERO;
    loop {
        let outcome = operation().await;
        let verdict = policy.judge(&outcome);
        if verdict == Verdict::Success || is_final(&outcome) {
            return last(outcome, attempt.number > 1);
        }
        let now = tokio::time::Instant::now().into_std();
        let Some(wait) = policy.decide(verdict, attempt, &mut prev, deadline, now) else {
            return last(outcome, attempt.number > 1);
        };
        drop(outcome); // whatever it holds is not held through the wait
        attempt = attempt.next();
        // A timer of zero would still wait for the next tick of a millisecond.
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// Whether this is a refusal of our own, which no classifier may overrule.
pub(crate) fn is_final<T, E: 'static>(outcome: &Result<T, E>) -> bool {
    let kind = outcome.as_ref().err().and_then(own_kind);
    kind.is_some_and(|kind| !kind.is_retryable())
}

/// The outcome as the caller gets it. A refusal of our own must not hide that earlier attempts went out.
pub(crate) fn last<T, E: 'static>(mut outcome: Result<T, E>, repeated: bool) -> Result<T, E> {
    if let (true, Err(error)) = (repeated, outcome.as_mut()) {
        mark_attempted(error);
    }
    outcome
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.number, self.max)
    }
}
