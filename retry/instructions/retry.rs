//! Retry, by outcome and budget.

use std::{
    future::{Ready, ready},
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready as done},
    time::Duration,
};

use mainstay_retry::{
    Backoff, Budget, CloneReplay, EveryError, GrpcThrottle, RatioBudget, RetryLayer, TokenBudget,
};
use tower::{Layer, Service};

use crate::{
    Operation,
    support::{Inner, calls},
};

pub const OPERATIONS: &[Operation] = &[
    ("retry_hand_written", |n| calls(lower_bound(Inner), n)),
    ("retry_no_budget", |n| {
        calls(eager().without_budget().layer(Inner), n);
    }),
    ("retry_success", |n| calls(with(tokens(), Inner), n)),
    ("retry_success_ratio", |n| {
        let budget = RatioBudget::of_calls(0.2).shared().unwrap();
        calls(with(budget, Inner), n);
    }),
    ("retry_success_throttle", |n| {
        let budget = GrpcThrottle::shared(10.0, 0.1).unwrap();
        calls(with(budget, Inner), n);
    }),
    ("retry_one_failure_hand_written", |n| {
        calls(lower_bound(Flaky::default()), n);
    }),
    ("retry_one_failure", |n| {
        calls(with(tokens(), Flaky::default()), n);
    }),
    ("retry_one_failure_no_refill", |n| {
        let budget = TokenBudget::success_credit(1.0)
            .refill_per_second(0.0)
            .shared()
            .unwrap();
        calls(with(budget, Flaky::default()), n);
    }),
    ("retry_one_failure_no_budget", |n| {
        calls(eager().without_budget().layer(Flaky::default()), n);
    }),
    ("retry_refused", |n| {
        let budget = TokenBudget::success_credit(0.0)
            .capacity(0)
            .refill_per_second(0.0)
            .shared()
            .unwrap();
        calls(with(budget, Broken), n);
    }),
];

fn eager() -> RetryLayer<EveryError, CloneReplay> {
    RetryLayer::new(EveryError, CloneReplay).backoff(Backoff::constant(Duration::ZERO))
}

fn with<S>(
    budget: Arc<dyn Budget>,
    service: S,
) -> mainstay_retry::retry::Retry<S, EveryError, CloneReplay> {
    eager().budget(budget).layer(service)
}

/// A success pays for the retry before it, so that the budget never ends.
fn tokens() -> Arc<TokenBudget> {
    TokenBudget::success_credit(1.0).shared().unwrap()
}

/// Fails each call once, by turns.
#[derive(Clone, Default)]
struct Flaky(Arc<AtomicBool>);

impl Service<u64> for Flaky {
    type Response = u64;
    type Error = u64;
    type Future = Ready<Result<u64, u64>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), u64>> {
        Poll::Ready(Ok(()))
    }

    #[inline(never)]
    fn call(&mut self, request: u64) -> Self::Future {
        let failed = self.0.load(Relaxed);
        self.0.store(!failed, Relaxed);
        ready(black_box(if failed { Ok(request) } else { Err(request) }))
    }
}

#[derive(Clone)]
struct Broken;

impl Service<u64> for Broken {
    type Response = u64;
    type Error = u64;
    type Future = Ready<Result<u64, u64>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), u64>> {
        Poll::Ready(Ok(()))
    }

    #[inline(never)]
    fn call(&mut self, request: u64) -> Self::Future {
        ready(black_box(Err(request)))
    }
}

/// What one would write by hand: one more attempt, a budget of one atomic, nothing to set.
#[derive(Clone)]
struct ByHand<S> {
    inner: S,
    tokens: Arc<AtomicU64>,
}

const FULL: u64 = 10;

fn lower_bound<S>(inner: S) -> ByHand<S> {
    let tokens = Arc::new(AtomicU64::new(FULL));
    ByHand { inner, tokens }
}

pin_project_lite::pin_project! {
    struct ByHandFuture<S: Service<u64>> {
        #[pin]
        future: S::Future,
        service: S,
        request: u64,
        attempt: u32,
        tokens: Arc<AtomicU64>,
    }
}

impl<S: Service<u64> + Clone> Service<u64> for ByHand<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = ByHandFuture<S>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: u64) -> Self::Future {
        let clone = self.inner.clone();
        let mut service = std::mem::replace(&mut self.inner, clone);
        ByHandFuture {
            future: service.call(request),
            service,
            request,
            attempt: 1,
            tokens: Arc::clone(&self.tokens),
        }
    }
}

impl<S: Service<u64>> Future for ByHandFuture<S> {
    type Output = Result<S::Response, S::Error>;

    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match done!(this.future.as_mut().poll(cx)) {
                Ok(response) => {
                    let tokens = this.tokens.load(Relaxed);
                    if tokens < FULL {
                        this.tokens.fetch_add(1, Relaxed);
                    }
                    return Poll::Ready(Ok(response));
                }
                Err(error) => {
                    if *this.attempt >= 3
                        || this
                            .tokens
                            .fetch_update(Relaxed, Relaxed, |tokens| tokens.checked_sub(1))
                            .is_err()
                    {
                        return Poll::Ready(Err(error));
                    }
                    *this.attempt += 1;
                    done!(this.service.poll_ready(cx))?;
                    let future = this.service.call(*this.request);
                    this.future.set(future);
                }
            }
        }
    }
}
