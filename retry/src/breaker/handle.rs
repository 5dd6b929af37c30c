//! What an operator holds.

use std::sync::Arc;

use super::{State, circuit::Circuit};

/// Watches a breaker and overrules it. Cheap to clone; outlives the services it stands for.
///
/// A forced state lasts until [`reset`](Self::reset) or another order. Calls already under way when it is
/// given change nothing when they end.
#[derive(Clone, Debug)]
pub struct BreakerHandle {
    circuit: Arc<Circuit>,
}

impl BreakerHandle {
    pub(super) fn new(circuit: Arc<Circuit>) -> Self {
        Self { circuit }
    }

    /// The name the breaker was built with.
    pub fn name(&self) -> &str {
        self.circuit.name()
    }

    /// The state now. An open circuit becomes half-open when the next call comes, not by itself.
    pub fn state(&self) -> State {
        self.circuit.state()
    }

    /// Refuses every call until further orders.
    pub fn force_open(&self) {
        self.circuit.force(State::ForcedOpen);
    }

    /// Lets every call through until further orders, whatever comes of them.
    pub fn force_close(&self) {
        self.circuit.force(State::ForcedClosed);
    }

    /// Takes the breaker out of the way until further orders.
    pub fn disable(&self) {
        self.circuit.force(State::Disabled);
    }

    /// Back to a closed circuit with nothing counted, which works by itself again.
    pub fn reset(&self) {
        self.circuit.force(State::Closed);
    }
}
