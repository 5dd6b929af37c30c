//! What an operator holds.

use std::sync::Arc;

use super::{BreakerEvents, Snapshot, State, circuit::Circuit};

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

    /// Counts as if closed and lets every call through, until further orders: to try rules out on live traffic. When it
    /// would have opened it says so, once for the time it would have been open at first.
    pub fn metrics_only(&self) {
        self.circuit.force(State::MetricsOnly);
    }

    /// Every change of state from now on. While nobody has subscribed, a change costs one load more, and a
    /// call nothing.
    pub fn subscribe(&self) -> BreakerEvents {
        self.circuit.news().subscribe()
    }

    /// What it is doing and what it knows, for a health page. Takes a lock; not for every request.
    pub fn snapshot(&self) -> Snapshot {
        self.circuit.snapshot()
    }

    /// Back to a closed circuit with nothing counted, which works by itself again.
    pub fn reset(&self) {
        self.circuit.force(State::Closed);
    }
}
