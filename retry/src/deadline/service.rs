use std::task::{Context, Poll};

use tower_service::Service;

use super::{
    Deadline, DeadlineFuture,
    layer::Settings,
    wire::{grpc_timeout, is_grpc},
};
use crate::error::{BoxError, Error};

/// A service whose calls end at their deadline. Made by [`DeadlineLayer`](super::DeadlineLayer).
#[derive(Clone, Copy, Debug)]
pub struct DeadlineService<S> {
    inner: S,
    settings: Settings,
}

impl<S> DeadlineService<S> {
    pub(super) const fn new(inner: S, settings: Settings) -> Self {
        Self { inner, settings }
    }

    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, B> Service<http::Request<B>> for DeadlineService<S>
where
    S: Service<http::Request<B>>,
    S::Error: Into<BoxError> + 'static,
{
    type Response = S::Response;
    type Error = Error;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::from_inner)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let now = tokio::time::Instant::now().into_std();
        let ours = Deadline::after(now, self.settings.total);
        let callers = request.extensions().get::<Deadline>().copied();
        let mut deadline = callers.map_or(ours, |callers| callers.min(ours));
        let grpc = is_grpc(request.headers());
        if grpc && let Some(asked) = grpc_timeout(request.headers()) {
            deadline = deadline.min(Deadline::after(now, asked));
        }
        if deadline.has_passed(now) {
            return DeadlineFuture::refused();
        }
        if callers != Some(deadline) {
            request.extensions_mut().insert(deadline);
        }
        if self.settings.propagate
            && let Some(said) = deadline.write(request.headers_mut(), grpc, now)
            && callers.is_none()
        {
            // Somebody else's word, as of a request that is passed on: it holds if it is the sooner.
            deadline = deadline.or_sooner(&said, now);
            if deadline.has_passed(now) {
                return DeadlineFuture::refused();
            }
            request.extensions_mut().insert(deadline);
            deadline.write(request.headers_mut(), grpc, now);
        }
        DeadlineFuture::started(self.inner.call(request), deadline)
    }
}
