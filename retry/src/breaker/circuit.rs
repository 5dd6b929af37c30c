//! The breaker itself: the state machine with a name, a clock and a voice.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    BreakerHandle, CircuitBreakerBuilder, CircuitBreakerLayer, Permit,
    builder::{Settings, WhenOpen},
    events::News,
    permit::Slip,
    state::{Admission, Good, Machine, Recorded, Snapshot, State, Ticket, Transition, in_nanos},
};
use crate::{
    classify::{Classify, HttpClassify},
    error::{CircuitOpen, Name},
};

/// A circuit breaker. Clones share the circuit. See the [module docs](crate::breaker).
///
/// Wrap clients with [`layer`](Self::layer), or use it in plain code:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// # use mainstay_retry::{CircuitBreaker, Trip, Verdict, Kind};
/// let breaker = CircuitBreaker::builder("mail").trip(Trip::consecutive(1)).build().unwrap();
/// let permit = breaker.try_acquire().unwrap();
/// permit.record(Verdict::Failure(Kind::Transient));
/// assert!(breaker.try_acquire().is_err());
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct CircuitBreaker {
    circuit: Arc<Circuit>,
}

impl CircuitBreaker {
    /// Starts a breaker. The name is what errors, logs and metrics call it.
    pub fn builder(name: impl Into<String>) -> CircuitBreakerBuilder {
        CircuitBreakerBuilder::new(name.into())
    }

    pub(super) fn new(name: Name, settings: Settings) -> Self {
        Self {
            circuit: Arc::new(Circuit::new(name, settings)),
        }
    }

    /// A layer for HTTP clients, which judges outcomes with [`HttpClassify`].
    pub fn layer(&self) -> CircuitBreakerLayer<HttpClassify> {
        self.layer_with(HttpClassify)
    }

    /// A layer that judges outcomes with `classify`.
    pub fn layer_with<C>(&self, classify: C) -> CircuitBreakerLayer<C> {
        CircuitBreakerLayer::new(Arc::clone(&self.circuit), classify)
    }

    /// A handle to watch and to overrule the breaker, for operators and health pages.
    pub fn handle(&self) -> BreakerHandle {
        BreakerHandle::new(Arc::clone(&self.circuit))
    }

    /// Leave to make one call.
    ///
    /// # Errors
    /// [`CircuitOpen`] when the call must not be made.
    pub fn try_acquire(&self) -> Result<Permit, CircuitOpen> {
        match Slip::acquire(Arc::clone(&self.circuit)) {
            Ok(slip) => Ok(Permit::new(slip)),
            Err(wait) => Err(self.circuit.refusal(wait)),
        }
    }

    /// Makes one call through the breaker. The future is not begun while the circuit is open. Its outcome comes out as
    /// it was.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use mainstay_retry::{CircuitBreaker, EveryError, Trip};
    ///
    /// let mail = CircuitBreaker::builder("mail").trip(Trip::consecutive(1)).build().unwrap();
    /// let send = || async { Err::<(), _>("connection refused") };
    /// assert_eq!(mail.call(&EveryError, send()).await, Ok(Err("connection refused")));
    /// assert!(mail.call(&EveryError, send()).await.is_err()); // not sent: the circuit is open
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`CircuitOpen`] when the call was not made.
    ///
    /// # Cancel safety
    /// Dropping it drops the call and gives its permit back; the breaker counts it neither way.
    #[inline]
    pub async fn call<C, F, T, E>(&self, classify: &C, call: F) -> Result<Result<T, E>, CircuitOpen>
    where
        C: Classify<T, E>,
        F: Future<Output = Result<T, E>>,
    {
        let circuit = &*self.circuit;
        // Not `map_err` and `?`, here and below: a result of slip and refusal is moved in pieces and read back whole, which
        // stalls for longer than all the rest takes.
        let mut slip = match Slip::acquire(circuit) {
            Ok(slip) => slip,
            Err(wait) => return Err(circuit.refusal(wait)),
        };
        let outcome = call.await;
        slip.settle(classify.classify(outcome.as_ref()).health());
        Ok(outcome)
    }

    /// [`call`](Self::call) for code that does not await, such as a driver that blocks its thread.
    ///
    /// # Errors
    /// [`CircuitOpen`] when the call was not made.
    #[inline]
    pub fn call_blocking<C, T, E>(
        &self,
        classify: &C,
        call: impl FnOnce() -> Result<T, E>,
    ) -> Result<Result<T, E>, CircuitOpen>
    where
        C: Classify<T, E>,
    {
        let circuit = &*self.circuit;
        let mut slip = match Slip::acquire(circuit) {
            Ok(slip) => slip,
            Err(wait) => return Err(circuit.refusal(wait)),
        };
        let outcome = call();
        slip.settle(classify.classify(outcome.as_ref()).health());
        Ok(outcome)
    }
}

