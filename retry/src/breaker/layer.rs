use std::sync::Arc;

use tower_layer::Layer;

use super::{Breaker, circuit::Circuit};

/// Puts services behind a circuit breaker. Made by [`CircuitBreaker::layer`](super::CircuitBreaker::layer).
///
/// The circuit belongs to the breaker: every service it wraps, however often it is applied, shares it.
#[derive(Clone, Debug)]
pub struct CircuitBreakerLayer<C> {
    circuit: Arc<Circuit>,
    classify: C,
}

impl<C> CircuitBreakerLayer<C> {
    pub(super) fn new(circuit: Arc<Circuit>, classify: C) -> Self {
        Self { circuit, classify }
    }
}

impl<S, C: Clone> Layer<S> for CircuitBreakerLayer<C> {
    type Service = Breaker<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Breaker::new(inner, Arc::clone(&self.circuit), self.classify.clone())
    }
}
