use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use super::{circuit::Circuit, permit::Slip};
use crate::{
    classify::Classify,
    error::{BoxError, Error},
};

pin_project! {
    /// The answer, or [`CircuitOpen`](crate::CircuitOpen).
    ///
    /// # Cancel safety
    /// Dropping it drops the call and gives its permit back; the breaker counts it neither way.
    #[must_use = "futures do nothing unless polled"]
    pub struct BreakerFuture<F, C> {
        #[pin]
        call: Call<F>,
        slip: Slip<Arc<Circuit>>,
        classify: C,
    }
}

pin_project! {
    #[project = CallProj]
    enum Call<F> {
        // The wait until a probe, in nanoseconds. Who refuses is known from the slip, which is no leave: so there is one
        // thing to be dropped, and whoever drops a call that is over has one thing to look at.
        Refused { wait: u64 },
        Started { #[pin] future: F },
    }
}

impl<F, C> BreakerFuture<F, C> {
    #[inline]
    pub(super) fn refused(by: Arc<Circuit>, wait: u64, classify: C) -> Self {
        Self {
            call: Call::Refused { wait },
            slip: Slip::refused(by),
            classify,
        }
    }

    #[inline]
    pub(super) fn started(future: F, slip: Slip<Arc<Circuit>>, classify: C) -> Self {
        Self {
            call: Call::Started { future },
            slip,
            classify,
        }
    }
}

impl<F, C, T, E> Future for BreakerFuture<F, C>
where
    F: Future<Output = Result<T, E>>,
    C: Classify<T, E>,
    E: Into<BoxError> + 'static,
{
    type Output = Result<T, Error>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.call.project() {
            CallProj::Started { future } => match ready!(future.poll(cx)) {
                Ok(response) => {
                    this.slip
                        .settle(this.classify.classify(Ok(&response)).health());
                    Poll::Ready(Ok(response))
                }
                Err(error) => failed(this.slip, this.classify, error),
            },
            CallProj::Refused { wait } => refused(this.slip, *wait),
        }
    }
}

#[inline(never)]
fn refused<T>(slip: &mut Slip<Arc<Circuit>>, wait: u64) -> Poll<Result<T, Error>> {
    match slip.take_circuit() {
        Some(circuit) => Poll::Ready(Err(circuit.refusal(wait).into())),
        None => Poll::Pending, // polled after it was ready
    }
}

/// Apart, so that the way of a success stays short.
#[cold]
#[inline(never)]
fn failed<C, T, E>(slip: &mut Slip<Arc<Circuit>>, classify: &C, error: E) -> Poll<Result<T, Error>>
where
    C: Classify<T, E>,
    E: Into<BoxError> + 'static,
{
    slip.settle(classify.classify(Err(&error)).health());
    Poll::Ready(Err(Error::from_inner(error)))
}

impl<F, C> fmt::Debug for BreakerFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerFuture").finish_non_exhaustive()
    }
}
