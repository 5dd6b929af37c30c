//! The life of one request inside the layer: call, perhaps read a document back, answer.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::BoxError;
use axum::body::{Body, Bytes};
use http::Response;
use pin_project_lite::pin_project;

use super::Shared;
use super::asked::Asked;
use super::rewrite::{self, Rewrite};

/// What a panic left behind.
pub(super) type Payload = Box<dyn Any + Send>;

/// A document that has to be read before it can be completed. Boxed, because it is rare: only a
/// document of ours whose failure was lost on the way, such as one that was recorded and replayed.
type Reading = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

pin_project! {
    /// The future of [`ProblemService`](super::ProblemService).
    pub struct ProblemFuture<F> {
        #[pin]
        state: State<F>,
        asked: Option<Asked>,
        shared: Arc<Shared>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Calling { #[pin] inner: F },
        Panicked { payload: Option<Payload> },
        Reading { reading: Reading },
        Done,
    }
}

/// Runs what may panic. Nothing of it is looked at again after a panic, so it cannot be seen broken.
pub(super) fn unwound<T>(run: impl FnOnce() -> T) -> Result<T, Payload> {
    catch_unwind(AssertUnwindSafe(run))
}

/// Drops something of the application's. Should that panic, the answer is there all the same; what was panicked with
/// is never dropped, or it might panic again.
fn let_go(drops: impl FnOnce()) {
    if let Err(payload) = unwound(drops) {
        std::mem::forget(payload);
    }
}

impl<F> ProblemFuture<F> {
    pub(super) fn new(inner: Result<F, Payload>, asked: Asked, shared: Arc<Shared>) -> Self {
        let state = match inner {
            Ok(inner) => State::Calling { inner },
            Err(payload) => State::Panicked {
                payload: Some(payload),
            },
        };
        Self {
            state,
            asked: Some(asked),
            shared,
        }
    }
}

impl<F, ResBody, E> Future for ProblemFuture<F>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
    ResBody: http_body::Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let outcome = match this.state.as_mut().project() {
                StateProjection::Calling { inner } => {
                    let poll = || unwound(|| inner.poll(cx));
                    let polled = match this.asked.as_mut() {
                        Some(asked) => asked.around(poll),
                        None => poll(),
                    };
                    match polled {
                        Ok(polled) => Ok(ready!(polled)?),
                        Err(payload) => Err(payload),
                    }
                }
                StateProjection::Panicked { payload } => match payload.take() {
                    Some(payload) => Err(payload),
                    None => return Poll::Pending,
                },
                // Polled after it was done, which no executor does.
                StateProjection::Done => return Poll::Pending,
                StateProjection::Reading { reading } => {
                    return reading.as_mut().poll(cx).map(Ok);
                }
            };
            let Some(asked) = this.asked.take() else {
                return Poll::Pending;
            };
            let rewrite = match outcome {
                Ok(response) => rewrite::answer(response.map(Body::new), asked, this.shared),
                Err(payload) => {
                    let answer = rewrite::panicked(&*payload, asked, this.shared);
                    let_go(|| drop(payload));
                    Rewrite::Done(answer)
                }
            };
            match rewrite {
                Rewrite::Done(response) => {
                    // The inner future is done or broken: let go of what it holds.
                    let_go(|| this.state.set(State::Done));
                    return Poll::Ready(Ok(response));
                }
                Rewrite::Read(reading) => this.state.set(State::Reading { reading }),
            }
        }
    }
}

impl<F> fmt::Debug for ProblemFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProblemFuture").finish_non_exhaustive()
    }
}
