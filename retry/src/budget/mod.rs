//! How many further attempts a client may make: an allowance that successes fill and retries empty.
//!
//! [`TokenBudget`] is the default: retries are paid for by calls that *succeeded*, so they stop by themselves when
//! nothing succeeds. [`RatioBudget`] is filled by *calls*, as Finagle's and linkerd's are, and goes on adding its share
//! of load in an outage: with a ratio r, a service that runs at more than 1/(1+r) of its capacity when it stalls never
//! catches up again, for the retries of what it is late with keep it late. At 85 % of capacity and a ratio of 0.2 that
//! is for ever, where a bucket of 0.1 per success is through in seconds. Take the ratio where the load is far below
//! capacity, or where successes are too rare to pay for anything. [`GrpcThrottle`] is the throttle of gRFC A6, which
//! stops all retries while the fill is at half or less.
//!
//! A token is taken once, when the decision to try again is made, and not given back when the caller leaves. No budget
//! looks at the clock for a success, and a full [`TokenBudget`] or [`GrpcThrottle`] is only read, so that healthy
//! threads share no cache line that is written.
//!
//! A budget speaks for one thing that can be overloaded. Make one per dependency, as one makes one client per
//! dependency; where a client serves many hosts or tenants,
//! [`RetryLayer::per_key`](crate::RetryLayer::per_key) keeps one for each.

#[cfg(all(test, mainstay_loom))]
mod loom_models;
mod purse;
mod ratio;
mod throttle;
mod tokens;

use std::{any::Any, fmt, time::Instant};

pub(crate) use self::purse::Purse;
pub use self::{
    ratio::{RatioBudget, RatioBudgetBuilder},
    throttle::GrpcThrottle,
    tokens::{TokenBudget, TokenBudgetBuilder},
};
use crate::verdict::{Kind, Verdict};

/// An allowance of further attempts, shared by all calls to one dependency.
pub trait Budget: Any + fmt::Debug + Send + Sync {
    /// Told the verdict of every finished attempt. `repeats` is the sort of failure that this attempt was paid to make
    /// good; none for the first attempt of a call. On the success path: no clock, no lock.
    fn credit(&self, verdict: Verdict, repeats: Option<Kind>);

    /// Takes the price of one further attempt after a failure of this sort, or refuses and takes nothing.
    fn try_spend(&self, now: Instant, kind: Kind) -> bool;
}

/// A budget that could not work as written, with every reason.
#[derive(Clone, Debug, PartialEq)]
pub struct InvalidBudget {
    faults: Vec<BudgetFault>,
}

/// One reason why a budget could not work.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BudgetFault {
    /// The credit must be finite, not negative, and at most 1,000,000 tokens per success.
    #[error("credit per success must be between 0 and 1000000 tokens, not {0}")]
    Credit(f64),
    /// The refill must be finite, not negative, and at most 1,000,000 tokens a second.
    #[error("refill must be between 0 and 1000000 tokens a second, not {0}")]
    Refill(f64),
    /// A price must be finite, not negative, and at most 1,000,000 tokens.
    #[error("the cost of a retry after {0:?} must be between 0 and 1000000 tokens, not {1}")]
    Cost(Kind, f64),
    /// The ratio must be finite, not negative, and at most 1,000 retries per call.
    #[error("ratio must be between 0 and 1000 retries per call, not {0}")]
    Ratio(f64),
    /// Deposits must last between one second and one minute.
    #[error("time to live must be between 1 s and 60 s, not {0:?}")]
    TimeToLive(std::time::Duration),
    /// A throttle holds more than none and at most 1,000 tokens.
    #[error("maximum must be between 0.001 and 1000 tokens, not {0}")]
    MaxTokens(f64),
    /// A success must be worth at least 0.001 and at most 1,000 tokens.
    #[error("token ratio must be between 0.001 and 1000 tokens per success, not {0}")]
    TokenRatio(f64),
}

impl InvalidBudget {
    /// Everything that is wrong; never empty.
    pub fn faults(&self) -> &[BudgetFault] {
        &self.faults
    }

    fn check(faults: impl IntoIterator<Item = Option<BudgetFault>>) -> Result<(), Self> {
        let faults: Vec<_> = faults.into_iter().flatten().collect();
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Self { faults })
        }
    }
}

impl fmt::Display for InvalidBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let gap = if index == 0 { "" } else { "; " };
            write!(f, "{gap}{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for InvalidBudget {}

/// Parts of a token: fine enough that a ratio of 0.0001 is exact.
const TOKEN: u64 = 1_000_000_000;

/// Tokens as parts, if there are between none and `most`.
fn parts(tokens: f64, most: f64) -> Option<u64> {
    (0.0..=most)
        .contains(&tokens)
        .then(|| (tokens * TOKEN as f64).round() as u64)
}

#[cfg(test)]
#[cfg(not(mainstay_loom))]
mod tests {
    use std::{sync::Arc, thread, time::Duration};

    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    /// Four threads credit and spend at random, each on its own seed: how many successes and grants there were.
    fn stress(budget: &Arc<impl Budget>, seed: u64) -> (u64, u64) {
        let start = tokio::time::Instant::now().into_std();
        let worker = |seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut credits, mut grants) = (0, 0);
            for _ in 0..10_000 {
                if rng.random_ratio(2, 3) {
                    budget.credit(Verdict::Success, None);
                    credits += 1;
                } else {
                    grants += u64::from(budget.try_spend(start, Kind::Server));
                }
            }
            (credits, grants)
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|n| scope.spawn(move || worker(seed * 4 + n)))
                .collect();
            let done = threads.into_iter().map(|thread| thread.join().unwrap());
            done.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
        })
    }

    #[test]
    fn whatever_threads_do_what_went_out_and_what_is_left_is_what_came_in() {
        for seed in 0..5 {
            let tokens = TokenBudget::success_credit(0.25)
                .capacity(1_000_000)
                .refill_per_second(0.0);
            let tokens = tokens.shared().unwrap();
            let now = tokio::time::Instant::now().into_std();
            while tokens.tokens() > 0 {
                assert!(tokens.try_spend(now, Kind::Server));
            }
            let (credits, grants) = stress(&tokens, seed);
            // To the token: a quarter may be over.
            assert_eq!(grants + tokens.tokens(), credits / 4, "seed {seed}");

            let ratio = RatioBudget::of_calls(0.25)
                .ttl(Duration::from_secs(60))
                .min_per_second(0);
            let ratio = ratio.shared().unwrap();
            let (credits, grants) = stress(&ratio, seed);
            let now = tokio::time::Instant::now().into_std();
            assert_eq!(grants + ratio.tokens(now), credits / 4, "seed {seed}");
        }
    }
}
