use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::time::Instant;
use tower_service::Service;

use super::{HedgeDelay, HedgeFuture};
use crate::{budget::Budget, classify::Classify, replay::Replay};

/// A service whose slow calls are made twice. Made by [`HedgeLayer`](super::HedgeLayer).
pub struct HedgeService<S, C, R> {
    inner: S,
    rules: Arc<Rules<C, R>>,
}

#[derive(Debug)]
pub(super) struct Rules<C, R> {
    pub(super) settings: Settings,
    pub(super) classify: C,
    pub(super) replay: R,
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) delay: HedgeDelay,
    pub(super) max_hedges: u32,
    pub(super) budget: Arc<dyn Budget>,
    pub(super) fills_budget: bool,
}

impl<S, C, R> HedgeService<S, C, R> {
    pub(super) fn new(inner: S, rules: Rules<C, R>) -> Self {
        Self {
            inner,
            rules: Arc::new(rules),
        }
    }

    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, C, R, Req> Service<Req> for HedgeService<S, C, R>
where
    S: Service<Req> + Clone,
    S::Error: 'static,
    C: Classify<S::Response, S::Error>,
    R: Replay<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = HedgeFuture<S, Req, C, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let Rules {
            settings, replay, ..
        } = &*self.rules;
        let spare = if settings.max_hedges == 0 {
            None
        } else {
            replay.replay(&request)
        };
        let Some(spare) = spare else {
            return HedgeFuture::plain(self.inner.call(request));
        };
        let started = settings.delay.learns().then(Instant::now);
        let Some(delay) = settings.delay.now() else {
            let future = self.inner.call(request);
            return HedgeFuture::watched(future, Arc::clone(&self.rules), started);
        };
        // The instance that was polled ready makes this call, and its clone, which is not ready, takes its place.
        let clone = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, clone);
        let future = ready.call(request);
        let rules = Arc::clone(&self.rules);
        HedgeFuture::hedged(future, rules, started, delay, ready, spare)
    }
}

impl<S: Clone, C, R> Clone for HedgeService<S, C, R> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            rules: Arc::clone(&self.rules),
        }
    }
}

impl<S: fmt::Debug, C, R> fmt::Debug for HedgeService<S, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeService")
            .field("inner", &self.inner)
            .field("settings", &self.rules.settings)
            .finish_non_exhaustive()
    }
}
