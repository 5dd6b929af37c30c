//! Breakers as a layer around a service, or around a future.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use failsafe::futures::CircuitBreaker as _;
use failsafe::{backoff, failure_policy};
use mainstay_retry::{Backoff, CircuitBreaker, EveryError, Trip, breaker::Window};
use recloser::{AsyncRecloser, Recloser};
use tower::Layer;
use tower_resilience_circuitbreaker::{
    CircuitBreakerConfigBuilder, CircuitBreakerLayer, DefaultClassifier, SlidingWindowType,
};

use super::{ALONE, FULL};
use crate::by_hand::{self, Circuit, InARow, OfTheLast, OverTime, Rule};
use crate::race::{Contestant, kept_up, prepared};
use crate::service::{Inner, call, finish, number, service};

pub const HOUR: Duration = Duration::from_secs(3_600);
pub const TEN_SECONDS: Duration = Duration::from_secs(10);

pub fn in_a_row<S: Inner>(inner: S) -> Vec<Contestant<'static>> {
    vec![
        by_hand(&inner, || InARow::new(5)),
        alone(&inner),
        mainstay(&inner, Trip::consecutive(5)),
        {
            let policy = failure_policy::consecutive_failures(5, backoff::constant(HOUR));
            failsafe("failsafe, future", &inner, policy)
        },
        service("tower-resilience", &inner, |inner| {
            let breaker = theirs().consecutive_failures(5);
            breaker.build().unwrap().layer(inner)
        }),
    ]
}

pub fn of_the_last<S: Inner>(inner: S) -> Vec<Contestant<'static>> {
    let window = Window::count(100);
    vec![
        by_hand(&inner, || OfTheLast::new(100)),
        alone(&inner),
        mainstay(&inner, Trip::failure_rate(0.5).window(window)),
        recloser_future(&inner),
        service("tower-resilience", &inner, |inner| {
            theirs().build().unwrap().layer(inner)
        }),
    ]
}

pub fn over_time<S: Inner>(inner: S) -> Vec<Contestant<'static>> {
    vec![
        by_hand(&inner, || OverTime::new(TEN_SECONDS)),
        alone(&inner),
        mainstay(&inner, rate_over(TEN_SECONDS)),
        failsafe(
            "failsafe, future, a moving average",
            &inner,
            failsafe_rate(TEN_SECONDS),
        ),
        timed(&inner, "tower-resilience, 100 calls", TEN_SECONDS, 100),
    ]
}

/// With ten million calls in the window; of the one contestant that looks at each of them, ten thousand.
pub fn over_time_full<S: Inner>(inner: S) -> Vec<Contestant<'static>> {
    let full = |contestant: Contestant<'static>| contestant.after(FULL, 7);
    vec![
        full(by_hand(&inner, || OverTime::new(HOUR))),
        alone(&inner),
        full(mainstay(&inner, rate_over(HOUR))),
        full(failsafe(
            "failsafe, future, a moving average",
            &inner,
            failsafe_rate(HOUR),
        )),
        timed(&inner, "tower-resilience, 1,000 calls", HOUR, 1_000),
        timed(&inner, "tower-resilience, 10,000 calls", HOUR, 10_000),
    ]
}

/// With so many calls in a window of an hour; the one contestant that looks at each of them, with no more than ten
/// thousand.
pub fn holding<S: Inner>(inner: S, calls: u32) -> Vec<Contestant<'static>> {
    let mut all = vec![
        by_hand(&inner, || OverTime::new(HOUR)).after(calls, 7),
        mainstay(&inner, rate_over(HOUR)).after(calls, 7),
        failsafe(
            "failsafe, future, a moving average",
            &inner,
            failsafe_rate(HOUR),
        )
        .after(calls, 7),
    ];
    if calls <= 10_000 {
        let calls = usize::try_from(calls).unwrap();
        all.push(timed(&inner, "tower-resilience", HOUR, calls));
    }
    all
}

