use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tower_service::Service;

use super::{BreakerFuture, Permit, WhenOpen, circuit::Circuit, pending::Pending};
use crate::{
    classify::Classify,
    error::{BoxError, Error},
};

/// A service behind a circuit breaker. Made by [`CircuitBreakerLayer`](super::CircuitBreakerLayer).
///
/// What it does while the circuit is open is said by [`WhenOpen`]. In either case the service inside is left alone.
///
/// When the circuit opens between `poll_ready` and `call`, the call is refused, and what the service inside had
/// reserved, such as the permit of a concurrency limit, stays with this instance until it makes a call or is dropped.
pub struct Breaker<S, C> {
    inner: S,
    circuit: Arc<Circuit>,
    classify: C,
    ready: Ready,
}

/// What `poll_ready` has found for the next `call`.
enum Ready {
    /// The service inside was asked, and the circuit is to be asked again.
    Ask,
    /// The service inside was not asked, and therefore must not be called.
    Refuse(Duration),
    /// A probe is reserved.
    Reserved(Permit),
    /// Not ready, and waiting for the circuit.
    Waiting(Pin<Box<Pending>>),
}

impl<S, C> Breaker<S, C> {
    pub(super) fn new(inner: S, circuit: Arc<Circuit>, classify: C) -> Self {
        Self {
            inner,
            circuit,
            classify,
            ready: Ready::Ask,
        }
    }

    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Waits until the circuit would let a call in.
    fn poll_circuit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Ready::Waiting(pending) = &mut self.ready {
                ready!(pending.as_mut().poll(&self.circuit, cx));
            }
            self.ready = Ready::Ask;
            if self.circuit.would_refuse().is_none() {
                return Poll::Ready(());
            }
            let pending = Box::pin(Pending::new(&self.circuit));
            // It may have changed before the wait was made.
            if self.circuit.would_refuse().is_none() {
                return Poll::Ready(());
            }
            self.ready = Ready::Waiting(pending);
        }
    }

    fn has_reserved(&self) -> bool {
        matches!(&self.ready, Ready::Reserved(permit) if permit.is_current())
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

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.circuit.when_open() == WhenOpen::PendInReady {
            return self.poll_ready_or_pend::<Req>(cx);
        }
        // The inner service may be busy with the very calls that hang: it must not make a refusal wait.
        if let Some(wait) = self.circuit.would_refuse() {
            self.ready = Ready::Refuse(wait);
            return Poll::Ready(Ok(()));
        }
        if !matches!(self.ready, Ready::Ask) {
            self.ready = Ready::Ask;
        }
        self.inner.poll_ready(cx).map_err(Error::from_inner)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let permit = match std::mem::replace(&mut self.ready, Ready::Ask) {
            Ready::Ask => self.circuit.try_acquire(),
            Ready::Refuse(wait) => Err(self.circuit.refusal(wait)),
            Ready::Reserved(permit) if permit.is_current() => Ok(permit),
            // The state has changed since: what was reserved is worth nothing.
            Ready::Reserved(_) => self.circuit.try_acquire(),
            // Called without being ready, which is wrong; the service inside was not asked either.
            Ready::Waiting(_) => Err(self.circuit.refusal(Duration::ZERO)),
        };
        match permit {
            Ok(permit) => {
                BreakerFuture::started(self.inner.call(request), permit, self.classify.clone())
            }
            Err(open) => BreakerFuture::refused(open),
        }
    }
}

impl<S, C> Breaker<S, C> {
    /// The circuit first, so that a service that cannot be called reserves nothing inside; then the service; and the
    /// probe last, so that it does not wait for a service that is busy.
    fn poll_ready_or_pend<Req>(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>>
    where
        S: Service<Req>,
        S::Error: Into<BoxError> + 'static,
    {
        if self.has_reserved() {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.poll_circuit(cx));
            ready!(self.inner.poll_ready(cx)).map_err(Error::from_inner)?;
            if !self.circuit.state().is_probing() {
                return Poll::Ready(Ok(()));
            }
            // Somebody else may have been faster; then wait for the next.
            if let Ok(permit) = self.circuit.try_acquire() {
                self.ready = Ready::Reserved(permit);
                return Poll::Ready(Ok(()));
            }
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
