//! Stops asking a service that has been failing, and finds out gently when it is back.
//!
//! States are meant in the electrical sense. **Closed** lets every call through and counts failures. When the
//! [`Trip`] rule is met the circuit **opens**: calls are refused with [`CircuitOpen`](crate::CircuitOpen), without a
//! look at the service inside. After a wait it is **half-open**: a limited number of calls are let through as probes.
//! When all of them succeed it closes, at the first failure it opens again and waits longer.
//!
//! What counts as failure is said by the same [verdict](crate::Verdict) that the retry layer acts on. A throttled
//! caller, a deadline of the caller's own and a call that was dropped count neither way.
//!
//! Every outcome is stamped with the *generation*, the period between two changes of state or orders from outside, that
//! let its call in, and changes nothing in a later one: a slow success from before the outage does not close the circuit.
//!
//! ```
//! use std::time::Duration;
//! use mainstay_retry::{Backoff, CircuitBreaker, HalfOpen, Trip};
//!
//! let breaker = CircuitBreaker::builder("payments")
//!     .trip(Trip::consecutive(5))
//!     .wait_in_open(Backoff::equal_jitter(Duration::from_secs(1), Duration::from_secs(60)))
//!     .half_open(HalfOpen::probes(1).max_wait(Duration::from_secs(10)))
//!     .build()?;
//! let layer = breaker.layer(); // every service it wraps shares the circuit
//! let handle = breaker.handle();
//! handle.force_open(); // until `reset`
//! # let _ = layer;
//! # Ok::<(), mainstay_retry::breaker::InvalidBreaker>(())
//! ```

mod builder;
mod circuit;
mod events;
mod future;
mod handle;
mod keyed;
mod layer;
mod pending;
mod permit;
mod rules;
mod service;
mod state;
mod trip;
mod window;

pub use self::{
    builder::{CircuitBreakerBuilder, HalfOpen, InvalidBreaker, WhenOpen},
    circuit::CircuitBreaker,
    events::{BreakerEvent, BreakerEvents},
    future::BreakerFuture,
    handle::BreakerHandle,
    keyed::{KeyedBreaker, KeyedBreakerLayer, KeyedBreakers},
    layer::CircuitBreakerLayer,
    permit::Permit,
    rules::RateSnapshot,
    service::Breaker,
    state::{Snapshot, State},
    trip::{Trip, Window},
};
