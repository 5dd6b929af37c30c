use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower_service::Service;

use super::{BreakerFuture, circuit::Circuit};
use crate::{
    classify::Classify,
    error::{BoxError, Error},
};

/// A service behind a circuit breaker. Made by [`CircuitBreakerLayer`](super::CircuitBreakerLayer).
///
/// An open circuit is ready at once, without a look at the service inside, and refuses in `call`. When it opens between
/// `poll_ready` and `call`, what the service inside had reserved, such as the permit of a concurrency limit, stays with
/// this instance until it makes a call or is dropped.
pub struct Breaker<S, C> {
    inner: S,
    circuit: Arc<Circuit>,
    classify: C,
    /// Set when `poll_ready` did not ask the inner service, which therefore must not be called.
    refusing: bool,
}

impl<S, C> Breaker<S, C> {
    pub(super) fn new(inner: S, circuit: Arc<Circuit>, classify: C) -> Self {
        Self {
            inner,
            circuit,
            classify,
            refusing: false,
        }
    }

    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, C, Req> Service<Req> for Breaker<S, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError> + 'static,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = Error;
    type Future = BreakerFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // The inner service may be busy with the very calls that hang: it must not make a refusal wait.
        self.refusing = self.circuit.would_refuse();
        if self.refusing {
            return Poll::Ready(Ok(()));
        }
        self.inner.poll_ready(cx).map_err(Error::from_inner)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        if std::mem::take(&mut self.refusing) {
            return BreakerFuture::refused(self.circuit.refusal());
        }
        match self.circuit.try_acquire() {
            Ok(permit) => {
                BreakerFuture::started(self.inner.call(request), permit, self.classify.clone())
            }
            Err(open) => BreakerFuture::refused(open),
        }
    }
}

impl<S: Clone, C: Clone> Clone for Breaker<S, C> {
    fn clone(&self) -> Self {
        // A clone has not been polled ready.
        Self::new(
            self.inner.clone(),
            Arc::clone(&self.circuit),
            self.classify.clone(),
        )
    }
}

impl<S: fmt::Debug, C> fmt::Debug for Breaker<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("inner", &self.inner)
            .field("circuit", &self.circuit)
            .finish_non_exhaustive()
    }
}
