//! The settings of a circuit breaker, checked once.

use std::{sync::Arc, time::Duration};

use super::{CircuitBreaker, KeyedBreakers, Trip};
use crate::{backoff::Backoff, error::Name};

/// What a service does with calls while the circuit is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WhenOpen {
    /// Is ready at once, and refuses the call with [`CircuitOpen`](crate::CircuitOpen). For callers with one place to
    /// go, who want to know quickly.
    #[default]
    RejectInCall,
    /// Is not ready until the wait is over, a probe makes room or somebody closes the circuit. For balancers, which
    /// turn to a service that is ready; put a deadline or load shedding over anything else.
    ///
    /// A service that is ready while the circuit is half-open has a probe reserved. It is given back when the service
    /// is dropped, and worthless after [`HalfOpen::max_wait`]. A call on a service whose circuit has opened since it
    /// was ready is refused with [`CircuitOpen`](crate::CircuitOpen) after all.
    PendInReady,
}

/// How a half-open circuit is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfOpen {
    pub(super) probes: u32,
    pub(super) max_wait: Duration,
}

impl HalfOpen {
    /// Lets `probes` calls through, and closes when all have succeeded. The first that fails, or is slow where a rule is
    /// about slow calls, opens the circuit again. A probe that is dropped, or says nothing about the service's
    /// health, makes room for another.
    ///
    /// No rate is taken over probes: a few calls say too little for one, and a wrong "closed" costs a storm where a wrong
    /// "open" costs one more wait.
    pub const fn probes(probes: u32) -> Self {
        Self {
            probes,
            max_wait: Duration::from_secs(30),
        }
    }

    /// Longest time in this state; then the circuit opens again, for a probe that never ends must not keep it here.
    /// Default 30 s.
    #[must_use]
    pub const fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }
}

/// Settings of a [`CircuitBreaker`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct CircuitBreakerBuilder {
    name: String,
    pub(super) settings: Settings,
}

/// Checked by [`CircuitBreakerBuilder::checked`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) trip: Trip,
    pub(super) wait_in_open: Backoff,
    pub(super) half_open: HalfOpen,
    pub(super) when_open: WhenOpen,
}

/// A breaker that could not work as written; every fault is listed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("circuit breaker `{name}`: {}", faults.join("; "))]
pub struct InvalidBreaker {
    name: String,
    faults: Vec<&'static str>,
}

impl InvalidBreaker {
    /// What is wrong, one sentence each.
    pub fn faults(&self) -> &[&'static str] {
        &self.faults
    }
}

/// More circuits than this are a leak and no use.
const KEYS_MAX: usize = 1 << 20;

impl CircuitBreakerBuilder {
    pub(super) fn new(name: String) -> Self {
        let settings = Settings {
            trip: Trip::consecutive(5),
            wait_in_open: Backoff::equal_jitter(Duration::from_secs(1), Duration::from_secs(60)),
            half_open: HalfOpen::probes(1),
            when_open: WhenOpen::RejectInCall,
        };
        Self { name, settings }
    }

    /// When to open. Default: five failures in a row.
    pub const fn trip(mut self, trip: Trip) -> Self {
        self.settings.trip = trip;
        self
    }

    /// How long to stay open; grows while probes keep failing. Default 1 s doubling to 60 s, of which half is
    /// random, so that many clients do not probe at once.
    pub const fn wait_in_open(mut self, wait: Backoff) -> Self {
        self.settings.wait_in_open = wait;
        self
    }

    /// How to probe. Default: one call at a time, 30 s at most.
    pub const fn half_open(mut self, half_open: HalfOpen) -> Self {
        self.settings.half_open = half_open;
        self
    }

    /// What a service does with calls while the circuit is open. Default: it refuses them.
    pub const fn when_open(mut self, when_open: WhenOpen) -> Self {
        self.settings.when_open = when_open;
        self
    }

    /// Makes the breaker, closed.
    ///
    /// # Errors
    /// [`InvalidBreaker`] lists all of: an empty name; a rule that would always trip or never could, or is beyond its
    /// documented bounds; more than four rules; no probes; no time for probes; no wait while open.
    pub fn build(self) -> Result<CircuitBreaker, InvalidBreaker> {
        let (name, settings) = self.checked()?;
        Ok(CircuitBreaker::new(name, settings))
    }

    /// Makes a breaker with a circuit per key, at most `keys_max` of them; 1024 is plenty for the hosts of a client.
    /// With these settings each, and [`WhenOpen::RejectInCall`].
    ///
    /// # Errors
    /// [`InvalidBreaker`] as of [`build`](Self::build); and when there is room for no key, or for more than 1,048,576,
    /// or when it should pend in ready: a service does not know its next key before the call.
    pub fn keyed(self, keys_max: usize) -> Result<KeyedBreakers, InvalidBreaker> {
        let pends = self.settings.when_open == WhenOpen::PendInReady;
        let wrong = [
            (keys_max == 0, "there would be room for no key"),
            (keys_max > KEYS_MAX, "there would be more than 1048576 keys"),
            (pends, "a breaker with keys cannot pend in ready"),
        ];
        let wrong = wrong
            .into_iter()
            .filter_map(|(wrong, fault)| wrong.then_some(fault))
            .collect();
        let (name, settings) = self.checked_with(wrong)?;
        Ok(KeyedBreakers::new(name, settings, keys_max))
    }

    fn checked_with(
        self,
        mut wrong: Vec<&'static str>,
    ) -> Result<(Name, Settings), InvalidBreaker> {
        let name = self.name.clone();
        match self.checked() {
            Ok(checked) if wrong.is_empty() => Ok(checked),
            Ok(_) => Err(InvalidBreaker {
                name,
                faults: wrong,
            }),
            Err(mut invalid) => {
                invalid.faults.append(&mut wrong);
                Err(invalid)
            }
        }
    }

    fn checked(self) -> Result<(Name, Settings), InvalidBreaker> {
        let Settings {
            trip,
            wait_in_open,
            half_open,
            ..
        } = self.settings;
        let checks = [
            (self.name.is_empty(), "the name is empty"),
            (
                half_open.probes == 0,
                "half-open would let no probe through and never close",
            ),
            (
                half_open.max_wait.is_zero(),
                "half-open would give probes no time",
            ),
            (wait_in_open.scheduled(1).is_zero(), "open would not last"),
        ];
        let faults = checks
            .into_iter()
            .filter_map(|(wrong, fault)| wrong.then_some(fault));
        let faults: Vec<_> = faults.chain(trip.faults()).collect();
        if faults.is_empty() {
            Ok((Arc::new(self.name.into()), self.settings))
        } else {
            Err(InvalidBreaker {
                name: self.name,
                faults,
            })
        }
    }
}
