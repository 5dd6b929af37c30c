//! Breakers around a function that answers at once.

use std::sync::Mutex;
use std::time::Instant;

use circuitbreaker_rs::{CircuitBreaker as CircuitBreakerRs, DefaultPolicy};
use failsafe::{CircuitBreaker as _, backoff, failure_policy};
use mainstay_retry::{EveryError, Trip, breaker::Window};
use reliakit_circuit::{CircuitBreaker as Reliakit, RollingBreaker};

use super::ALONE;
use super::layers::{self, HOUR, TEN_SECONDS, breaker, failsafe_rate, rate_over};
use crate::by_hand::{Circuit, InARow, OfTheLast, OverTime, Rule};
use crate::race::{Contestant, prepared};
use crate::service::{Failed, Inner, number};

pub fn in_a_row<S: Inner>(inner: S) -> Vec<Contestant<'static>> {
    vec![
        by_hand(&inner, || InARow::new(5)),
        alone(&inner),
        mainstay(&inner, Trip::consecutive(5)),
        {
            let policy = failure_policy::consecutive_failures(5, backoff::constant(HOUR));
            failsafe("failsafe", &inner, policy)
        },
        {
            let inner = inner.clone();
            // Its own settings but for the wait: five in a row, or half of all calls.
            prepared("circuitbreaker-rs", move || {
                let breaker = CircuitBreakerRs::<DefaultPolicy, Failed>::builder();
                let breaker = breaker.cooldown(HOUR).build();
                move |request| number(breaker.call(|| inner.answer(request)))
            })
        },
        locked("reliakit-circuit in a Mutex", &inner, || {
            Reliakit::new(5, hour())
        }),
    ]
}

pub fn of_the_last<S: Inner>(inner: S) -> Vec<Contestant<'static>> {
    let window = Window::count(100);
    vec![
        by_hand(&inner, || OfTheLast::new(100)),
        alone(&inner),
        mainstay(&inner, Trip::failure_rate(0.5).window(window)),
        recloser(&inner),
        locked("reliakit-circuit in a Mutex", &inner, || {
            RollingBreaker::<100>::new(50, hour())
        }),
    ]
}

pub fn over_time<S: Inner>(inner: S) -> Vec<Contestant<'static>> {
    vec![
        by_hand(&inner, || OverTime::new(TEN_SECONDS)),
        alone(&inner),
        mainstay(&inner, rate_over(TEN_SECONDS)),
        failsafe(
            "failsafe, a moving average",
            &inner,
            failsafe_rate(TEN_SECONDS),
        ),
    ]
}

/// Each is open after 200 failures.
pub fn to_open<S: Inner>(inner: S) -> Vec<Contestant<'static>> {
    let mut all = in_a_row(inner.clone());
    all.push(recloser(&inner));
    all
}

fn by_hand<S: Inner, R: Rule>(
    inner: &S,
    rule: impl FnOnce() -> R + 'static,
) -> Contestant<'static> {
    let inner = inner.clone();
    prepared("hand-written", || {
        let circuit = Circuit::shared(rule());
        move |request| number(circuit.call(|| inner.answer(request)))
    })
}

fn alone<S: Inner>(inner: &S) -> Contestant<'static> {
    let inner = inner.clone();
    prepared(ALONE, || move |request| number(inner.answer(request)))
}

fn mainstay<S: Inner>(inner: &S, trip: Trip) -> Contestant<'static> {
    let inner = inner.clone();
    prepared("mainstay", move || {
        let breaker = breaker(trip);
        move |request| {
            let outcome = breaker.call_blocking(&EveryError, || inner.answer(request));
            outcome.map_or(0, number)
        }
    })
}

fn recloser<S: Inner>(inner: &S) -> Contestant<'static> {
    let inner = inner.clone();
    prepared("recloser", move || {
        let breaker = layers::recloser();
        move |request| number(breaker.call(|| inner.answer(request)))
    })
}

fn failsafe<S: Inner>(
    name: &str,
    inner: &S,
    policy: impl failsafe::FailurePolicy + Send + Sync + 'static,
) -> Contestant<'static> {
    let inner = inner.clone();
    prepared(name, || {
        let breaker = failsafe::Config::new().failure_policy(policy).build();
        move |request| number(breaker.call(|| inner.answer(request)))
    })
}

/// A breaker that is told the time and knows no threads.
trait Bare: 'static {
    fn allow(&mut self, now: u64) -> bool;
    fn good(&mut self);
    fn bad(&mut self, now: u64);
}

macro_rules! bare {
    ($breaker:ty) => {
        impl Bare for $breaker {
            fn allow(&mut self, now: u64) -> bool {
                self.allow(now)
            }

            fn good(&mut self) {
                self.on_success();
            }

            fn bad(&mut self, now: u64) {
                self.on_failure(now);
            }
        }
    };
}

bare!(Reliakit);
bare!(RollingBreaker<100>);

/// In milliseconds.
fn hour() -> u64 {
    HOUR.as_millis() as u64
}

/// With the lock and the clock that it needs to be shared.
fn locked<S: Inner, B: Bare>(
    name: &str,
    inner: &S,
    breaker: impl FnOnce() -> B + 'static,
) -> Contestant<'static> {
    let inner = inner.clone();
    prepared(name, || {
        let breaker = Mutex::new(breaker());
        let start = Instant::now();
        let now = move || start.elapsed().as_millis() as u64;
        move |request| {
            if !breaker.lock().unwrap().allow(now()) {
                return 0;
            }
            let outcome = inner.answer(request);
            let mut breaker = breaker.lock().unwrap();
            match &outcome {
                Ok(_) => breaker.good(),
                Err(_) => breaker.bad(now()),
            }
            number(outcome)
        }
    })
}
