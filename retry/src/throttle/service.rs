use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower_service::Service;

use super::{Shared, ThrottleFuture};
use crate::{
    classify::Classify,
    error::{BoxError, Error},
};

/// A service behind an adaptive throttle. Made by [`AdaptiveThrottleLayer`](super::AdaptiveThrottleLayer).
///
/// It is ready when the service inside is. A refused call leaves to this instance what the service inside had reserved
/// for it, such as the permit of a concurrency limit, until it makes a call or is dropped.
#[derive(Clone)]
pub struct Throttle<S, C> {
    inner: S,
    shared: Arc<Shared>,
    classify: C,
}

impl<S, C> Throttle<S, C> {
    pub(super) const fn new(inner: S, shared: Arc<Shared>, classify: C) -> Self {
        Self {
            inner,
            shared,
            classify,
        }
    }

    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, C, Req> Service<Req> for Throttle<S, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError> + 'static,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ThrottleFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::from_inner)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        match self.shared.admit() {
            Ok(()) => ThrottleFuture::started(
                self.inner.call(request),
                Arc::clone(&self.shared),
                self.classify.clone(),
            ),
            Err(refusal) => ThrottleFuture::refused(refusal),
        }
    }
}

impl<S: fmt::Debug, C> fmt::Debug for Throttle<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle")
            .field("inner", &self.inner)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}
