//! What retry, breaker and deadline cost a call in the process, beside the service alone.
//!
//! ```sh
//! cargo bench --bench client_stack
//! ```
//!
//! Compare within one run; the bars are in instructions and allocations, which `benches/instructions` counts, and in ratios to what is
//! written by hand, which stands in `benches/races`.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::fmt;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use criterion::{
    BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use mainstay::retry::{
    Backoff, CircuitBreaker, CloneReplay, DeadlineLayer, EveryError, RetryLayer, TokenBudget, Trip,
    Verdict, breaker::Window, deadline::Untold,
};
use tower::{Layer, Service, ServiceBuilder};

const HOUR: Duration = Duration::from_secs(3_600);

#[derive(Debug)]
struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed")
    }
}

impl std::error::Error for Failed {}

/// Ready at once; where it is flaky, every other call fails.
#[derive(Clone, Copy)]
struct Inner {
    flaky: bool,
    calls: u64,
}

const STEADY: Inner = Inner {
    flaky: false,
    calls: 0,
};

impl Service<u64> for Inner {
    type Response = u64;
    type Error = Failed;
    type Future = Ready<Result<u64, Failed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    #[inline(never)]
    fn call(&mut self, request: u64) -> Self::Future {
        self.calls += 1;
        let fails = self.flaky && self.calls % 2 == 1;
        ready(if fails {
            Err(Failed)
        } else {
            Ok(black_box(request) + 1)
        })
    }
}

fn bench<S>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut service: S)
where
    S: Service<u64, Response = u64>,
{
    let mut cx = Context::from_waker(Waker::noop());
    group.bench_function(name, |b| {
        b.iter(|| {
            assert!(service.poll_ready(&mut cx).is_ready());
            match pin!(service.call(black_box(7))).poll(&mut cx) {
                Poll::Ready(answer) => answer.ok(),
                Poll::Pending => unreachable!("a service that answers at once"),
            }
        });
    });
}

fn budget(per_success: f64) -> Arc<TokenBudget> {
    TokenBudget::success_credit(per_success).shared().unwrap()
}

fn breaker(trip: Trip) -> CircuitBreaker {
    let breaker = CircuitBreaker::builder("bench").trip(trip);
    breaker
        .wait_in_open(Backoff::constant(HOUR))
        .build()
        .unwrap()
}

fn retry(c: &mut Criterion) {
    let mut group = c.benchmark_group("retry_success");
    bench(&mut group, "the_service_alone", STEADY);
    let retry = RetryLayer::new(EveryError, CloneReplay).budget(budget(0.1));
    bench(&mut group, "mainstay", retry.layer(STEADY));
    group.finish();

    let mut group = c.benchmark_group("retry_one_failure");
    let retry = RetryLayer::new(EveryError, CloneReplay).budget(budget(1.0));
    let retry = retry.backoff(Backoff::constant(Duration::ZERO));
    let flaky = Inner {
        flaky: true,
        calls: 0,
    };
    bench(&mut group, "mainstay", retry.layer(flaky));
    group.finish();
}

fn breakers(c: &mut Criterion) {
    let mut group = c.benchmark_group("breaker");
    bench(&mut group, "the_service_alone", STEADY);
    let time = || Trip::failure_rate(0.5).window(Window::time(HOUR));
    let closed = [
        ("five_in_a_row", Trip::consecutive(5)),
        (
            "half_of_100",
            Trip::failure_rate(0.5).window(Window::count(100)),
        ),
        ("half_within_an_hour", time()),
    ];
    for (name, trip) in closed {
        bench(
            &mut group,
            name,
            breaker(trip).layer_with(EveryError).layer(STEADY),
        );
    }
    let full = breaker(time());
    for _ in 0..10_000_000 {
        full.try_acquire().unwrap().record(Verdict::Success);
    }
    bench(
        &mut group,
        "half_within_an_hour_of_ten_million",
        full.layer_with(EveryError).layer(STEADY),
    );
    let open = breaker(Trip::consecutive(1));
    open.handle().force_open();
    bench(
        &mut group,
        "open",
        open.layer_with(EveryError).layer(STEADY),
    );
    group.finish();
}

fn stack(c: &mut Criterion) {
    let mut group = c.benchmark_group("client_stack");
    let service = ServiceBuilder::new()
        .layer(DeadlineLayer::total(Duration::from_secs(5)).carried_by(Untold))
        .layer(RetryLayer::new(EveryError, CloneReplay).budget(budget(0.1)))
        .layer(breaker(Trip::consecutive(5)).layer_with(EveryError))
        .service(STEADY);
    bench(&mut group, "deadline_retry_breaker", service);
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = retry, breakers, stack
}
criterion_main!(benches);
