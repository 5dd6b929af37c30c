//! The life of one call inside the layer, up to its first answer.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderValue, Response, header};
use pin_project_lite::pin_project;
use tonic::Status;

use super::body::StatusBody;
use super::{Asked, complete};

/// What a panic left behind.
pub(super) type Payload = Box<dyn Any + Send>;

/// Runs what may panic. Nothing of it is looked at again after a panic, so it cannot be seen broken.
pub(super) fn unwound<T>(run: impl FnOnce() -> T) -> Result<T, Payload> {
    catch_unwind(AssertUnwindSafe(run))
}

pin_project! {
    /// The future of [`StatusService`](super::StatusService).
    pub struct StatusFuture<F> {
        #[pin]
        state: State<F>,
        // None for a request that is not gRPC.
        asked: Option<Asked>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Calling { #[pin] inner: F },
        Panicked { payload: Option<Payload> },
        Done,
    }
}

impl<F> StatusFuture<F> {
    pub(super) fn new(inner: Result<F, Payload>, asked: Asked) -> Self {
        let state = match inner {
            Ok(inner) => State::Calling { inner },
            Err(payload) => State::Panicked {
                payload: Some(payload),
            },
        };
        Self {
            state,
            asked: Some(asked),
        }
    }

    pub(super) fn passing(inner: F) -> Self {
        Self {
            state: State::Calling { inner },
            asked: None,
        }
    }
}

impl<F, B, E> Future for StatusFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: http_body::Body + Default,
{
    type Output = Result<Response<StatusBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let outcome = match this.state.as_mut().project() {
            StateProjection::Calling { inner } if this.asked.is_none() => {
                let answer = ready!(inner.poll(cx))?;
                this.state.set(State::Done);
                return Poll::Ready(Ok(answer.map(StatusBody::passing)));
            }
            StateProjection::Calling { inner } => match unwound(|| inner.poll(cx)) {
                Ok(polled) => Ok(ready!(polled)?),
                Err(payload) => Err(payload),
            },
            StateProjection::Panicked { payload } => match payload.take() {
                Some(payload) => Err(payload),
                None => return Poll::Pending,
            },
            // Polled after it was done, which no executor does.
            StateProjection::Done => return Poll::Pending,
        };
        // The inner future is done or broken: let go of what it holds.
        this.state.set(State::Done);
        let Some(asked) = this.asked.take() else {
            return Poll::Pending;
        };
        Poll::Ready(Ok(match outcome {
            Ok(response) => answered(response, asked),
            Err(payload) => panicked(&*payload, asked),
        }))
    }
}

/// Marks an answer that was completed, for a layer like this one further out.
#[derive(Clone)]
struct Completed;

fn answered<B>(mut response: Response<B>, mut asked: Asked) -> Response<StatusBody<B>> {
    if response.extensions().get::<Completed>().is_some() {
        return response.map(StatusBody::passing);
    }
    if !complete::is_failure(response.headers()) {
        return response.map(|body| StatusBody::watching(body, asked));
    }
    let status = response.extensions_mut().remove::<Status>();
    complete::complete(response.headers_mut(), status, &mut asked);
    response.extensions_mut().insert(Completed);
    response.map(StatusBody::passing)
}

fn panicked<B: Default>(payload: &(dyn Any + Send), mut asked: Asked) -> Response<StatusBody<B>> {
    let mut response = Response::new(StatusBody::passing(B::default()));
    *response.headers_mut() = complete::panicked(payload, &mut asked);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    response.extensions_mut().insert(Completed);
    response
}

impl<F> fmt::Debug for StatusFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusFuture").finish_non_exhaustive()
    }
}
