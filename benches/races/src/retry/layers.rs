//! Retry as a layer around a service.

use std::sync::Arc;
use std::time::Duration;

use mainstay_retry::{Backoff, CloneReplay, EveryError, RetryLayer, RetryPolicy, TokenBudget};
use tower::Layer;
use tower::retry::Retry;
use tower_resilience_retry::{RetryBudgetBuilder, RetryConfigBuilder};

use super::ALONE;
use crate::by_hand::{self, Tokens};
use crate::race::Contestant;
use crate::service::{Failed, Inner, service};
use crate::tower_policy::{NoWait, TowerPolicy, exponential, timer_of_zero};

/// With waits that a success never sees.
pub fn patient<S: Inner>(inner: S) -> Vec<Contestant<'static>> {
    let theirs = || theirs().exponential_backoff(Duration::from_millis(100));
    vec![
        by_hand(&inner),
        alone(&inner),
        service("mainstay, token budget", &inner, |inner| {
            mainstay(0.1).layer(inner)
        }),
        service("mainstay, no budget", &inner, |inner| {
            RetryLayer::new(EveryError, CloneReplay)
                .without_budget()
                .layer(inner)
        }),
        service("mainstay's policy in tower's layer", &inner, |inner| {
            let policy = RetryPolicy::new(EveryError).budget(budget(0.1));
            Retry::new(mainstay_retry::TowerPolicy::new(policy, CloneReplay), inner)
        }),
        service("tower, TpsBudget, backoff", &inner, |inner| {
            Retry::new(TowerPolicy::new(0.2, exponential(), Result::is_err), inner)
        }),
        service("tower, attempts alone, no budget", &inner, |inner| {
            Retry::new(TowerPolicy::without_budget(NoWait, Result::is_err), inner)
        }),
        service("tower-resilience, token bucket", &inner, move |inner| {
            let bucket = RetryBudgetBuilder::new().token_bucket().build().unwrap();
            theirs().budget(bucket).build().layer(inner)
        }),
        service("tower-resilience, no budget", &inner, move |inner| {
            theirs().build().layer(inner)
        }),
    ]
}

/// Without a wait, and with budgets that a success fills by as much as a retry takes.
pub fn eager<S: Inner>(inner: S) -> Vec<Contestant<'static>> {
    let none = Backoff::constant(Duration::ZERO);
    vec![
        by_hand(&inner),
        service("mainstay, token budget", &inner, move |inner| {
            mainstay(1.0).backoff(none).layer(inner)
        }),
        service("mainstay, no budget", &inner, move |inner| {
            RetryLayer::new(EveryError, CloneReplay)
                .without_budget()
                .backoff(none)
                .layer(inner)
        }),
        service("mainstay's policy in tower's layer", &inner, move |inner| {
            let policy = RetryPolicy::new(EveryError)
                .budget(budget(1.0))
                .backoff(none);
            Retry::new(mainstay_retry::TowerPolicy::new(policy, CloneReplay), inner)
        }),
        service(
            "tower, TpsBudget, a future without timer",
            &inner,
            |inner| Retry::new(TowerPolicy::new(1.0, NoWait, Result::is_err), inner),
        ),
        service("tower, TpsBudget, its backoff of zero", &inner, |inner| {
            Retry::new(
                TowerPolicy::new(1.0, timer_of_zero(), Result::is_err),
                inner,
            )
        }),
        service(
            "tower, no budget, a future without timer",
            &inner,
            |inner| Retry::new(TowerPolicy::without_budget(NoWait, Result::is_err), inner),
        ),
        service("tower-resilience, token bucket", &inner, |inner| {
            // No refill with time, so that the check can see it spent.
            let bucket = RetryBudgetBuilder::new().token_bucket();
            let bucket = bucket.tokens_per_second(0.0).build().unwrap();
            let retry = theirs().fixed_backoff(Duration::ZERO).budget(bucket);
            retry.build().layer(inner)
        }),
    ]
}

fn budget(credit: f64) -> Arc<TokenBudget> {
    TokenBudget::success_credit(credit).shared().unwrap()
}

/// With a budget to which a success gives this much of a retry.
pub fn mainstay(credit: f64) -> RetryLayer<EveryError, CloneReplay> {
    RetryLayer::new(EveryError, CloneReplay).budget(budget(credit))
}

pub fn theirs() -> RetryConfigBuilder<u64, u64, Failed> {
    tower_resilience_retry::RetryLayer::builder().max_attempts(3)
}

fn by_hand<S: Inner>(inner: &S) -> Contestant<'static> {
    service("hand-written", inner, |inner| {
        by_hand::Retry::new(inner, Tokens::shared(), Result::is_err)
    })
}

fn alone<S: Inner>(inner: &S) -> Contestant<'static> {
    service(ALONE, inner, |inner| inner)
}
