use std::sync::Arc;

use tower_layer::Layer;

use super::{Shared, Throttle};

/// Puts services behind a throttle. Made by [`AdaptiveThrottle::layer`](super::AdaptiveThrottle::layer).
///
/// The counts belong to the throttle: every service it wraps, however often it is applied, shares them.
#[derive(Clone, Debug)]
pub struct AdaptiveThrottleLayer<C> {
    shared: Arc<Shared>,
    classify: C,
}

impl<C> AdaptiveThrottleLayer<C> {
    pub(super) fn new(shared: Arc<Shared>, classify: C) -> Self {
        Self { shared, classify }
    }
}

impl<S, C: Clone> Layer<S> for AdaptiveThrottleLayer<C> {
    type Service = Throttle<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Throttle::new(inner, Arc::clone(&self.shared), self.classify.clone())
    }
}
