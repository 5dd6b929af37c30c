//! What a call costs the allocator: nothing.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use mainstay_retry::{
    Backoff, Budget, CloneReplay, EveryError, GrpcThrottle, RatioBudget, RetryLayer, TokenBudget,
};
use tower::{Layer, Service};

/// Fails every so many calls, and is pending once before each answer if it is to be.
#[derive(Clone)]
struct Inner {
    calls: Arc<AtomicU64>,
    fails_every: u64,
    pending: bool,
}

struct Answer {
    outcome: Result<u64, u64>,
    pending: bool,
}

impl Future for Answer {
    type Output = Result<u64, u64>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::take(&mut self.pending) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.outcome)
    }
}

impl Service<u64> for Inner {
    type Response = u64;
    type Error = u64;
    type Future = Answer;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), u64>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Answer {
        let call = self.calls.fetch_add(1, Relaxed);
        let fails = self.fails_every > 0 && call.is_multiple_of(self.fails_every);
        Answer {
            outcome: if fails { Err(request) } else { Ok(request) },
            pending: self.pending,
        }
    }
}

fn run(budget: &Arc<dyn Budget>, fails_every: u64, pending: bool) -> u64 {
    let inner = Inner {
        calls: Arc::default(),
        fails_every,
        pending,
    };
    let calls = Arc::clone(&inner.calls);
    let layer = RetryLayer::new(EveryError, CloneReplay)
        .backoff(Backoff::constant(Duration::ZERO))
        .budget(Arc::clone(budget));
    let mut service = layer.layer(inner);
    let mut cx = Context::from_waker(Waker::noop());
    let mut call = || {
        assert!(service.poll_ready(&mut cx).is_ready());
        let mut future = pin!(service.call(7));
        while future.as_mut().poll(&mut cx).is_pending() {}
    };
    call(); // what is made once in a process is made here
    call();
    let before = calls.load(Relaxed);
    let used = allocation_counter::measure(|| (0..10).for_each(|_| call()));
    assert_eq!((used.count_total, used.bytes_total), (0, 0));
    calls.load(Relaxed) - before
}

#[tokio::test]
async fn a_success_a_retry_and_a_refusal_allocate_nothing() {
    let rich: [Arc<dyn Budget>; 3] = [
        TokenBudget::success_credit(1.0)
            .capacity(100)
            .shared()
            .unwrap(),
        RatioBudget::of_calls(1.0).shared().unwrap(),
        GrpcThrottle::shared(100.0, 1.0).unwrap(),
    ];
    let poor: Arc<dyn Budget> = TokenBudget::success_credit(0.0)
        .capacity(0)
        .shared()
        .unwrap();
    for pending in [false, true] {
        for budget in &rich {
            assert_eq!(run(budget, 0, pending), 10, "all succeed");
            assert_eq!(run(budget, 2, pending), 20, "each is tried twice");
        }
        assert_eq!(run(&poor, 1, pending), 10, "none is tried again");
    }
}
