//! The breaker itself: the state machine with a name, a clock and a voice.

use std::{fmt, sync::Arc, time::Instant};

use super::{
    BreakerHandle, CircuitBreakerBuilder, CircuitBreakerLayer, Permit,
    builder::Settings,
    state::{Admission, Machine, State, Transition},
};
use crate::{classify::HttpClassify, error::CircuitOpen, policy::TARGET};

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

    pub(super) fn new(name: Arc<str>, settings: Settings) -> Self {
        Self {
            circuit: Arc::new(Circuit {
                name,
                machine: Machine::new(settings),
            }),
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
        self.circuit.try_acquire()
    }
}

pub(super) struct Circuit {
    name: Arc<str>,
    machine: Machine,
}

impl Circuit {
    pub(super) fn try_acquire(self: &Arc<Self>) -> Result<Permit, CircuitOpen> {
        let (admission, change) = self.machine.admit(now);
        // Before anybody is told: a listener that panics must not keep the permit.
        let admitted = match admission {
            Admission::Granted(generation) => Ok(Permit::new(Arc::clone(self), generation)),
            Admission::Refused(wait) => Err(CircuitOpen::new(Arc::clone(&self.name), wait)),
        };
        self.tell(change);
        admitted
    }

    pub(super) fn would_refuse(&self) -> bool {
        let (refuse, change) = self.machine.would_refuse(now);
        self.tell(change);
        refuse
    }

    /// What a call gets that is refused without asking again.
    pub(super) fn refusal(&self) -> CircuitOpen {
        CircuitOpen::new(Arc::clone(&self.name), self.machine.wait(now()))
    }

    pub(super) fn record(&self, generation: u64, health: Option<bool>) {
        let change = self.machine.record(generation, health, now);
        self.tell(change);
    }

    pub(super) fn force(&self, state: State) {
        let change = self.machine.force(state, now());
        self.tell(change);
    }

    pub(super) fn state(&self) -> State {
        self.machine.state()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Outside the machine's lock: whoever listens may ask the breaker something.
    fn tell(&self, change: Option<Transition>) {
        let Some(Transition {
            from,
            to,
            generation,
        }) = change
        else {
            return;
        };
        let (breaker, from, state) = (&*self.name, from.as_str(), to.as_str());
        if matches!(to, State::Open | State::ForcedOpen) {
            tracing::warn!(target: TARGET, breaker, from, state, generation, "circuit opened");
        } else {
            tracing::info!(target: TARGET, breaker, from, state, generation, "circuit changed");
        }
        #[cfg(feature = "metrics")]
        metrics::counter!(
            "mainstay.breaker.transitions", "breaker" => self.name.to_string(), "from" => from, "to" => state,
        )
        .increment(1);
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Circuit")
            .field("name", &self.name)
            .field("state", &self.state())
            .finish()
    }
}
