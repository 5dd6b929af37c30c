use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tower_service::Service;

use super::{
    BreakerFuture, WhenOpen,
    circuit::Circuit,
    pending::{Held, Pending},
    permit::Slip,
};
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
    pends: bool,
    found: Found,
}

/// What `poll_ready` has found for the next call.
enum Found {
    /// That every call is let in, or may be: the circuit is asked in `call`.
    Nothing,
    /// A refusal, and the wait until a probe in nanoseconds. The service inside was not asked, and therefore must not be
    /// called.
    Refusal(u64),
    /// Something to be kept for the call, or for the next poll. Boxed, for a healthy circuit has none.
    Held(Box<Held>),
}

impl<S, C> Breaker<S, C> {
    pub(super) fn new(inner: S, circuit: Arc<Circuit>, classify: C) -> Self {
        Self {
            inner,
            pends: circuit.when_open() == WhenOpen::PendInReady,
            circuit,
            classify,
            found: Found::Nothing,
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

    #[inline(always)]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.circuit.passes() && matches!(self.found, Found::Nothing) {
            self.inner.poll_ready(cx).map_err(Error::from_inner)
        } else {
            self.poll_ready_unusual::<Req>(cx)
        }
    }

    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        if matches!(self.found, Found::Nothing)
            && let Some(ticket) = self.circuit.pass()
        {
            let slip = Slip::new(Arc::clone(&self.circuit), ticket);
            return BreakerFuture::started(self.inner.call(request), slip, self.classify.clone());
        }
        let acquired = match self.found {
            // It stays until `poll_ready` finds something else.
            Found::Refusal(wait) => Err(wait),
            Found::Nothing | Found::Held(_) => self.acquire(),
        };
        let classify = self.classify.clone();
        match acquired {
            Ok(slip) => BreakerFuture::started(self.inner.call(request), slip, classify),
            Err(wait) => BreakerFuture::refused(Arc::clone(&self.circuit), wait, classify),
        }
    }
}

impl<S, C> Breaker<S, C> {
    /// Readiness when there is something to be asked.
    #[inline]
    fn poll_ready_unusual<Req>(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>>
    where
        S: Service<Req>,
        S::Error: Into<BoxError> + 'static,
    {
        if self.pends {
            ready!(self.poll_until_let_in::<Req>(cx))?;
            // Either way the service inside has been asked already, or is not to be.
            if !matches!(self.found, Found::Nothing) {
                return Poll::Ready(Ok(()));
            }
        } else if let Some(wait) = self.circuit.would_refuse() {
            // The inner service may be busy with the very calls that hang: it must not make a refusal wait.
            self.found = Found::Refusal(wait);
            return Poll::Ready(Ok(()));
        } else {
            self.found = Found::Nothing;
        }
        self.inner.poll_ready(cx).map_err(Error::from_inner)
    }

    /// Leave for the call that `poll_ready` was asked for, or the wait until a probe.
    #[cold]
    fn acquire(&mut self) -> Result<Slip<Arc<Circuit>>, u64> {
        match std::mem::replace(&mut self.found, Found::Nothing) {
            Found::Nothing => Slip::acquire(Arc::clone(&self.circuit)),
            Found::Refusal(wait) => Err(wait),
            Found::Held(held) => match *held {
                Held::Reserved(permit) if permit.is_current() => Ok(permit),
                // The state has changed since: what was reserved is worth nothing.
                Held::Reserved(_) => Slip::acquire(Arc::clone(&self.circuit)),
                // Called without being ready, which is wrong; the service inside was not asked either.
                Held::Waiting(_) => Err(0),
            },
        }
    }

    /// The circuit first, so that a service that cannot be called reserves nothing inside; then the service; and the
    /// probe last, so that it does not wait for a service that is busy.
    #[cold]
    fn poll_until_let_in<Req>(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>>
    where
        S: Service<Req>,
        S::Error: Into<BoxError> + 'static,
    {
        if let Found::Held(held) = &self.found
            && matches!(&**held, Held::Reserved(permit) if permit.is_current())
        {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.poll_room(cx));
            if self.circuit.passes() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.inner.poll_ready(cx)).map_err(Error::from_inner)?;
            // Somebody else may have been faster; then wait for the next.
            if let Ok(permit) = Slip::acquire(Arc::clone(&self.circuit)) {
                self.found = Found::Held(Box::new(Held::Reserved(permit)));
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Waits until the circuit would let a call in.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Found::Held(held) = &mut self.found
                && let Held::Waiting(pending) = &mut **held
            {
                ready!(pending.as_mut().poll(&self.circuit, cx));
            }
            self.found = Found::Nothing;
            if self.circuit.would_refuse().is_none() {
                return Poll::Ready(());
            }
            let pending = Box::pin(Pending::new(&self.circuit));
            // It may have changed before the wait was made.
            if self.circuit.would_refuse().is_none() {
                return Poll::Ready(());
            }
            self.found = Found::Held(Box::new(Held::Waiting(pending)));
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
