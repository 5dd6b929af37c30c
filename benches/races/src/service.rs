//! The services at the bottom, the same for every contestant, and the way to call them.

use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use tower::Service;

use crate::race::{Contestant, Prepared};
use crate::timer;

/// A request that every service but [`Flaky`] fails.
pub const FAIL: u64 = u64::MAX;

#[derive(Clone, Debug, thiserror::Error)]
#[error("failed")]
pub struct Failed;

/// A service at the bottom; or a function, for contestants that wrap those.
pub trait Inner:
    Service<u64, Response = u64, Error = Failed, Future: Send> + Clone + Send + Sync + 'static
{
    /// The same without a future.
    fn answer(&self, request: u64) -> Result<u64, Failed>;
}

/// Too opaque to be optimised away.
#[inline(never)]
fn answer(request: u64) -> Result<u64, Failed> {
    if request == FAIL {
        Err(Failed)
    } else {
        Ok(black_box(request) + 1)
    }
}

macro_rules! answers {
    ($service:ty, $future:ty, |$answer:pat_param| $wrap:expr) => {
        impl Service<u64> for $service {
            type Response = u64;
            type Error = Failed;
            type Future = $future;

            fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: u64) -> Self::Future {
                let $answer = self.answer(request);
                $wrap
            }
        }
    };
}

/// Has the answer at once.
#[derive(Clone, Copy)]
pub struct AtOnce;

impl Inner for AtOnce {
    fn answer(&self, request: u64) -> Result<u64, Failed> {
        answer(request)
    }
}

answers!(AtOnce, Ready<Result<u64, Failed>>, |answer| ready(answer));

/// The same for threads that share what is around it: a type of its own, for the reason that [`calls`] has.
#[derive(Clone, Copy)]
pub struct Shared;

impl Inner for Shared {
    fn answer(&self, request: u64) -> Result<u64, Failed> {
        answer(request)
    }
}

answers!(Shared, Ready<Result<u64, Failed>>, |answer| ready(answer));

/// Has the answer at the second poll, and wakes itself for that.
#[derive(Clone, Copy)]
pub struct PendingOnce;

impl Inner for PendingOnce {
    fn answer(&self, request: u64) -> Result<u64, Failed> {
        answer(request)
    }
}

answers!(PendingOnce, Later<Result<u64, Failed>>, |answer| {
    Later::new(answer, true)
});

/// An answer for the first poll, or for the second.
pub struct Later<T> {
    answer: Option<T>,
    pending: bool,
}

impl<T> Later<T> {
    pub const fn new(answer: T, pending: bool) -> Self {
        Self {
            answer: Some(answer),
            pending,
        }
    }
}

impl<T: Unpin> Future for Later<T> {
    type Output = T;

    // Else the compiler knows beforehand how the polls end.
    #[inline(never)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        if std::mem::take(&mut self.pending) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.answer.take().expect("is not polled after that"))
    }
}

/// Fails and succeeds by turns, so that each call that is tried again succeeds at the second attempt.
#[derive(Clone, Default)]
pub struct Flaky(Arc<AtomicBool>);

impl Inner for Flaky {
    fn answer(&self, request: u64) -> Result<u64, Failed> {
        let failed = self.0.load(Relaxed);
        self.0.store(!failed, Relaxed);
        answer(if failed { request } else { FAIL })
    }
}

answers!(Flaky, Ready<Result<u64, Failed>>, |answer| ready(answer));

/// Counts the attempts that reach it, to check a contestant.
#[derive(Clone)]
pub struct Counted<S> {
    inner: S,
    attempts: Arc<AtomicUsize>,
}

impl<S> Counted<S> {
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            attempts: Arc::default(),
        }
    }

    /// How many came since it was last asked.
    pub fn take(&self) -> usize {
        self.attempts.swap(0, Relaxed)
    }
}

impl<S: Inner> Inner for Counted<S> {
    fn answer(&self, request: u64) -> Result<u64, Failed> {
        self.attempts.fetch_add(1, Relaxed);
        self.inner.answer(request)
    }
}

impl<S: Inner> Service<u64> for Counted<S> {
    type Response = u64;
    type Error = Failed;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: u64) -> Self::Future {
        self.attempts.fetch_add(1, Relaxed);
        self.inner.call(request)
    }
}

/// `poll_ready`, `call`, and polls until the outcome is there; zero for a failure.
#[inline(always)]
pub fn call<S: Service<u64, Response = u64>>(service: &mut S, request: u64) -> usize {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))));
    number(finish(service.call(request)))
}

/// A contestant that is a service around this one.
pub fn service<S, W>(
    name: &str,
    inner: &S,
    wrap: impl FnOnce(S) -> W + 'static,
) -> Contestant<'static>
where
    S: Inner,
    W: Service<u64, Response = u64> + 'static,
{
    let inner = inner.clone();
    Contestant::new(name, || calls(wrap(inner)))
}

// For each type of service once, whatever it was wrapped by: what is called in one place can be inlined there, and a
// client is.
fn calls<W: Service<u64, Response = u64> + 'static>(mut service: W) -> Prepared<'static> {
    Prepared::new(move |request| call(&mut service, request))
}

/// The answer as what a contestant returns; zero for a failure.
#[inline(always)]
pub fn number<E>(outcome: Result<u64, E>) -> usize {
    outcome.map_or(0, |answer| answer as usize)
}

/// Polls until it is ready: in one place, as an `await` does. At first with nobody to be woken, which costs the same for
/// everybody; who is still not ready then waits for a timer, which needs a runtime to run.
#[inline(always)]
pub fn finish<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for polls in 1_u32.. {
        if let Poll::Ready(outcome) = future.as_mut().poll(&mut cx) {
            return outcome;
        }
        if polls >= 2 {
            cx = timer::wait(polls == 2);
        }
    }
    unreachable!("it would have taken long")
}

/// How a request is copied to be sent again.
pub trait TryClone: Sized {
    fn try_clone(&self) -> Option<Self>;
}

impl TryClone for u64 {
    fn try_clone(&self) -> Option<Self> {
        Some(*self)
    }
}

impl TryClone for http::Request<String> {
    fn try_clone(&self) -> Option<Self> {
        Some(self.clone())
    }
}

impl TryClone for reqwest::Request {
    fn try_clone(&self) -> Option<Self> {
        Self::try_clone(self)
    }
}
