//! The rules of the retry layer for code that has no service.

use std::future::Future;

use crate::{
    classify::Classify,
    clock,
    deadline::Deadline,
    policy::{RetryPolicy, is_final, last},
};

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

/// [`retry`], with a deadline: a wait that could not end before it is not begun, and no run after the first begins when
/// it has passed; the last outcome is kept for that. A run under way is not cut off.
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
    let mut repeat = None;
    loop {
        let outcome = operation().await;
        let Err(failed) = policy.judge(&outcome, &repeat) else {
            return outcome;
        };
        let repeated = repeat.is_some();
        let wait = if is_final(&outcome) {
            None
        } else {
            policy.decide(failed, &mut repeat, deadline, clock::now)
        };
        let Some(wait) = wait else {
            return last(outcome, repeated);
        };
        // Whatever it holds is not held through the wait, unless it may be needed after it.
        let kept = deadline.map(|deadline| (deadline, outcome));
        // A timer of zero would still wait for the next tick of a millisecond.
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        // Timers may be late.
        if let Some((deadline, outcome)) = kept
            && deadline.has_passed(clock::now())
        {
            return last(outcome, repeated);
        }
    }
}
