//! A call that a breaker let in.

use std::{fmt, ops::Deref, sync::Arc};

use super::{
    circuit::Circuit,
    state::{Admission, Good, Ticket, in_nanos},
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
    slip: Slip<Arc<Circuit>>,
}

impl Permit {
    pub(super) const fn new(slip: Slip<Arc<Circuit>>) -> Self {
        Self { slip }
    }

    /// Tells the breaker how the call went. Ignored when the breaker has changed its state since it let the call in.
    #[inline]
    pub fn record(mut self, verdict: Verdict) {
        self.slip.settle(verdict.health());
    }
}

/// What a permit is inside, whether it shares the circuit or borrows it.
pub(super) struct Slip<H: Deref<Target = Circuit>> {
    /// Empty when the verdict has been told, or there is nobody to be told.
    circuit: Option<H>,
    ticket: Ticket,
}

impl<H: Deref<Target = Circuit> + Clone> Slip<H> {
    /// Leave to make one call, or the wait until a probe in nanoseconds.
    #[inline]
    pub(super) fn acquire(circuit: H) -> Result<Self, u64> {
        match circuit.pass() {
            Some(ticket) => Ok(Self::new(circuit, ticket)),
            None => Self::ask(circuit),
        }
    }

    #[inline(never)]
    fn ask(circuit: H) -> Result<Self, u64> {
        if let Some(ticket) = circuit.pass_timed() {
            return Ok(Self::new(circuit, ticket));
        }
        if let Some(wait) = circuit.left_open() {
            return Err(wait);
        }
        let (admission, change) = circuit.admit();
        // Before anybody is told: a listener that panics must not keep the permit.
        let admitted = match admission {
            Admission::Granted(ticket) => Ok(Self::new(circuit.clone(), ticket)),
            Admission::Refused(wait) => Err(in_nanos(wait)),
        };
        if let Some(change) = change {
            circuit.tell(change);
        }
        admitted
    }
}

impl<H: Deref<Target = Circuit>> Slip<H> {
    #[inline]
    pub(super) const fn new(circuit: H, ticket: Ticket) -> Self {
        Self {
            circuit: Some(circuit),
            ticket,
        }
    }

    /// No leave: of no generation, so that whatever becomes of it is told to nobody.
    #[inline]
    pub(super) const fn refused(circuit: H) -> Self {
        Self::new(circuit, Ticket::NONE)
    }

    /// Leave that nobody keeps count of.
    pub(super) const fn uncounted() -> Self {
        Self {
            circuit: None,
            ticket: Ticket::NONE,
        }
    }

    /// The circuit of a permit that has not been settled.
    pub(super) const fn take_circuit(&mut self) -> Option<H> {
        self.circuit.take()
    }

    /// Whether the breaker is still in the state in which it gave this permit.
    pub(super) fn is_current(&self) -> bool {
        let circuit = self.circuit.as_ref();
        circuit.is_none_or(|circuit| circuit.is_current(self.ticket))
    }

    #[inline(always)]
    pub(super) fn settle(&mut self, health: Option<bool>) {
        // Taken before anybody is told, who may panic: there is nothing left to be given up then.
        let Some(circuit) = self.circuit.take() else {
            return;
        };
        if health != Some(true) {
            return circuit.record_unusual(&self.ticket, Good::Unusual, health);
        }
        match circuit.record_good(&self.ticket) {
            Good::Counted => {}
            good => circuit.record_unusual(&self.ticket, good, health),
        }
    }

    #[cold]
    fn give_up(&mut self) {
        self.settle(None);
    }
}

impl<H: Deref<Target = Circuit>> Drop for Slip<H> {
    #[inline]
    fn drop(&mut self) {
        if self.circuit.is_some() {
            self.give_up();
        }
    }
}

impl<H: Deref<Target = Circuit>> fmt::Debug for Slip<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slip")
            .field("circuit", &self.circuit.as_deref())
            .field("ticket", &self.ticket)
            .finish()
    }
}
