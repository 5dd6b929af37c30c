//! The breaker, closed by each rule and refusing. Its service fails with an error, as breakers want.

use std::{
    future::Future,
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use mainstay_retry::{Backoff, CircuitBreaker, EveryError, Kind, Trip, Verdict, breaker::Window};
use tower::{Layer, Service};

use crate::{
    Operation,
    support::{Inner, calls},
};

pub const OPERATIONS: &[Operation] = &[
    ("breaker_consecutive", breaker_consecutive),
    ("breaker_count", breaker_count),
    ("breaker_time", breaker_time),
    ("breaker_time_full", breaker_time_full),
    ("breaker_ewma", breaker_ewma),
    ("breaker_slow", breaker_slow),
    ("breaker_consecutive_or_time", breaker_consecutive_or_time),
    ("breaker_call", breaker_call),
    ("breaker_reject_open", breaker_reject_open),
    ("breaker_reject_forced", breaker_reject_forced),
];

fn breaker(trip: Trip) -> CircuitBreaker {
    CircuitBreaker::builder("bench")
        .trip(trip)
        .wait_in_open(Backoff::constant(Duration::from_secs(3_600)))
        .build()
        .unwrap()
}

fn breaker_consecutive(n: u64) {
    calls(
        breaker(Trip::consecutive(5))
            .layer_with(EveryError)
            .layer(Inner),
        n,
    );
}

fn closed(trip: Trip, n: u64) {
    calls(breaker(trip).layer_with(EveryError).layer(Inner), n);
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
    calls(breaker.layer_with(EveryError).layer(Inner), n);
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

/// Without a layer: a permit that borrows the circuit.
fn breaker_call(n: u64) {
    let breaker = breaker(Trip::consecutive(5));
    let mut cx = Context::from_waker(Waker::noop());
    for request in 0..n {
        let call = pin!(breaker.call(&EveryError, Inner.call(black_box(request))));
        let Poll::Ready(Ok(Ok(response))) = call.poll(&mut cx) else {
            panic!("not at once");
        };
        black_box(response);
    }
}

fn breaker_reject_open(n: u64) {
    let breaker = breaker(Trip::consecutive(1));
    let permit = breaker.try_acquire().unwrap();
    permit.record(Verdict::Failure(Kind::Server));
    calls(breaker.layer_with(EveryError).layer(Inner), n);
}

fn breaker_reject_forced(n: u64) {
    let breaker = breaker(Trip::consecutive(1));
    breaker.handle().force_open();
    calls(breaker.layer_with(EveryError).layer(Inner), n);
}
