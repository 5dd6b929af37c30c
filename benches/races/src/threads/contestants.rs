//! The contestants of the other races, each shared by all threads, around a service that has the answer at once.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use circuitbreaker_rs::{CircuitBreaker as CircuitBreakerRs, DefaultPolicy};
use failsafe::{CircuitBreaker as _, Config, FailurePolicy, backoff, failure_policy};
use mainstay_retry::{EveryError, Trip, breaker::Window};
use reliakit_circuit::RollingBreaker;
use tower::Layer;
use tower::retry::Retry;
use tower_resilience_retry::RetryBudgetBuilder;

use super::contest::{Contestant, function, service};
use crate::breaker::layers::{
    HOUR, TEN_SECONDS, breaker, failsafe_rate, rate_over, recloser, theirs,
};
use crate::by_hand::{self, Circuit, InARow, OfTheLast, OverTime, Rule, Tokens};
use crate::retry::layers as retries;
use crate::service::{Failed, Inner, Shared, number};
use crate::tower_policy::{TowerPolicy, exponential};

pub fn in_a_row() -> Vec<Contestant> {
    vec![
        by_hand(InARow::new(5)),
        by_hand_function(InARow::new(5)),
        mainstay(Trip::consecutive(5)),
        mainstay_function(Trip::consecutive(5)),
        failsafe(failure_policy::consecutive_failures(
            5,
            backoff::constant(HOUR),
        )),
        {
            let breaker = CircuitBreakerRs::<DefaultPolicy, Failed>::builder();
            let breaker = breaker.cooldown(HOUR).build();
            function("circuitbreaker-rs, function", move |request| {
                number(breaker.call(|| Shared.answer(request)))
            })
        },
        service("tower-resilience", {
            theirs()
                .consecutive_failures(5)
                .build()
                .unwrap()
                .layer(Shared)
        }),
    ]
}

pub fn of_the_last() -> Vec<Contestant> {
    let trip = Trip::failure_rate(0.5).window(Window::count(100));
    vec![
        by_hand(OfTheLast::new(100)),
        by_hand_function(OfTheLast::new(100)),
        mainstay(trip),
        mainstay_function(trip),
        {
            let breaker = Arc::new(recloser());
            function("recloser, function", move |request| {
                number(breaker.call(|| Shared.answer(request)))
            })
        },
        reliakit(),
        service("tower-resilience", theirs().build().unwrap().layer(Shared)),
    ]
}

/// Without tower-resilience, whose window would hold each call of the race, and each call looks at all of them.
pub fn over_time() -> Vec<Contestant> {
    vec![
        by_hand(OverTime::new(TEN_SECONDS)),
        by_hand_function(OverTime::new(TEN_SECONDS)),
        mainstay(rate_over(TEN_SECONDS)),
        mainstay_function(rate_over(TEN_SECONDS)),
        failsafe(failsafe_rate(TEN_SECONDS)),
    ]
}

pub fn budget() -> Vec<Contestant> {
    vec![
        service("hand-written", {
            by_hand::Retry::new(Shared, Tokens::shared(), Result::is_err)
        }),
        service(
            "mainstay, token budget",
            retries::mainstay(0.1).layer(Shared),
        ),
        service("tower, TpsBudget", {
            Retry::new(TowerPolicy::new(0.2, exponential(), Result::is_err), Shared)
        }),
        service("tower-resilience, token bucket", {
            let bucket = RetryBudgetBuilder::new().token_bucket().build().unwrap();
            let retry = retries::theirs().exponential_backoff(Duration::from_millis(100));
            retry.budget(bucket).build().layer(Shared)
        }),
    ]
}

fn by_hand(rule: impl Rule) -> Contestant {
    let circuit = Circuit::shared(rule);
    service(
        "hand-written",
        by_hand::Breaker::new(Shared, circuit, Result::is_err),
    )
}

fn by_hand_function(rule: impl Rule) -> Contestant {
    let circuit = Circuit::shared(rule);
    function("hand-written, function", move |request| {
        number(circuit.call(|| Shared.answer(request)))
    })
}

fn mainstay(trip: Trip) -> Contestant {
    service(
        "mainstay",
        breaker(trip).layer_with(EveryError).layer(Shared),
    )
}

fn mainstay_function(trip: Trip) -> Contestant {
    let breaker = breaker(trip);
    function("mainstay, function", move |request| {
        let outcome = breaker.call_blocking(&EveryError, || Shared.answer(request));
        outcome.map_or(0, number)
    })
}

fn failsafe(policy: impl FailurePolicy + Send + Sync + 'static) -> Contestant {
    let breaker = Config::new().failure_policy(policy).build();
    function("failsafe, function", move |request| {
        number(breaker.call(|| Shared.answer(request)))
    })
}

/// With the lock and the clock that it needs to be shared.
fn reliakit() -> Contestant {
    let hour = HOUR.as_millis() as u64;
    let breaker = Arc::new(Mutex::new(RollingBreaker::<100>::new(50, hour)));
    let start = Instant::now();
    let now = move || start.elapsed().as_millis() as u64;
    function("reliakit-circuit in a Mutex, function", move |request| {
        if !breaker.lock().unwrap().allow(now()) {
            return 0;
        }
        let outcome = Shared.answer(request);
        let mut breaker = breaker.lock().unwrap();
        match &outcome {
            Ok(_) => breaker.on_success(),
            Err(_) => breaker.on_failure(now()),
        }
        number(outcome)
    })
}
