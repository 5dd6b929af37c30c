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
//! The order is the meaning. Each layer is optional; those that are there belong in this order, outermost first:
//!
//! | layer | is there because |
//! |---|---|
//! | [`AttachIdempotencyKeyLayer`] | all attempts share one key, by which the server tells a repetition |
//! | [`DeadlineLayer`] | one time is over all attempts and waits, and the server is told what is left of it |
//! | [`ReplayBodyLayer`] | a body that comes in only once can be sent again |
//! | [`RetryLayer`] | what failed in a way that may pass is tried again |
//! | [`HedgeLayer`] | an attempt that is slow is sent once more; both retries and hedges are paid from one budget |
//! | [`AdaptiveThrottle`] | a server that refuses much is asked less: it counts attempts, hedges too |
//! | [`CircuitBreaker`] | a server that fails is not asked: it counts attempts, and its refusals end the retries |
//! | [`AttemptTimeoutLayer`] | breaker and retry see an attempt that hangs as what it is |
//! | [`ReadProblemLayer`] | the server's own advice is read where the others see it |
//!
//! Give an attempt less time than the whole call, for a call that is cut off by its deadline tells the breaker nothing.
//! Load shedding of one's own goes above all of them: what it refuses would else look like the server's failure.
//!
//! What comes out is the transport's response, or the one type [`Error`]: four small refusals of our own that can be
//! matched by name, and [`Error::Inner`] with the transport's error as it was. Each knows whether the request may have
//! taken effect, and is a [`Fault`](mainstay_errors::Fault): it becomes a problem document by itself.
//!
//! The other end of the wire has [`AcceptDeadlineLayer`]: a server that knows when its caller stops waiting refuses work
//! that nobody will collect, and hands the rest of the time on to its database and to the calls it makes.
//!
//! # What is tried again
//!
//! * Only what may be repeated: idempotent methods, and any method with an `Idempotency-Key`, unless
//!   [`NonIdempotent`] says otherwise; with a body that is at hand and not too large ([`HttpReplay`]), or that a
//!   [`ReplayBodyLayer`] has kept. Everything else gets one attempt, never an error. Repeating copies the request's
//!   head; the body's bytes are shared. Of gRPC's methods, which are all POST, those that are named:
//!   [`RetryLayer::grpc`].
//! * Only after outcomes that may pass ([`HttpClassify`], [`GrpcClassify`]), or of which the server says so itself in a
//!   problem document ([`ReadProblemLayer`]). The same verdict feeds retry, throttle, breaker and budget.
//! * Only while the [budget](mod@budget) pays, once per decision; one for each host or tenant with
//!   [`RetryLayer::per_key`].
//! * After a wait with jitter drawn for that call alone, on top of what the server asks for: `Retry-After` in seconds or
//!   as a date, `retry-after-ms`, `RateLimit`, gRPC's pushback; cut to a cap, and heard only where it means "come back".
//! * A wait that would pass the deadline is refused at once: the caller gets the last outcome and the rest of its time.
//! * Never after a refusal of our own, whatever a classifier says: an open circuit, the throttle, a spent deadline.
//!
//! Plain code has the same rules with [`retry()`] and [`retry_until()`], and a stack that has tower's own retry layer
//! with `TowerPolicy` (feature `tower`).
//!
//! # Under the hood
//!
//! Decisions are pure: [`Backoff`], [`TokenBudget`], the breaker's state machine and header parsing know no runtime and
//! take `now` as an argument. All clocks are tokio's, so a test that pauses time pauses everything. Layers keep their
//! state behind an `Arc` in the layer or its service, so that applying a layer twice, as routers do, shares it; they use
//! the instance that was polled ready, ask for readiness anew before each further attempt, and have named futures.
//!
//! For a success, what is looked at besides the outcome itself:
//!
//! | | clock | lock | timer | random |
//! |---|---|---|---|---|
//! | retry with its budget | | | | |
//! | retry with a budget per key | | one | | |
//! | hedge, fixed delay | | | if it has to wait | |
//! | hedge, percentile | twice | | if it has to wait | |
//! | throttle | once | | | |
//! | breaker: failures in a row, [`Window::count`](breaker::Window::count) or [`ewma`](breaker::Window::ewma) | | | | |
//! | breaker: [`Window::time`](breaker::Window::time) | once | | | |
//! | breaker: slow calls | twice | | | |
//! | breaker with a circuit per key | | one | | |
//! | deadline | twice | | if it has to wait | |
//! | attempt timeout | | | if it has to wait | |
//! | a fresh idempotency key | once | one | | yes |
//!
//! Windows in time are moved on under a lock, once for each bucket. Budgets, windows and the breaker's states are checked
//! in every interleaving of two or three threads by loom:
//! `RUSTFLAGS="--cfg mainstay_loom" cargo test -p mainstay-retry --lib --release loom`.
//!
//! With [`RetryLayer::seed`] the jitter is the same each time too. `tests/it/storm.rs` drives the layers so through an
//! outage: after a stall of 3 s, at 850 calls a second to a server of 1,000, three attempts without a budget never
//! recover; a budget filled by successes needs 11–14 s, where no retries at all need 10–12; a breaker 2 s; and a server
//! that knows the deadlines none.
//!
//! # What it costs
//!
//! Measured 2026-11-30 on two virtual CPUs of an AMD EPYC (Zen 5) with rustc 1.95, thin LTO, one codegen unit and no
//! features. An operation is `poll_ready`, `call` and one poll of a service that is ready at once, and the figures contain
//! that service: 17 instructions. They are callgrind's (`benches/instructions retry`), of a program with the clock that
//! programs have. Times, threads, allocations and the same beside other crates are in `benches/races/RESULTS.md`.
//!
//! | operation | instructions | goal | |
//! |-|-|-|-|
//! | `retry_success`: with a full budget | 66 | 80 | met |
//! | `retry_hand_written`: the same by hand | 25 | | |
//! | `retry_one_failure`: no wait, then success | 237 | 150 | short |
//! | `retry_one_failure_hand_written` | 70 | | |
//! | `retry_refused`: no budget left | 139 | | |
//! | `breaker_consecutive` | 61 | 60 | 1 over |
//! | `breaker_count`: a rate of the last 100 calls | 86 | 60 | short |
//! | `breaker_time`: a rate over time | 202 | 100 | short |
//! | `breaker_time_full`: the same with 10 million calls | 202 | as when empty | met |
//! | `breaker_call`: five in a row, without a layer | 65 | | |
//! | `breaker_ewma`: a weighted average | 109 | | |
//! | `breaker_slow`: slow calls | 699 | | |
//! | `breaker_reject_open` | 212 | 70 | short |
//! | `breaker_reject_forced` | 119 | 70 | short |
//! | `stack_generic_deadline`: deadline, retry, budget, breaker | 290 | 300 | met |
//! | `stack_generic`: retry, budget, breaker, attempt timeout | 199 | | |
//! | `stack_success_all`: HTTP, all five | 4,493 | | |
//! | `stack_http_bare`: the HTTP request and response alone | 264 | | |
//! | `clock`, `clock_tokio`: one look at std's, at tokio's | 32, 32 | | |
//!
//! None of these but HTTP's allocates. In time, beside what one would write by hand in the same run: retry with its budget
//! 1.1 times (the goal is 1.4), the breaker 1.07 to 1.17 times by each rule, and two threads on one breaker no more than
//! 1.4 times (the goal). What is short, and why:
//!
//! * The clock is tokio's; with its feature `test-util`, which lets tests pause it, a look costs 14 instructions more. The
//!   stack looks twice, and is 290 where its layers are inlined into their caller: in the races they are not, and it is 328.
//!   A window in time and an open circuit look once, which is 31, and another 55 go into nanoseconds since the breaker was
//!   made, for an `Instant` shows its parts to nobody. (The counter sees the call, not what the kernel does in it.)
//! * A window of calls is exact, and its calls know their generation: an exchange that may fail, where a plain addition
//!   would do for one that is neither.
//! * A refusal names the breaker and says the wait: a reference count up and down, and an error to be dropped.
//! * A failure that is tried again has a judgement, a decision, two attempts and a copy of the service.
//! * In HTTP the requests' own maps are nearly all of it: a deadline and the attempt's number in the extensions and a
//!   header to tell the server are allocations, and the copy to send again copies them.
//!
//! # Features and telemetry
//!
//! None is on by default.
//!
//! | feature | what it adds |
//! |---|---|
//! | `axum` | [`Deadline`] as an argument of handlers |
//! | `metrics` | the counters below, through the `metrics` facade |
//! | `reqwest` | the layers around reqwest's client, which is a service of its own requests |
//! | `tower` | `TowerPolicy`, the rules as a policy of tower's own retry layer |
//!
//! | counter | labels | counts |
//! |---|---|---|
//! | `mainstay.retry.decisions` | `kind`, `decision`: again, no_time, no_budget | failures that might have been tried again |
//! | `mainstay.hedge.decisions` | `decision`: sent, no_time, not_ready, not_whole, no_budget | attempts that were slow |
//! | `mainstay.hedge.wins` | | hedges that answered first |
//! | `mainstay.throttle.rejections` | `throttle` | attempts held back |
//! | `mainstay.breaker.transitions` | `breaker`, `from`, `to` | changes of a circuit; `to` would_open of one that only counts |
//!
//! Labels are names from the program's text, never a host, a tenant or a key: their number is bounded. Tracing events
//! have the target `mainstay_retry`: each decision at debug, each change of a circuit at info or warn, never a payload
//! or a header.
//!
//! # What is not here
//!
//! * **Limits that adapt the number of calls under way** (AIMD, gradient, Vegas), and a **rate that adapts**, such as the
//!   cubic one of AWS's SDKs. [`AdaptiveThrottle`] and the budget hold back the load that overload makes; how much a
//!   healthy server takes is for the server to say, by refusing early, or for a plain limit such as tower's.
//! * **`no_std`.** The decisions are pure, but random numbers, HTTP's types and atomics of 64 bits come from crates that
//!   want std here, and everything that uses them needs tokio's timers. For wasm a timer would be missing as well.
//! * **Priorities.** Who may use the last of a budget is a question of the caller's: give calls that can wait a budget,
//!   a throttle and a breaker of their own.
//! * **Retrying a response whose body breaks off.** The head has been handed on by then. A caller that reads whole bodies
//!   wraps the reading too, in [`retry()`].
//! * **Choosing another server** for the next attempt. That is a balancer's work: put one below, where
//!   [`WhenOpen::PendInReady`] tells it which are down.
//! * **Budgets and circuits shared between processes.** A decision would wait for a network that may be what is failing.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod attempt;
pub mod backoff;
pub mod breaker;
pub mod budget;
pub mod classify;
mod clock;
pub mod deadline;
mod decision;
mod dice;
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
