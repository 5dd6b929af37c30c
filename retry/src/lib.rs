//! Ask again, but never make it worse: backoff, retry budgets, deadlines and circuit breakers for tower.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backoff;
pub mod breaker;
pub mod budget;
pub mod classify;
pub mod deadline;
pub mod error;
pub mod key;
pub mod policy;
pub mod replay;
pub mod retry;
pub mod retry_after;
pub mod timeout;
pub mod verdict;

pub use self::{
    backoff::{Backoff, InvalidMultiplier, Jitter},
    breaker::{BreakerHandle, CircuitBreaker, CircuitBreakerLayer, HalfOpen, Trip},
    budget::{Budget, InvalidBudget, TokenBudget},
    classify::{Classify, EveryError, HttpClassify},
    deadline::{Deadline, DeadlineLayer},
    error::{AttemptTimedOut, BoxError, CircuitOpen, DeadlineExceeded, Error},
    key::AttachIdempotencyKeyLayer,
    policy::{Attempt, RetryPolicy, retry, retry_until},
    replay::{CloneReplay, HttpReplay, NonIdempotent, Replay},
    retry::RetryLayer,
    timeout::AttemptTimeoutLayer,
    verdict::{Kind, Verdict},
};
