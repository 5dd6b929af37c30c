use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tower_service::Service;

use super::{
    BreakerFuture, Permit, WhenOpen,
    circuit::Circuit,
    pending::{Held, Pending},
};
use crate::{
    classify::Classify,
    error::{BoxError, CircuitOpen, Error},
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
    /// Set when `poll_ready` did not ask the inner service, which therefore must not be called.
    refusal: Option<Duration>,
    /// What `poll_ready` keeps for the next call, or for the next poll. Boxed, for a healthy circuit has none.
    held: Option<Box<Held>>,
}

impl<S, C> Breaker<S, C> {
    pub(super) fn new(inner: S, circuit: Arc<Circuit>, classify: C) -> Self {
        Self {
            inner,
            circuit,
            classify,
            refusal: None,
            held: None,
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

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.refusal = None;
        if !self.circuit.passes() || self.held.is_some() {
            if self.circuit.when_open() == WhenOpen::PendInReady {
                return self.poll_ready_or_pend::<Req>(cx);
            }
            // The inner service may be busy with the very calls that hang: it must not make a refusal wait.
            self.refusal = self.circuit.would_refuse();
            if self.refusal.is_some() {
                return Poll::Ready(Ok(()));
            }
        }
        self.inner.poll_ready(cx).map_err(Error::from_inner)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let permit = if self.refusal.is_some() || self.held.is_some() {
            self.permit_of_poll()
        } else {
            self.circuit.try_acquire()
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
    /// What `poll_ready` has found for this call.
    #[cold]
    fn permit_of_poll(&mut self) -> Result<Permit, CircuitOpen> {
        if let Some(wait) = self.refusal.take() {
            return Err(self.circuit.refusal(wait));
        }
        match self.held.take().map(|held| *held) {
            Some(Held::Reserved(permit)) if permit.is_current() => Ok(permit),
            // The state has changed since: what was reserved is worth nothing.
            Some(Held::Reserved(_)) | None => self.circuit.try_acquire(),
            // Called without being ready, which is wrong; the service inside was not asked either.
            Some(Held::Waiting(_)) => Err(self.circuit.refusal(Duration::ZERO)),
        }
    }

    /// The circuit first, so that a service that cannot be called reserves nothing inside; then the service; and the
    /// probe last, so that it does not wait for a service that is busy.
    #[cold]
    fn poll_ready_or_pend<Req>(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>>
    where
        S: Service<Req>,
        S::Error: Into<BoxError> + 'static,
    {
        if matches!(self.held.as_deref(), Some(Held::Reserved(permit)) if permit.is_current()) {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.poll_circuit(cx));
            ready!(self.inner.poll_ready(cx)).map_err(Error::from_inner)?;
            if self.circuit.passes() {
                return Poll::Ready(Ok(()));
            }
            // Somebody else may have been faster; then wait for the next.
            if let Ok(permit) = self.circuit.try_acquire() {
                self.held = Some(Box::new(Held::Reserved(permit)));
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Waits until the circuit would let a call in.
    fn poll_circuit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(Held::Waiting(pending)) = self.held.as_deref_mut() {
                ready!(pending.as_mut().poll(&self.circuit, cx));
            }
            self.held = None;
            if self.circuit.would_refuse().is_none() {
                return Poll::Ready(());
            }
            let pending = Box::pin(Pending::new(&self.circuit));
            // It may have changed before the wait was made.
            if self.circuit.would_refuse().is_none() {
                return Poll::Ready(());
            }
            self.held = Some(Box::new(Held::Waiting(pending)));
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
