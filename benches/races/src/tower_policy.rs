//! A policy for tower's retry layer as its documentation builds one from its parts: attempts, a budget, a backoff.

use std::future::{Future, Ready, ready};
use std::sync::Arc;
use std::time::Duration;

use tower::retry::Policy;
use tower::retry::backoff::{Backoff, ExponentialBackoff, ExponentialBackoffMaker, MakeBackoff};
use tower::retry::budget::{Budget, TpsBudget};
use tower::util::rng::HasherRng;

use crate::service::TryClone;

/// Cloned for each call, as tower does. `failed` says which outcomes are tried again.
#[derive(Clone)]
pub struct TowerPolicy<J, B> {
    retries: u32,
    budget: Option<Arc<TpsBudget>>,
    backoff: B,
    failed: J,
}

/// 100 ms doubling to 20 s, with all the jitter that it has.
pub fn exponential() -> ExponentialBackoff {
    let (min, max) = (Duration::from_millis(100), Duration::from_secs(20));
    backoff(min, max, 0.99)
}

/// No wait, by a timer all the same.
pub fn timer_of_zero() -> ExponentialBackoff {
    backoff(Duration::ZERO, Duration::from_secs(20), 0.0)
}

fn backoff(min: Duration, max: Duration, jitter: f64) -> ExponentialBackoff {
    let maker = ExponentialBackoffMaker::new(min, max, jitter, HasherRng::default());
    maker.unwrap().make_backoff()
}

/// No wait and no timer: a policy's future may be any.
#[derive(Clone)]
pub struct NoWait;

impl Backoff for NoWait {
    type Future = Ready<()>;

    fn next_backoff(&mut self) -> Ready<()> {
        ready(())
    }
}

impl<J, B> TowerPolicy<J, B> {
    /// Three attempts, from a budget that lasts 10 s and gives 10 retries a second and this share of the calls.
    pub fn new(ratio: f32, backoff: B, failed: J) -> Self {
        let budget = TpsBudget::new(Duration::from_secs(10), 10, ratio);
        Self {
            budget: Some(Arc::new(budget)),
            ..Self::without_budget(backoff, failed)
        }
    }

    /// Three attempts.
    pub fn without_budget(backoff: B, failed: J) -> Self {
        Self {
            retries: 2,
            budget: None,
            backoff,
            failed,
        }
    }
}

impl<Req, T, E, J, B> Policy<Req, T, E> for TowerPolicy<J, B>
where
    Req: TryClone,
    J: Fn(&Result<T, E>) -> bool,
    B: Backoff,
    B::Future: Future<Output = ()>,
{
    type Future = B::Future;

    fn retry(&mut self, _request: &mut Req, outcome: &mut Result<T, E>) -> Option<B::Future> {
        if !(self.failed)(outcome) {
            if let Some(budget) = &self.budget {
                budget.deposit();
            }
            return None;
        }
        let goes_on =
            self.retries > 0 && self.budget.as_ref().is_none_or(|budget| budget.withdraw());
        goes_on.then(|| {
            self.retries -= 1;
            self.backoff.next_backoff()
        })
    }

    fn clone_request(&mut self, request: &Req) -> Option<Req> {
        request.try_clone()
    }
}
