//! Sends a slow request once more and takes the first good answer.
//!
//! When nothing has come back after a [delay](HedgeDelay), the same request goes out a second time, and whichever good
//! answer is first is the answer; the other attempt is dropped. That cuts off the tail of the latencies: what one
//! server, one connection or one garbage collection holds up is done by another. It cannot help when everything is
//! slow, and then it must not make things worse:
//!
//! * Hedges are paid for from a [budget](mod@crate::budget), the one that retries are paid from, once, when the
//!   decision is made.
//! * Only what may be [repeated](crate::Replay) is hedged: over HTTP idempotent methods and requests with an
//!   idempotency key, the same on both. Anything else passes as it came, without a copy.
//! * After an answer that asks for patience, throttled, overloaded or with a wait, no further hedge is sent.
//! * None is sent after the [deadline](crate::Deadline), nor when the delay would end after it.
//! * None is sent when the service is not ready for it at that moment. A hedge never waits: a service without room is
//!   busy, and the first attempt is under way.
//!
//! # What is an answer
//!
//! A success is, and so is a failure that is [final](crate::Verdict::Failure). One that might pass by itself is only
//! returned when no other attempt is under way; the last of them, and a real one rather than a refusal of our own. A
//! first attempt that fails before the delay is over is returned at once: what to do about failures is for the retry
//! layer. Nor is a 409 an answer while another attempt is under way: it may be about that one. See [`HttpRaceClassify`].
//!
//! # Where it goes
//!
//! Deadline, retry, **hedge**, throttle, breaker, attempt timeout. Below retry, for each of its attempts may be slow,
//! and retrying inside a race would multiply one by the other. Above throttle and breaker, so that hedges are counted
//! and can be refused. Above the attempt timeout, which is each attempt's own. A loser that is dropped gives its permit
//! back to the breaker and counts neither way.
//!
//! ```
//! use std::time::Duration;
//! use mainstay_retry::{AttemptTimeoutLayer, DeadlineLayer, HedgeLayer, RetryLayer, TokenBudget};
//! use tower::ServiceBuilder;
//!
//! let budget = TokenBudget::success_credit(0.1).shared()?;
//! let layers = ServiceBuilder::new()
//!     .layer(DeadlineLayer::total(Duration::from_secs(5)))
//!     .layer(RetryLayer::http().budget(budget.clone()))
//!     .layer(HedgeLayer::http().budget(budget)) // after the 95th percentile of recent latencies
//!     .layer(AttemptTimeoutLayer::new(Duration::from_secs(1)));
//! # let _ = layers;
//! # Ok::<(), mainstay_retry::InvalidBudget>(())
//! ```

mod delay;
mod future;
mod judge;
mod latencies;
mod layer;
mod service;
mod tell;

use std::fmt;

pub use self::{
    delay::{HedgeDelay, InvalidHedgeDelay, PercentileBuilder},
    future::HedgeFuture,
    judge::HttpRaceClassify,
    layer::HedgeLayer,
    service::HedgeService,
};

/// Marks a request as a hedge. Found in the extensions of hedges below the hedge layer, and of no other request.
///
/// A hedge has the [`Attempt`](crate::Attempt) of the attempt that it is to overtake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Hedge {
    /// Counts from 1.
    pub number: u32,
    /// How many there will be at most.
    pub max: u32,
}

impl fmt::Display for Hedge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hedge {} of {}", self.number, self.max)
    }
}
