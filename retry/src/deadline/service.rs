use std::{
    task::{Context, Poll},
    time::Duration,
};

use tower_service::Service;

use super::{CarryDeadline, Deadline, DeadlineFuture, HttpDeadline};
use crate::{
    clock,
    error::{BoxError, Error},
};

/// A service whose calls end at their deadline. Made by [`DeadlineLayer`](super::DeadlineLayer).
#[derive(Clone, Copy, Debug)]
pub struct DeadlineService<S, K = HttpDeadline> {
    inner: S,
    total: Duration,
    carrier: K,
}

impl<S, K> DeadlineService<S, K> {
    pub(super) const fn new(inner: S, total: Duration, carrier: K) -> Self {
        Self {
            inner,
            total,
            carrier,
        }
    }

    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, K, Req> Service<Req> for DeadlineService<S, K>
where
    S: Service<Req>,
    S::Error: Into<BoxError> + 'static,
    K: CarryDeadline<Req>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = DeadlineFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::from_inner)
    }

    #[inline]
    fn call(&mut self, mut request: Req) -> Self::Future {
        let now = clock::now();
        let ours = Deadline::after_total(now, self.total);
        let deadline = self.carrier.carry(&mut request, ours, now);
        if deadline.has_passed(now) {
            return DeadlineFuture::refused();
        }
        DeadlineFuture::started(self.inner.call(request), deadline)
    }
}
