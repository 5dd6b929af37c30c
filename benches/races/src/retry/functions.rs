//! Retry around a function that makes a future.

use std::time::Duration;

use backon::{ConstantBuilder, ExponentialBuilder, Retryable};
use mainstay_retry::{Backoff, EveryError, RetryPolicy, TokenBudget};

use super::ALONE;
use crate::by_hand::{self, Tokens};
use crate::race::{Contestant, prepared};
use crate::service::{Inner, finish, number};

/// With waits that a success never sees.
pub fn patient<S: Inner>(inner: S) -> Vec<Contestant<'static>> {
    let (min, max) = (Duration::from_millis(100), Duration::from_secs(20));
    // Its defaults are one second to a minute and no jitter.
    let exponential = ExponentialBuilder::default()
        .with_min_delay(min)
        .with_max_delay(max)
        .with_max_times(2)
        .with_jitter();
    vec![
        by_hand(&inner),
        alone(&inner),
        mainstay("mainstay, token budget", &inner, move || budget(0.1)),
        mainstay("mainstay, no budget", &inner, || {
            RetryPolicy::new(EveryError).without_budget()
        }),
        prepared("backon, exponential with jitter, no budget", move || {
            let mut inner = inner;
            move |request| {
                let retry = (|| inner.call(request)).retry(exponential);
                number(finish(retry))
            }
        }),
    ]
}

/// Without a wait, and with budgets that a success fills by as much as a retry takes.
pub fn eager<S: Inner>(inner: S) -> Vec<Contestant<'static>> {
    let none = Backoff::constant(Duration::ZERO);
    let constant = ConstantBuilder::new()
        .with_delay(Duration::ZERO)
        .with_max_times(2);
    let mut other = inner.clone();
    vec![
        by_hand(&inner),
        mainstay("mainstay, token budget", &inner, move || {
            budget(1.0).backoff(none)
        }),
        mainstay("mainstay, no budget", &inner, move || {
            RetryPolicy::new(EveryError).without_budget().backoff(none)
        }),
        prepared("backon, a sleeper that does not, no budget", move || {
            move |request| {
                let retry = (|| other.call(request)).retry(constant);
                number(finish(retry.sleep(|_| std::future::ready(()))))
            }
        }),
        prepared("backon, its own sleeper, no budget", move || {
            let mut inner = inner;
            move |request| {
                let retry = (|| inner.call(request)).retry(constant);
                number(finish(retry))
            }
        }),
    ]
}

fn by_hand<S: Inner>(inner: &S) -> Contestant<'static> {
    let mut inner = inner.clone();
    prepared("hand-written", || {
        let tokens = Tokens::shared();
        move |request| number(finish(by_hand::retry(&tokens, || inner.call(request))))
    })
}

fn alone<S: Inner>(inner: &S) -> Contestant<'static> {
    let mut inner = inner.clone();
    prepared(ALONE, || move |request| number(finish(inner.call(request))))
}

fn budget(credit: f64) -> RetryPolicy<EveryError> {
    let budget = TokenBudget::success_credit(credit).shared().unwrap();
    RetryPolicy::new(EveryError).budget(budget)
}

fn mainstay<S: Inner>(
    name: &str,
    inner: &S,
    policy: impl FnOnce() -> RetryPolicy<EveryError> + 'static,
) -> Contestant<'static> {
    let mut inner = inner.clone();
    prepared(name, || {
        let policy = policy();
        move |request| {
            let retry = mainstay_retry::retry(&policy, || inner.call(request));
            number(finish(retry))
        }
    })
}
