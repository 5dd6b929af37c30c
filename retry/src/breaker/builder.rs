//! The settings of a circuit breaker, checked once.

use std::time::Duration;

use super::CircuitBreaker;
use crate::backoff::Backoff;

/// When a closed circuit opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trip {
    pub(super) consecutive: u32,
}

impl Trip {
    /// After this many failures without a success between them.
    pub const fn consecutive(failures: u32) -> Self {
        Self {
            consecutive: failures,
        }
    }
}

/// How a half-open circuit is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfOpen {
    pub(super) probes: u32,
    pub(super) max_wait: Duration,
}

impl HalfOpen {
    /// Lets `probes` calls through, and closes when all have succeeded. A probe that is dropped, or says nothing about
    /// the service's health, makes room for another.
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

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) trip: Trip,
    pub(super) wait_in_open: Backoff,
    pub(super) half_open: HalfOpen,
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

/// Consecutive failures share a word with state and generation: see `state`.
pub(super) const CONSECUTIVE_MAX: u32 = (1 << 20) - 1;

impl CircuitBreakerBuilder {
    pub(super) fn new(name: String) -> Self {
        let settings = Settings {
            trip: Trip::consecutive(5),
            wait_in_open: Backoff::equal_jitter(Duration::from_secs(1), Duration::from_secs(60)),
            half_open: HalfOpen::probes(1),
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

    /// Makes the breaker, closed.
    ///
    /// # Errors
    /// [`InvalidBreaker`] lists all of: an empty name; a trip at no failures, or at more than 1,048,575; no probes; no
    /// time for probes; no wait while open.
    pub fn build(self) -> Result<CircuitBreaker, InvalidBreaker> {
        let Settings {
            trip,
            wait_in_open,
            half_open,
        } = self.settings;
        let checks = [
            (self.name.is_empty(), "the name is empty"),
            (trip.consecutive == 0, "it would trip without a failure"),
            (
                trip.consecutive > CONSECUTIVE_MAX,
                "it would trip at more than 1048575 consecutive failures",
            ),
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
        let faults: Vec<_> = checks
            .into_iter()
            .filter_map(|(wrong, fault)| wrong.then_some(fault))
            .collect();
        if faults.is_empty() {
            Ok(CircuitBreaker::new(self.name.into(), self.settings))
        } else {
            Err(InvalidBreaker {
                name: self.name,
                faults,
            })
        }
    }
}
