use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use super::Shared;
use crate::{
    classify::Classify,
    error::{BoxError, Error, SelfThrottled},
};

pin_project! {
    /// The answer, or [`SelfThrottled`].
    ///
    /// # Cancel safety
    /// Dropping it drops the call, which is then not counted.
    #[must_use = "futures do nothing unless polled"]
    pub struct ThrottleFuture<F, C> {
        #[pin]
        state: State<F, C>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, C> {
        Refused { refusal: Option<SelfThrottled> },
        Started { #[pin] future: F, shared: Arc<Shared>, classify: C },
    }
}

impl<F, C> ThrottleFuture<F, C> {
    pub(super) fn refused(refusal: SelfThrottled) -> Self {
        Self {
            state: State::Refused {
                refusal: Some(refusal),
            },
        }
    }

    pub(super) fn started(future: F, shared: Arc<Shared>, classify: C) -> Self {
        Self {
            state: State::Started {
                future,
                shared,
                classify,
            },
        }
    }
}

impl<F, C, T, E> Future for ThrottleFuture<F, C>
where
    F: Future<Output = Result<T, E>>,
    C: Classify<T, E>,
    E: Into<BoxError> + 'static,
{
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Refused { refusal } => match refusal.take() {
                Some(refusal) => Poll::Ready(Err(refusal.into())),
                None => Poll::Pending, // polled after it was ready
            },
            StateProj::Started {
                future,
                shared,
                classify,
            } => {
                let outcome = ready!(future.poll(cx));
                shared.record(classify.classify(outcome.as_ref()));
                Poll::Ready(outcome.map_err(Error::from_inner))
            }
        }
    }
}

impl<F, C> fmt::Debug for ThrottleFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThrottleFuture").finish_non_exhaustive()
    }
}
