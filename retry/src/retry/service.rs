use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use tower_service::Service;

use super::RetryFuture;
use crate::{attempt::Attempt, classify::Classify, policy::RetryPolicy, replay::Replay};

/// A service whose failed calls are tried again. Made by [`RetryLayer`](super::RetryLayer).
pub struct Retry<S, C, R> {
    inner: S,
    rules: Arc<Rules<C, R>>,
}

#[derive(Debug)]
pub(super) struct Rules<C, R> {
    pub(super) policy: RetryPolicy<C>,
    pub(super) replay: R,
}

impl<S, C, R> Retry<S, C, R> {
    pub(super) fn new(inner: S, policy: RetryPolicy<C>, replay: R) -> Self {
        Self {
            inner,
            rules: Arc::new(Rules { policy, replay }),
        }
    }

    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, C, R, Req> Service<Req> for Retry<S, C, R>
where
    S: Service<Req> + Clone,
    S::Error: 'static,
    C: Classify<S::Response, S::Error>,
    R: Replay<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RetryFuture<S, Req, C, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        start(&mut self.inner, &self.rules, request)
    }
}

/// Makes the first attempt of a call.
#[inline]
pub(super) fn start<S, C, R, Req>(
    inner: &mut S,
    rules: &Arc<Rules<C, R>>,
    mut request: Req,
) -> RetryFuture<S, Req, C, R>
where
    S: Service<Req> + Clone,
    R: Replay<Req>,
{
    let Rules { policy, replay } = &**rules;
    let most = policy.attempts();
    let spare = (most > 1).then(|| replay.replay(&request)).flatten();
    let max = if spare.is_some() { most } else { 1 };
    replay.stamp(&mut request, Attempt::first(max));
    let Some(spare) = spare else {
        return RetryFuture::once(inner.call(request), Arc::clone(rules));
    };
    // The instance that was polled ready makes this call, and its clone, which is not ready, takes its place.
    let clone = inner.clone();
    let mut ready = mem::replace(inner, clone);
    let future = ready.call(request);
    RetryFuture::repeatable(future, Arc::clone(rules), ready, spare)
}

impl<S: Clone, C, R> Clone for Retry<S, C, R> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            rules: Arc::clone(&self.rules),
        }
    }
}

impl<S: fmt::Debug, C, R> fmt::Debug for Retry<S, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