/// Each is open after 200 failures.
pub fn to_open<S: Inner>(inner: S) -> Vec<Contestant<'static>> {
    let mut all = in_a_row(inner.clone());
    all.push(recloser_future(&inner));
    all
}

fn by_hand<S: Inner, R: Rule>(
    inner: &S,
    rule: impl FnOnce() -> R + 'static,
) -> Contestant<'static> {
    service("hand-written", inner, |inner| {
        by_hand::Breaker::new(inner, Circuit::shared(rule()), Result::is_err)
    })
}

fn alone<S: Inner>(inner: &S) -> Contestant<'static> {
    service(ALONE, inner, |inner| inner)
}

/// Half of at least twenty calls.
pub const fn rate_over(length: Duration) -> Trip {
    Trip::failure_rate(0.5)
        .window(Window::time(length))
        .min_calls(20)
}

pub fn breaker(trip: Trip) -> CircuitBreaker {
    CircuitBreaker::builder("race")
        .trip(trip)
        .wait_in_open(Backoff::constant(HOUR))
        .build()
        .unwrap()
}

fn mainstay<S: Inner>(inner: &S, trip: Trip) -> Contestant<'static> {
    service("mainstay", inner, move |inner| {
        breaker(trip).layer_with(EveryError).layer(inner)
    })
}

/// Its own settings are these but for the wait, which is 30 s.
pub fn recloser() -> Recloser {
    Recloser::custom()
        .error_rate(0.5)
        .closed_len(100)
        .open_wait(HOUR)
        .build()
}

// It wraps a future, which must do nothing before it is polled: a service may.
fn recloser_future<S: Inner>(inner: &S) -> Contestant<'static> {
    let mut inner = inner.clone();
    prepared("recloser, future", || {
        let breaker = AsyncRecloser::from(recloser());
        move |request| number(finish(breaker.call(async { inner.call(request).await })))
    })
}

/// Half of at least twenty calls, as a moving average.
pub fn failsafe_rate(
    length: Duration,
) -> failure_policy::SuccessRateOverTimeWindow<backoff::Constant> {
    failure_policy::success_rate_over_time_window(0.5, 20, length, backoff::constant(HOUR))
}

fn failsafe<S: Inner>(
    name: &str,
    inner: &S,
    policy: impl failsafe::FailurePolicy + Send + Sync + 'static,
) -> Contestant<'static> {
    let mut inner = inner.clone();
    prepared(name, || {
        let breaker = failsafe::Config::new().failure_policy(policy).build();
        move |request| number(finish(breaker.call(async { inner.call(request).await })))
    })
}

/// Half of the last hundred calls are its own settings.
pub fn theirs() -> CircuitBreakerConfigBuilder<DefaultClassifier> {
    CircuitBreakerLayer::builder().wait_duration_in_open(HOUR)
}

/// It keeps a record of each call, so each makes the next one dearer: between two rounds the window is filled anew.
fn timed<S: Inner>(inner: &S, name: &str, length: Duration, calls: usize) -> Contestant<'static> {
    let inner = inner.clone();
    kept_up(name, move || {
        let breaker = theirs()
            .sliding_window_type(SlidingWindowType::TimeBased)
            .sliding_window_duration(length)
            .minimum_number_of_calls(20)
            .build()
            .unwrap();
        let service = Rc::new(RefCell::new(breaker.layer(inner)));
        let fill = {
            let service = Rc::clone(&service);
            move || {
                let mut service = service.borrow_mut();
                let here = finish(service.metrics()).total_calls;
                if here > calls + calls / 10 {
                    // `reset` forgets nothing while the circuit is closed.
                    finish(service.force_open());
                    finish(service.force_closed());
                }
                let here = finish(service.metrics()).total_calls;
                for _ in here..calls {
                    call(&mut *service, 7);
                }
            }
        };
        fill();
        (
            move |request| call(&mut *service.borrow_mut(), request),
            fill,
        )
    })
}
