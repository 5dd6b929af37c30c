//! Ask again, but never make it worse: backoff, retry budgets, deadlines and circuit breakers for tower.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backoff;

pub use backoff::{Backoff, InvalidMultiplier, Jitter};
