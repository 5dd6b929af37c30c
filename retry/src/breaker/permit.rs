//! A call that a breaker let in.

use std::sync::Arc;

use super::circuit::Circuit;
use crate::verdict::Verdict;

/// Leave to make one call, to be given back with the verdict on it.
///
/// Dropping it without a verdict, because the caller left or something panicked, counts neither way and makes
/// room for another probe.
#[derive(Debug)]
#[must_use = "dropping a permit unrecorded tells the breaker nothing"]
pub struct Permit {
    circuit: Arc<Circuit>,
    generation: u64,
    recorded: bool,
}

impl Permit {
    pub(super) fn new(circuit: Arc<Circuit>, generation: u64) -> Self {
        Self {
            circuit,
            generation,
            recorded: false,
        }
    }

    /// Tells the breaker how the call went. Ignored when the breaker has changed its state since it let the call in.
    pub fn record(mut self, verdict: Verdict) {
        self.recorded = true;
        self.circuit.record(self.generation, verdict.health());
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.recorded {
            self.circuit.record(self.generation, None);
        }
    }
}