pub(super) struct Circuit {
    name: Name,
    machine: Machine,
    when_open: WhenOpen,
    news: News,
}

impl Circuit {
    pub(super) fn new(name: Name, settings: Settings) -> Self {
        Self {
            name,
            machine: Machine::new(settings, now()),
            when_open: settings.when_open,
            news: News::default(),
        }
    }

    /// Lets a call in, if there is nothing to be asked.
    #[inline]
    pub(super) fn pass(&self) -> Option<Ticket> {
        self.machine.pass()
    }

    /// Lets a call in whose start matters, or in a state that does not count.
    pub(super) fn pass_timed(&self) -> Option<Ticket> {
        self.machine.pass_timed(now)
    }

    /// Lets a call in or refuses it; whoever asks has to [tell](Self::tell) of the change.
    pub(super) fn admit(&self) -> (Admission, Option<Transition>) {
        self.machine.admit(now)
    }

    pub(super) fn tell(&self, change: Transition) {
        self.news.tell(&self.name, change);
    }

    /// Whether every call is let in now.
    #[inline]
    pub(super) fn passes(&self) -> bool {
        self.machine.passes()
    }

    /// Whether a call would be refused now, and the wait until a probe, in nanoseconds.
    #[inline]
    pub(super) fn would_refuse(&self) -> Option<u64> {
        self.left_open().or_else(|| self.would_refuse_slowly())
    }

    /// The refusal of a circuit that is open and stays so: the wait until a probe, in nanoseconds.
    #[inline]
    pub(super) fn left_open(&self) -> Option<u64> {
        self.machine.left_open(now)
    }

    #[cold]
    fn would_refuse_slowly(&self) -> Option<u64> {
        let (refuse, change) = self.machine.would_refuse(now);
        if let Some(change) = change {
            self.tell(change);
        }
        refuse.map(in_nanos)
    }

    /// What a call gets that is refused without asking again.
    #[inline]
    pub(super) fn refusal(&self, wait_nanos: u64) -> CircuitOpen {
        CircuitOpen::new(Arc::clone(&self.name), wait_nanos)
    }

    /// Counts a success, if that is all there is to do.
    #[inline(always)]
    pub(super) fn record_good(&self, ticket: &Ticket) -> Good {
        self.machine.record_good(ticket, now)
    }

    /// Does the rest, after [`record_good`](Self::record_good) for a success.
    #[cold]
    pub(super) fn record_unusual(&self, ticket: &Ticket, good: Good, health: Option<bool>) {
        let ticket = *ticket;
        let recorded = match good {
            Good::Counted => return,
            Good::Met => self.machine.tripped(ticket, now),
            Good::Unusual => self.machine.record(ticket, health, now),
        };
        match recorded {
            Recorded::Counted => {}
            Recorded::Freed => self.news.tell_room(),
            Recorded::Changed(change) => self.tell(change),
        }
    }

    pub(super) fn force(&self, state: State) {
        if let Some(change) = self.machine.force(state, now()) {
            self.tell(change);
        }
    }

    /// Whether a permit with this ticket is still worth something.
    pub(super) fn is_current(&self, ticket: Ticket) -> bool {
        self.machine.is_current(ticket)
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.machine.is_quiet(now())
    }

    /// Whether it is closed, or would let the next call in to see.
    pub(super) fn waits_for_nothing(&self) -> bool {
        self.state() == State::Closed || self.changes_in() == Some(Duration::ZERO)
    }

    /// How long until the state changes by itself.
    pub(super) fn changes_in(&self) -> Option<Duration> {
        self.machine.changes_in(now())
    }

    pub(super) fn news(&self) -> &News {
        &self.news
    }

    pub(super) const fn when_open(&self) -> WhenOpen {
        self.when_open
    }

    pub(super) fn state(&self) -> State {
        self.machine.state()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.machine.snapshot(now())
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// The one place where the breaker looks at a clock.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Circuit")
            .field("name", &self.name)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
