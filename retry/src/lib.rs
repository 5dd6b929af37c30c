//! Ask again, but never make it worse: retry, budgets, deadlines and circuit breakers for tower.
//!
//! A failed call is tried again only while that can help and cannot hurt: the request may be repeated, attempts and
//! time are left, a budget filled by successes pays for it, and the other side is not known to be down. In an outage
//! the added load goes to zero by itself.
//!
//! # A client
//!
//! One key per logical call, one deadline over everything, retries, a breaker that sees every attempt, a limit on each:
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use mainstay_retry::{
//!     AttachIdempotencyKeyLayer, AttemptTimeoutLayer, Backoff, CircuitBreaker, DeadlineLayer, Error, RetryLayer,
//!     TokenBudget, Trip,
//! };
//! use tower::{Service, ServiceBuilder, ServiceExt};
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let breaker = CircuitBreaker::builder("payments").trip(Trip::consecutive(5)).build()?;
//! let budget = TokenBudget::success_credit(0.1).capacity(10).shared()?;
//!
//! let mut client = ServiceBuilder::new()
//!     .layer(AttachIdempotencyKeyLayer::new())
//!     .layer(DeadlineLayer::total(Duration::from_secs(5)))
//!     .layer(
//!         RetryLayer::http()
//!             .max_attempts(3)
//!             .backoff(Backoff::full_jitter(Duration::from_millis(100), Duration::from_secs(20)))
//!             .budget(budget),
//!     )
//!     .layer(breaker.layer())
//!     .layer(AttemptTimeoutLayer::new(Duration::from_secs(1)))
//!     .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
//!
//! let request = Request::post("http://localhost:8080/v1/payments").body(Full::from(r#"{"amount": 1250}"#))?;
//! match client.ready().await?.call(request).await {
//!     Ok(response) => println!("{}", response.status()),
//!     Err(Error::CircuitOpen(open)) => println!("down; try again in {:?}", open.retry_after()),
//!     Err(Error::DeadlineExceeded(_)) => println!("too slow"),
//!     Err(error) => println!("no answer: {error}"),
//! }
//! # Ok(()) }
//! ```
//!
//! The order is the meaning. The **key** is made above retry, so that all attempts share it and the server can tell
//! a repetition. The **deadline** is over all attempts and waits. The **breaker** is below retry, so that it counts
//! attempts and not calls, and its refusals end the retries. The **attempt timeout** is lowest, so that the breaker
//! and retry see an attempt that hangs as what it is; give it less time than the whole call, for a call that is cut
//! off by its deadline tells the breaker nothing.
//!
//! What comes out is the transport's response, or the one type [`Error`]: three small refusals of our own that can be
//! matched by name, and [`Error::Inner`] with the transport's error as it was. Each knows whether the request may have
//! taken effect, and is a [`Fault`](mainstay_errors::Fault): it becomes a problem document by itself.
//!
//! # What is tried again
//!
//! * Only what may be repeated: idempotent methods, and any method with an `Idempotency-Key`, unless
//!   [`NonIdempotent`] says otherwise; with a body that is at hand and not too large ([`HttpReplay`]). Everything else
//!   gets one attempt, never an error. Repeating copies the request's head; the body's bytes are shared.
//! * Only after outcomes that may pass ([`HttpClassify`]). The same verdict feeds retry, breaker and budget.
//! * Only while the [budget](mod@budget) pays, once per decision.
//! * After a wait with jitter drawn for that call alone, on top of the server's `Retry-After`, if it named one.
//! * A wait that would pass the deadline is refused at once: the caller gets the last outcome and the rest of its time.
//!
//! Plain code has the same rules with [`retry()`].
//!
//! # Under the hood
//!
//! Decisions are pure: [`Backoff`], [`TokenBudget`], the breaker's state machine and header parsing know no runtime and
//! take `now` as an argument. All clocks are tokio's, so a test that pauses time pauses everything. Layers keep their
//! state behind an `Arc` in the layer or its service, use the instance that was polled ready, ask for readiness anew
//! before each further attempt, and have named futures. Retry, budget and a closed breaker take no lock, clock, timer or
//! random number for a success; the deadline looks at the clock once, it and the attempt timeout set a timer when an
//! answer is not at hand at once, and a fresh idempotency key takes the time and random bits.
//!
//! # Features and telemetry
//!
//! `metrics` counts `mainstay.retry.decisions` (by kind and decision) and `mainstay.breaker.transitions` (by breaker,
//! from and to) through the `metrics` facade. Tracing events have the target
//! `mainstay_retry`: each decision at debug, each change of a circuit at info or warn, never a payload or a header.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod attempt;
pub mod backoff;
pub mod breaker;
pub mod budget;
pub mod classify;
mod clock;
pub mod deadline;
mod decision;
mod envelope;
pub mod error;
pub mod hedge;
pub mod key;
pub mod plain;
pub mod policy;
pub mod problem;
pub mod replay;
pub mod retry;
pub mod retry_after;
mod sync;
pub mod throttle;
pub mod timeout;
#[cfg(feature = "tower")]
pub mod tower_policy;
pub mod verdict;

#[cfg(feature = "tower")]
pub use self::tower_policy::TowerPolicy;
pub use self::{
    attempt::Attempt,
    backoff::{Backoff, InvalidMultiplier, Jitter},
    breaker::{
        BreakerHandle, CircuitBreaker, CircuitBreakerLayer, HalfOpen, InvalidBreaker, Trip,
        WhenOpen,
    },
    budget::{Budget, BudgetFault, GrpcThrottle, InvalidBudget, RatioBudget, TokenBudget},
    classify::{Classify, EveryError, GrpcClassify, HttpClassify},
    deadline::{AcceptDeadlineLayer, Deadline, DeadlineLayer},
    error::{AttemptTimedOut, BoxError, CircuitOpen, DeadlineExceeded, Error, SelfThrottled},
    hedge::{Hedge, HedgeDelay, HedgeLayer, InvalidHedgeDelay},
    key::AttachIdempotencyKeyLayer,
    plain::{retry, retry_until},
    policy::{OnUnready, RetryPolicy},
    problem::ReadProblemLayer,
    replay::{
        CloneReplay, GrpcReplay, HttpReplay, NonIdempotent, RepeatBody, Replay, ReplayBody,
        ReplayBodyLayer,
    },
    retry::RetryLayer,
    throttle::{AdaptiveThrottle, AdaptiveThrottleLayer, InvalidThrottle},
    timeout::AttemptTimeoutLayer,
    verdict::{Kind, Verdict},
};
