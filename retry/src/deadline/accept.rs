//! The server's side: how long the caller will wait, and no work for a caller who has gone.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::{Body, Frame, SizeHint};
use mainstay_errors::{Fault, PROBLEM_JSON};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{Deadline, wire::is_grpc};
use crate::error::DeadlineExceeded;

/// Writes the [`Deadline`] that a caller sent in [`HEADER`](super::HEADER) or [`GRPC_TIMEOUT`](super::GRPC_TIMEOUT) into
/// the request's extensions, and refuses work whose time is over before it has begun.
///
/// A caller may ask for less time than the server's own limit, not for more; of both headers the sooner holds; without
/// a readable one the limit does; of stacked limits the sooner.
///
/// A request without time left is answered by this layer, and the service inside does not see it: 504 with a problem
/// document that says that nothing was done, or status 4 of gRPC. Put the layer outermost, where the time begins to
/// count, and once more below whatever makes requests wait, such as a queue or a concurrency limit: what has waited too
/// long there is refused as well.
///
/// ```
/// # use std::time::Duration;
/// # use mainstay_retry::AcceptDeadlineLayer;
/// # use tower::ServiceBuilder;
/// let layers = ServiceBuilder::new()
///     .layer(AcceptDeadlineLayer::at_most(Duration::from_secs(30)))
///     .concurrency_limit(100)
///     .layer(AcceptDeadlineLayer::at_most(Duration::from_secs(30)));
/// # let _ = layers;
/// ```
///
/// What has begun is not cut off: a handler that is dropped half-way may leave a transaction open. It reads the
/// extension, gives it to its statements ([`Deadline::statement_timeout`]), and puts it into the requests it makes
/// itself, where [`DeadlineLayer`](super::DeadlineLayer) keeps it.
#[derive(Clone, Copy, Debug)]
pub struct AcceptDeadlineLayer {
    limit: Duration,
}

impl AcceptDeadlineLayer {
    /// At most `limit` for a request.
    pub const fn at_most(limit: Duration) -> Self {
        Self { limit }
    }
}

impl<S> Layer<S> for AcceptDeadlineLayer {
    type Service = AcceptDeadline<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AcceptDeadline {
            inner,
            limit: self.limit,
        }
    }
}

/// A server whose requests know their deadline. Made by [`AcceptDeadlineLayer`].
#[derive(Clone, Copy, Debug)]
pub struct AcceptDeadline<S> {
    inner: S,
    limit: Duration,
}

impl<S> AcceptDeadline<S> {
    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, B, RB> Service<http::Request<B>> for AcceptDeadline<S>
where
    S: Service<http::Request<B>, Response = Response<RB>>,
    RB: Body<Data = Bytes>,
{
    type Response = Response<AcceptBody<RB>>;
    type Error = S::Error;
    type Future = AcceptDeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let now = tokio::time::Instant::now().into_std();
        let limit = Deadline::after(now, self.limit);
        let asked = Deadline::read(request.headers(), now);
        let outer = request.extensions().get::<Deadline>().copied();
        let deadline = [asked, outer].into_iter().flatten().fold(limit, Ord::min);
        let state = if deadline.has_passed(now) {
            State::Refused {
                response: Some(refusal(request.headers())),
            }
        } else {
            request.extensions_mut().insert(deadline);
            State::Started {
                future: self.inner.call(request),
            }
        };
        AcceptDeadlineFuture { state }
    }
}

pin_project! {
    /// The answer of the service inside, or the refusal.
    ///
    /// # Cancel safety
    /// As that of the service inside.
    #[must_use = "futures do nothing unless polled"]
    pub struct AcceptDeadlineFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Refused { response: Option<Response<Bytes>> },
        Started { #[pin] future: F },
    }
}

impl<F, RB, E> Future for AcceptDeadlineFuture<F>
where
    F: Future<Output = Result<Response<RB>, E>>,
{
    type Output = Result<Response<AcceptBody<RB>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Refused { response } => match response.take() {
                Some(response) => Poll::Ready(Ok(response.map(AcceptBody::refusal))),
                None => Poll::Pending, // polled after it was ready
            },
            StateProj::Started { future } => {
                let outcome = ready!(future.poll(cx));
                Poll::Ready(outcome.map(|response| response.map(AcceptBody::inner)))
            }
        }
    }
}

impl<F> fmt::Debug for AcceptDeadlineFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptDeadlineFuture")
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The body of the service inside, or of the refusal: any server's own body type will do.
    #[derive(Debug)]
    pub struct AcceptBody<B> {
        #[pin]
        inner: Option<B>,
        refusal: Bytes,
    }
}

impl<B> AcceptBody<B> {
    const fn inner(body: B) -> Self {
        Self {
            inner: Some(body),
            refusal: Bytes::new(),
        }
    }

    const fn refusal(bytes: Bytes) -> Self {
        Self {
            inner: None,
            refusal: bytes,
        }
    }
}

impl<B: Body<Data = Bytes>> Body for AcceptBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if let Some(inner) = this.inner.as_pin_mut() {
            return inner.poll_frame(cx);
        }
        let bytes = mem::take(this.refusal);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        let none_left = self.refusal.is_empty();
        self.inner.as_ref().map_or(none_left, B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let bytes = SizeHint::with_exact(self.refusal.len() as u64);
        self.inner.as_ref().map_or(bytes, B::size_hint)
    }
}

/// `DEADLINE_EXCEEDED` among gRPC's status codes.
const GRPC_DEADLINE_EXCEEDED: u16 = 4;

fn refusal(asked: &HeaderMap) -> Response<Bytes> {
    if is_grpc(asked) {
        // A response without messages may say its status in the header block: "Trailers-Only".
        let mut response = Response::new(Bytes::new());
        let content_type = asked.get(header::CONTENT_TYPE);
        let headers = response.headers_mut();
        headers.insert("grpc-status", HeaderValue::from(GRPC_DEADLINE_EXCEEDED));
        headers.insert(
            "grpc-message",
            HeaderValue::from_static("deadline exceeded"),
        );
        if let Some(content_type) = content_type {
            headers.insert(header::CONTENT_TYPE, content_type.clone());
        }
        return response;
    }
    let problem = DeadlineExceeded::new(false).to_problem();
    let mut response = Response::new(problem.to_bytes());
    *response.status_mut() = problem.status_code();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in problem.headers() {
        headers.insert(name, value.clone());
    }
    response
}
