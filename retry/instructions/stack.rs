//! Layers together, as a client has them.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use http::{Request, Response};
use mainstay_retry::{
    AttemptTimeoutLayer, CircuitBreaker, CloneReplay, DeadlineLayer, EveryError, RetryLayer,
    TokenBudget, Trip, deadline::Untold,
};
use tower::{Service, ServiceBuilder};

use crate::{
    Operation,
    support::{Inner, calls},
};

pub const OPERATIONS: &[Operation] = &[
    ("clock", |n| {
        (0..n).for_each(|_| _ = black_box(now()));
    }),
    ("clock_tokio", |n| {
        (0..n).for_each(|_| _ = black_box(tokio::time::Instant::now()));
    }),
    ("stack_generic", |n| {
        let service = ServiceBuilder::new()
            .layer(RetryLayer::new(EveryError, CloneReplay).budget(budget()))
            .layer(breaker().layer_with(EveryError))
            .layer(AttemptTimeoutLayer::new(SECOND))
            .service(Inner);
        calls(service, n);
    }),
    ("stack_generic_deadline", |n| {
        let service = ServiceBuilder::new()
            .layer(DeadlineLayer::total(SECOND).carried_by(Untold))
            .layer(RetryLayer::new(EveryError, CloneReplay).budget(budget()))
            .layer(breaker().layer_with(EveryError))
            .service(Inner);
        calls(service, n);
    }),
    ("stack_http_bare", |n| requests(Web, n)),
    ("stack_http_deadline", |n| {
        let deadline = DeadlineLayer::total(SECOND);
        requests(ServiceBuilder::new().layer(deadline).service(Web), n);
    }),
    ("stack_http_deadline_not_told", |n| {
        let deadline = DeadlineLayer::total(SECOND).propagate(false);
        requests(ServiceBuilder::new().layer(deadline).service(Web), n);
    }),
    ("stack_http_retry", |n| {
        let retry = RetryLayer::http().budget(budget());
        requests(ServiceBuilder::new().layer(retry).service(Web), n);
    }),
    ("stack_http_retry_breaker_timeout", |n| {
        let service = ServiceBuilder::new()
            .layer(RetryLayer::http().budget(budget()))
            .layer(breaker().layer())
            .layer(AttemptTimeoutLayer::new(SECOND))
            .service(Web);
        requests(service, n);
    }),
    ("stack_success", |n| {
        let service = ServiceBuilder::new()
            .layer(DeadlineLayer::total(SECOND))
            .layer(RetryLayer::http().budget(budget()))
            .layer(breaker().layer())
            .service(Web);
        requests(service, n);
    }),
    ("stack_success_all", |n| {
        let service = ServiceBuilder::new()
            .layer(DeadlineLayer::total(SECOND))
            .layer(RetryLayer::http().budget(budget()))
            .layer(breaker().layer())
            .layer(AttemptTimeoutLayer::new(SECOND))
            .service(Web);
        requests(service, n);
    }),
];

const SECOND: Duration = Duration::from_secs(1);

#[expect(clippy::disallowed_methods, reason = "what it costs by itself")]
fn now() -> Instant {
    Instant::now()
}

fn budget() -> std::sync::Arc<TokenBudget> {
    TokenBudget::success_credit(0.1).shared().unwrap()
}

fn breaker() -> CircuitBreaker {
    let trip = Trip::consecutive(5);
    CircuitBreaker::builder("bench").trip(trip).build().unwrap()
}

/// Answers every request with an empty 200.
#[derive(Clone, Copy)]
struct Web;

impl Service<Request<String>> for Web {
    type Response = Response<u64>;
    type Error = Infallible;
    type Future = Ready<Result<Response<u64>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[inline(never)]
    fn call(&mut self, request: Request<String>) -> Self::Future {
        ready(black_box(Ok(Response::new(request.body().len() as u64))))
    }
}

/// One GET each, made and answered.
fn requests<S>(mut service: S, iterations: u64)
where
    S: Service<Request<String>, Response = Response<u64>>,
{
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..iterations {
        let Poll::Ready(Ok(())) = service.poll_ready(&mut cx) else {
            panic!("not ready");
        };
        let request = black_box(Request::new(String::new()));
        match pin!(service.call(request)).poll(&mut cx) {
            Poll::Ready(outcome) => assert!(black_box(outcome).is_ok()),
            Poll::Pending => panic!("not done"),
        }
    }
}
