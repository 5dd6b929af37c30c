use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::Deadline;
use crate::error::{BoxError, DeadlineExceeded, Error};

pin_project! {
    /// The answer, or [`DeadlineExceeded`] at the deadline.
    ///
    /// # Cancel safety
    /// Dropping it drops the call; the request may or may not have taken effect.
    #[must_use = "futures do nothing unless polled"]
    pub struct DeadlineFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Refused,
        Started {
            #[pin]
            future: F,
            deadline: Deadline,
            // Made when the inner future was pending once: an answer at hand costs no timer.
            #[pin]
            timer: Option<Sleep>,
        },
    }
}

impl<F> DeadlineFuture<F> {
    #[inline]
    pub(super) fn refused() -> Self {
        Self {
            state: State::Refused,
        }
    }

    #[inline]
    pub(super) fn started(future: F, deadline: Deadline) -> Self {
        Self {
            state: State::Started {
                future,
                deadline,
                timer: None,
            },
        }
    }
}

impl<F, T, E> Future for DeadlineFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError> + 'static,
{
    type Output = Result<T, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Refused => Poll::Ready(Err(DeadlineExceeded::new(false).into())),
            StateProj::Started {
                future,
                deadline,
                mut timer,
            } => {
                // The clock is asked before the call gets its turn, so that no attempt starts after the deadline: not
                // if the timer is late, and not if the first poll is, long after `call`.
                if deadline.has_passed(Instant::now().into_std()) {
                    return Poll::Ready(Err(DeadlineExceeded::new(true).into()));
                }
                if let Poll::Ready(outcome) = future.poll(cx) {
                    return Poll::Ready(outcome.map_err(Error::from_inner));
                }
                if timer.is_none() {
                    timer.set(Some(sleep_until(Instant::from_std(deadline.instant()))));
                }
                if let Some(timer) = timer.as_pin_mut() {
                    ready!(timer.poll(cx));
                }
                Poll::Ready(Err(DeadlineExceeded::new(true).into()))
            }
        }
    }
}

impl<F> fmt::Debug for DeadlineFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineFuture").finish_non_exhaustive()
    }
}
