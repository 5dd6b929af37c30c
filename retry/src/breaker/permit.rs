//! A call that a breaker let in.

use std::sync::Arc;

use super::{circuit::Circuit, state::Ticket};
use crate::verdict::Verdict;

/// Leave to make one call, to be given back with the verdict on it.
///
/// Dropping it without a verdict, because the caller left or something panicked, counts neither way and makes
/// room for another probe; but a call that had run for longer than a rule about [slow calls](crate::Trip::slow_calls)
/// allows was slow, however it ended.
#[derive(Debug)]
#[must_use = "dropping a permit unrecorded tells the breaker nothing"]
pub struct Permit {
    circuit: Arc<Circuit>,
    ticket: Ticket,
    recorded: bool,
}

impl Permit {
    #[inline]
    pub(super) fn new(circuit: Arc<Circuit>, ticket: Ticket) -> Self {
        Self {
            circuit,
            ticket,
            recorded: false,
        }
    }

    /// Whether the breaker is still in the state in which it gave this permit.
    pub(super) fn is_current(&self) -> bool {
        self.circuit.is_current(self.ticket)
    }

    /// Tells the breaker how the call went. Ignored when the breaker has changed its state since it let the call in.
    #[inline]
    pub fn record(mut self, verdict: Verdict) {
        self.recorded = true;
        self.circuit.record(self.ticket, verdict.health());
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.recorded {
            self.circuit.record(self.ticket, None);
        }
    }
}
