//! A limit on one attempt, below retry and breaker, so that an attempt that hangs is tried again and counted.
//!
//! It limits the time to the response's head; a body that stalls afterwards is its reader's business. The whole call
//! is limited by [`DeadlineLayer`](crate::DeadlineLayer).

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};
use tower_layer::Layer;
use tower_service::Service;

use crate::error::{AttemptTimedOut, BoxError, Error};

/// Ends an attempt that takes longer than a limit. See the [module docs](crate::timeout).
#[derive(Clone, Copy, Debug)]
pub struct AttemptTimeoutLayer {
    limit: Duration,
}

impl AttemptTimeoutLayer {
    /// At most `limit` for one attempt, measured from when it is first polled.
    pub const fn new(limit: Duration) -> Self {
        Self { limit }
    }
}

impl<S> Layer<S> for AttemptTimeoutLayer {
    type Service = AttemptTimeout<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AttemptTimeout {
            inner,
            limit: self.limit,
        }
    }
}

/// A service whose calls end after a limit. Made by [`AttemptTimeoutLayer`].
#[derive(Clone, Copy, Debug)]
pub struct AttemptTimeout<S> {
    inner: S,
    limit: Duration,
}

impl<S> AttemptTimeout<S> {
    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, Req> Service<Req> for AttemptTimeout<S>
where
    S: Service<Req>,
    S::Error: Into<BoxError> + 'static,
{
    type Response = S::Response;
    type Error = Error;
    type Future = AttemptTimeoutFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::from_inner)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        AttemptTimeoutFuture {
            future: self.inner.call(request),
            limit: self.limit,
            timer: None,
        }
    }
}

pin_project! {
    /// The answer, or [`AttemptTimedOut`].
    ///
    /// # Cancel safety
    /// Dropping it drops the attempt; the request may or may not have taken effect.
    #[must_use = "futures do nothing unless polled"]
    pub struct AttemptTimeoutFuture<F> {
        #[pin]
        future: F,
        limit: Duration,
        // Made when the inner future was pending once: an answer at hand costs no timer.
        #[pin]
        timer: Option<Sleep>,
    }
}

impl<F, T, E> Future for AttemptTimeoutFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError> + 'static,
{
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(outcome) = this.future.poll(cx) {
            return Poll::Ready(outcome.map_err(Error::from_inner));
        }
        if let Some(timer) = this.timer.as_mut().as_pin_mut() {
            // The clock has the say: a future that uses up its task's turn each time leaves none for the timer.
            if timer.deadline() > Instant::now() {
                ready!(timer.poll(cx));
            }
        } else {
            this.timer.set(Some(sleep(*this.limit)));
            if let Some(timer) = this.timer.as_pin_mut() {
                ready!(timer.poll(cx));
            }
        }
        Poll::Ready(Err(AttemptTimedOut::new(*this.limit).into()))
    }
}

impl<F> fmt::Debug for AttemptTimeoutFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttemptTimeoutFuture")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, pin::pin, task::Waker};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_uses_up_every_turn_ends_all_the_same() {
        let limit = Duration::from_secs(1);
        let mut attempt = pin!(AttemptTimeoutFuture {
            future: Box::pin(async {
                loop {
                    tokio::task::consume_budget().await;
                }
                #[expect(unreachable_code, reason = "names the type")]
                Ok::<(), Infallible>(())
            }),
            limit,
            timer: None,
        });
        let mut cx = Context::from_waker(Waker::noop());
        assert!(attempt.as_mut().poll(&mut cx).is_pending());
        tokio::time::advance(limit).await;
        assert!(attempt.as_mut().poll(&mut cx).is_ready());
    }
}
