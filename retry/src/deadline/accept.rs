//! The server's side: how long the caller will wait.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use tower_layer::Layer;
use tower_service::Service;

use super::Deadline;

/// Writes the [`Deadline`] that a caller sent in [`HEADER`](super::HEADER) into the request's extensions.
///
/// A caller may ask for less time than the server's own limit, not for more; without a readable header the limit
/// holds; of stacked limits the sooner. The layer only tells: a handler reads the extension, gives it to its statements as a timeout, and puts it into
/// the requests it makes itself, where [`DeadlineLayer`](super::DeadlineLayer) keeps it.
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

impl<S, B> Service<http::Request<B>> for AcceptDeadline<S>
where
    S: Service<http::Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let now = tokio::time::Instant::now().into_std();
        let limit = Deadline::after(now, self.limit);
        let asked = Deadline::read(request.headers(), now);
        let outer = request.extensions().get::<Deadline>().copied();
        let deadline = [asked, outer].into_iter().flatten().fold(limit, Ord::min);
        request.extensions_mut().insert(deadline);
        self.inner.call(request)
    }
}
