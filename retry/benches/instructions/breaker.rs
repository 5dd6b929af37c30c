//! The breaker, closed by each rule and refusing. Its service fails with an error, as breakers want.

use std::{
    future::{Future, Ready, ready},
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use mainstay_retry::{Backoff, CircuitBreaker, EveryError, Kind, Trip, Verdict, breaker::Window};
use tower_layer::Layer;
use tower_service::Service;

use crate::Operation;

pub const OPERATIONS: &[Operation] = &[
    ("breaker_bare", bare),
    ("breaker_consecutive", breaker_consecutive),
    ("breaker_count", breaker_count),
    ("breaker_time", breaker_time),
    ("breaker_time_full", breaker_time_full),
    ("breaker_ewma", breaker_ewma),
    ("breaker_slow", breaker_slow),
    ("breaker_consecutive_or_time", breaker_consecutive_or_time),
    ("breaker_reject_open", breaker_reject_open),
    ("breaker_reject_forced", breaker_reject_forced),
];

/// Ready at once, and too opaque to be optimised away.
#[derive(Clone)]
struct Inner;

#[derive(Debug)]
struct Failed;

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("failed")
    }
}

impl std::error::Error for Failed {}

#[inline(never)]
fn answer(n: u64) -> Result<u64, Failed> {
    if n == u64::MAX {
        Err(Failed)
    } else {
        Ok(black_box(n) + 1)
    }
}

impl Service<u64> for Inner {
    type Response = u64;
    type Error = Failed;
    type Future = Ready<Result<u64, Failed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, n: u64) -> Self::Future {
        ready(answer(n))
    }
}

/// One op, `n` times.
fn drive<S: Service<u64, Response = u64>>(mut service: S, n: u64) {
    let mut cx = Context::from_waker(Waker::noop());
    for i in 0..n {
        let Poll::Ready(Ok(())) = service.poll_ready(&mut cx) else {
            panic!("not ready");
        };
        let future = pin!(service.call(i));
        let Poll::Ready(outcome) = future.poll(&mut cx) else {
            panic!("not at once");
        };
        let _ = black_box(outcome.is_ok());
    }
}

fn breaker(trip: Trip) -> CircuitBreaker {
    CircuitBreaker::builder("bench")
        .trip(trip)
        .wait_in_open(Backoff::constant(Duration::from_secs(3_600)))
        .build()
        .unwrap()
}

fn bare(n: u64) {
    drive(Inner, n);
}

fn breaker_consecutive(n: u64) {
    drive(
        breaker(Trip::consecutive(5))
            .layer_with(EveryError)
            .layer(Inner),
        n,
    );
}

fn closed(trip: Trip, n: u64) {
    drive(breaker(trip).layer_with(EveryError).layer(Inner), n);
}

fn breaker_count(n: u64) {
    closed(Trip::failure_rate(0.5).window(Window::count(100)), n);
}

fn breaker_time(n: u64) {
    let window = Window::time(Duration::from_secs(3_600));
    closed(Trip::failure_rate(0.5).window(window), n);
}

/// The same with ten million calls in the window. Their cost is part of the run, and of the difference not.
fn breaker_time_full(n: u64) {
    let window = Window::time(Duration::from_secs(3_600));
    let breaker = breaker(Trip::failure_rate(0.5).window(window));
    for _ in 0..10_000_000 {
        let permit = breaker.try_acquire().unwrap();
        permit.record(Verdict::Success);
    }
    drive(breaker.layer_with(EveryError).layer(Inner), n);
}

fn breaker_ewma(n: u64) {
    closed(Trip::failure_rate(0.5).window(Window::ewma(100)), n);
}

fn breaker_slow(n: u64) {
    closed(Trip::slow_calls(0.5, Duration::from_secs(1)), n);
}

fn breaker_consecutive_or_time(n: u64) {
    let window = Window::time(Duration::from_secs(3_600));
    let trip = Trip::consecutive(5).or(Trip::failure_rate(0.5).window(window));
    closed(trip, n);
}

fn breaker_reject_open(n: u64) {
    let breaker = breaker(Trip::consecutive(1));
    let permit = breaker.try_acquire().unwrap();
    permit.record(Verdict::Failure(Kind::Server));
    drive(breaker.layer_with(EveryError).layer(Inner), n);
}

fn breaker_reject_forced(n: u64) {
    let breaker = breaker(Trip::consecutive(1));
    breaker.handle().force_open();
    drive(breaker.layer_with(EveryError).layer(Inner), n);
}
