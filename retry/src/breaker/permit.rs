//! A call that a breaker let in.

use std::sync::Arc;

use super::{
    circuit::Circuit,
    state::{Good, Ticket},
};
use crate::verdict::Verdict;

/// Leave to make one call, to be given back with the verdict on it.
///
/// Dropping it without a verdict, because the caller left or something panicked, counts neither way and makes
/// room for another probe; but a call that had run for longer than a rule about [slow calls](crate::Trip::slow_calls)
/// allows was slow, however it ended.
#[derive(Debug)]
#[must_use = "dropping a permit unrecorded tells the breaker nothing"]
pub struct Permit {
    /// Empty when the verdict has been told, or there is nobody to be told.
    circuit: Option<Arc<Circuit>>,
    ticket: Ticket,
}

impl Permit {
    #[inline]
    pub(super) const fn new(circuit: Arc<Circuit>, ticket: Ticket) -> Self {
        Self {
            circuit: Some(circuit),
            ticket,
        }
    }

    /// No leave: of no generation, so that whatever becomes of it is told to nobody.
    #[inline]
    pub(super) const fn refused(circuit: Arc<Circuit>) -> Self {
        Self::new(circuit, Ticket::NONE)
    }

    /// The circuit of a permit that has not been settled.
    pub(super) fn take_circuit(&mut self) -> Option<Arc<Circuit>> {
        self.circuit.take()
    }

    /// Leave that nobody keeps count of.
    pub(super) const fn uncounted() -> Self {
        Self {
            circuit: None,
            ticket: Ticket::NONE,
        }
    }

    /// Whether the breaker is still in the state in which it gave this permit.
    pub(super) fn is_current(&self) -> bool {
        let circuit = self.circuit.as_ref();
        circuit.is_none_or(|circuit| circuit.is_current(self.ticket))
    }

    /// Tells the breaker how the call went. Ignored when the breaker has changed its state since it let the call in.
    #[inline]
    pub fn record(mut self, verdict: Verdict) {
        self.settle(verdict.health());
    }

    #[inline(always)]
    pub(super) fn settle(&mut self, health: Option<bool>) {
        // Taken before anybody is told, who may panic: there is nothing left to be given up then.
        let Some(circuit) = self.circuit.take() else {
            return;
        };
        let good = if health == Some(true) {
            circuit.record_good(&self.ticket)
        } else {
            Good::Unusual
        };
        if good != Good::Counted {
            circuit.record_unusual(&self.ticket, good, health);
        }
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        if self.circuit.is_some() {
            self.give_up();
        }
    }
}

impl Permit {
    #[cold]
    fn give_up(&mut self) {
        self.settle(None);
    }
}
