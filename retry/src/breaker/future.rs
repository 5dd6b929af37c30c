use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use super::Permit;
use crate::{
    classify::Classify,
    error::{BoxError, CircuitOpen, Error},
};

pin_project! {
    /// The answer, or [`CircuitOpen`].
    ///
    /// # Cancel safety
    /// Dropping it drops the call and gives its permit back; the breaker counts it neither way.
    #[must_use = "futures do nothing unless polled"]
    pub struct BreakerFuture<F, C> {
        #[pin]
        state: State<F, C>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, C> {
        Refused { refusal: Option<CircuitOpen> },
        Started { #[pin] future: F, permit: Permit, classify: C },
    }
}

impl<F, C> BreakerFuture<F, C> {
    #[inline]
    pub(super) fn refused(open: CircuitOpen) -> Self {
        Self {
            state: State::Refused {
                refusal: Some(open),
            },
        }
    }

    #[inline]
    pub(super) fn started(future: F, permit: Permit, classify: C) -> Self {
        Self {
            state: State::Started {
                future,
                permit,
                classify,
            },
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

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Refused { refusal } => match refusal.take() {
                Some(open) => Poll::Ready(Err(open.into())),
                None => Poll::Pending, // polled after it was ready
            },
            StateProj::Started {
                future,
                permit,
                classify,
            } => Poll::Ready(match ready!(future.poll(cx)) {
                Ok(response) => {
                    permit.settle(classify.classify(Ok(&response)).health());
                    Ok(response)
                }
                Err(error) => Err(failed::<C, T, E>(permit, classify, error)),
            }),
        }
    }
}

/// Apart, so that the way of a success stays short.
#[cold]
fn failed<C, T, E>(permit: &mut Permit, classify: &C, error: E) -> Error
where
    C: Classify<T, E>,
    E: Into<BoxError> + 'static,
{
    permit.settle(classify.classify(Err(&error)).health());
    Error::from_inner(error)
}

impl<F, C> fmt::Debug for BreakerFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerFuture").finish_non_exhaustive()
    }
}
