use std::{
    fmt,
    hash::Hash,
    sync::Arc,
    task::{Context, Poll},
};

use tower_layer::Layer;
use tower_service::Service;

use super::map::Map;
use crate::{
    breaker::BreakerFuture,
    classify::Classify,
    error::{BoxError, Error},
};

/// Puts services behind a circuit per key. Made by [`KeyedBreakers::layer`](super::KeyedBreakers::layer).
///
/// Every service it wraps, however often it is applied, shares the circuits.
#[derive(Clone)]
pub struct KeyedBreakerLayer<F, C> {
    map: Arc<Map>,
    key: F,
    classify: C,
}

impl<F, C> KeyedBreakerLayer<F, C> {
    pub(super) fn new(map: Arc<Map>, key: F, classify: C) -> Self {
        Self { map, key, classify }
    }
}

impl<S, F: Clone, C: Clone> Layer<S> for KeyedBreakerLayer<F, C> {
    type Service = KeyedBreaker<S, F, C>;

    fn layer(&self, inner: S) -> Self::Service {
        KeyedBreaker {
            inner,
            map: Arc::clone(&self.map),
            key: self.key.clone(),
            classify: self.classify.clone(),
        }
    }
}

/// A service behind a circuit per key. Made by [`KeyedBreakerLayer`].
///
/// Which circuit it is, is only known with the request. So readiness is that of the service inside, and a call is
/// refused in `call`; what the service inside had reserved then stays with this instance until its next call.
#[derive(Clone)]
pub struct KeyedBreaker<S, F, C> {
    inner: S,
    map: Arc<Map>,
    key: F,
    classify: C,
}

impl<S, F, C> KeyedBreaker<S, F, C> {
    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, F, K, C, Req> Service<Req> for KeyedBreaker<S, F, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError> + 'static,
    F: Fn(&Req) -> K,
    K: Hash,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = Error;
    type Future = BreakerFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::from_inner)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        match self.map.try_acquire(&(self.key)(&request)) {
            Ok(slip) => {
                BreakerFuture::started(self.inner.call(request), slip, self.classify.clone())
            }
            Err((circuit, wait)) => BreakerFuture::refused(circuit, wait, self.classify.clone()),
        }
    }
}

impl<F, C> fmt::Debug for KeyedBreakerLayer<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedBreakerLayer")
            .field("name", &self.map.name())
            .finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, F, C> fmt::Debug for KeyedBreaker<S, F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedBreaker")
            .field("inner", &self.inner)
            .field("name", &self.map.name())
            .finish_non_exhaustive()
    }
}
