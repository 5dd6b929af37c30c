use std::{sync::Arc, time::Duration};

use tower_layer::Layer;

use super::Retry;
use crate::{
    backoff::Backoff,
    budget::Budget,
    classify::HttpClassify,
    policy::{OnUnready, RetryPolicy},
    replay::{HttpReplay, NonIdempotent},
};

/// Wraps services with [`Retry`]. See the [module docs](mod@crate::retry).
///
/// The budget belongs to the layer: every service it wraps draws on the same one.
#[derive(Clone, Debug)]
pub struct RetryLayer<C, R> {
    policy: RetryPolicy<C>,
    replay: R,
}

impl RetryLayer<HttpClassify, HttpReplay> {
    /// For HTTP clients: [`HttpClassify`] judges, [`HttpReplay`] repeats what is safe to repeat.
    pub fn http() -> Self {
        Self::new(HttpClassify, HttpReplay::new())
    }
}

impl<C> RetryLayer<C, HttpReplay> {
    /// What to do about methods that are not idempotent. Default: repeat them with an idempotency key only.
    #[must_use]
    pub fn non_idempotent(mut self, rule: NonIdempotent) -> Self {
        self.replay = self.replay.non_idempotent(rule);
        self
    }

    /// Largest request body that is held for a repetition, in bytes. Default [`HttpReplay::MAX_BYTES`].
    #[must_use]
    pub fn max_replay_bytes(mut self, bytes: u64) -> Self {
        self.replay = self.replay.max_bytes(bytes);
        self
    }
}

impl<C, R> RetryLayer<C, R> {
    /// With this judge and this way to copy requests; otherwise as [`RetryPolicy::new`].
    pub fn new(classify: C, replay: R) -> Self {
        Self {
            policy: RetryPolicy::new(classify),
            replay,
        }
    }

    /// With a policy that is used elsewhere too.
    pub fn with_policy(policy: RetryPolicy<C>, replay: R) -> Self {
        Self { policy, replay }
    }

    /// Most attempts of one call, the first included. Zero counts as 1. Default 3.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.policy = self.policy.max_attempts(attempts);
        self
    }

    /// The waits between attempts. Default 100 ms doubling to 20 s, full jitter.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.policy = self.policy.backoff(backoff);
        self
    }

    /// Pays for further attempts from this budget. Default: a [`TokenBudget`](crate::TokenBudget) of this layer's own.
    #[must_use]
    pub fn budget(mut self, budget: Arc<dyn Budget>) -> Self {
        self.policy = self.policy.budget(budget);
        self
    }

    /// Tries again without a budget. In an outage this multiplies the load.
    #[must_use]
    pub fn without_budget(mut self) -> Self {
        self.policy = self.policy.without_budget();
        self
    }

    /// The longest wait a server may ask for; more is cut to this. Default 60 s.
    #[must_use]
    pub fn retry_after_cap(mut self, cap: Duration) -> Self {
        self.policy = self.policy.retry_after_cap(cap);
        self
    }

    /// What to do when a further attempt is due and the service is not ready. Default [`OnUnready::Wait`].
    #[must_use]
    pub fn on_unready(mut self, on_unready: OnUnready) -> Self {
        self.policy = self.policy.on_unready(on_unready);
        self
    }
}

impl<S, C: Clone, R: Clone> Layer<S> for RetryLayer<C, R> {
    type Service = Retry<S, C, R>;

    fn layer(&self, inner: S) -> Self::Service {
        Retry::new(inner, self.policy.clone(), self.replay.clone())
    }
}
