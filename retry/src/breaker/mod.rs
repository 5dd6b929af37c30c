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
//! use mainstay_retry::{Backoff, CircuitBreaker, HalfOpen, Trip, breaker::Window};
//!
//! let breaker = CircuitBreaker::builder("payments")
//!     .trip(
//!         Trip::consecutive(5)
//!             .or(Trip::failure_rate(0.5).window(Window::time(Duration::from_secs(10))).min_calls(20))
//!             .or(Trip::slow_calls(0.8, Duration::from_secs(2))),
//!     )
//!     .wait_in_open(Backoff::equal_jitter(Duration::from_secs(1), Duration::from_secs(60)))
//!     .half_open(HalfOpen::probes(1).max_wait(Duration::from_secs(10)))
//!     .build()?;
//! let layer = breaker.layer(); // every service it wraps shares the circuit
//! let handle = breaker.handle();
//! let events = handle.subscribe();
//! handle.force_open(); // until `reset`
//! # let _ = (layer, events);
//! # Ok::<(), mainstay_retry::breaker::InvalidBreaker>(())
//! ```
//!
//! # Choosing a rule
//!
//! `consecutive` is enough where calls either work or do not, and costs nothing while they do. A rate catches the service that
//! fails every other time, which never fails five times in a row; it says nothing before `min_calls`, and is asked after
//! each call, a success too. A rule about slow calls catches the service that still answers, and the one that does not answer at
//! all: a call under way counts once it has run for too long. [`Trip::or`] combines up to four.
//!
//! # Waiting instead of refusing
//!
//! [`WhenOpen::PendInReady`] makes services that are not ready while the circuit is open, for balancers. A circuit per
//! host or tenant is [`CircuitBreakerBuilder::keyed`].
//!
//! # Trying it out
//!
//! [`BreakerHandle::metrics_only`] counts and refuses nobody: an event, a log line and the `mainstay.breaker.transitions` counter
//! (to `would_open`) say when it would have opened.

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
