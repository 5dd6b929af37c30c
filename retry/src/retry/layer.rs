use std::{sync::Arc, time::Duration};

use tower_layer::Layer;

use super::{KeyedRetryLayer, Retry};
use crate::{
    backoff::Backoff,
    budget::Budget,
    classify::{GrpcClassify, HttpClassify},
    policy::{OnUnready, RetryPolicy},
    replay::{GrpcReplay, HttpReplay, NonIdempotent},
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

impl RetryLayer<GrpcClassify, GrpcReplay> {
    /// For gRPC clients: [`GrpcClassify`] judges, [`GrpcReplay`] repeats the methods that are named.
    ///
    /// ```
    /// use mainstay_retry::{GrpcThrottle, ReplayBodyLayer, RetryLayer};
    ///
    /// let keep = ReplayBodyLayer::new();
    /// let retry = RetryLayer::grpc()
    ///     .methods(["shop.Catalog", "shop.Orders/Get"])
    ///     .budget(GrpcThrottle::shared(10.0, 0.1)?);
    /// # Ok::<(), mainstay_retry::InvalidBudget>(())
    /// ```
    pub fn grpc() -> Self {
        Self::new(GrpcClassify::new(), GrpcReplay::new())
    }
}

impl<C> RetryLayer<C, GrpcReplay> {
    /// Methods (`package.Service/Method`) and whole services (`package.Service`) whose calls may be repeated. Default:
    /// none but calls with an idempotency key.
    #[must_use]
    pub fn methods<I>(mut self, names: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.replay = self.replay.methods(names);
        self
    }

    /// Every call may be repeated. Only for a server that is known to tolerate it.
    #[must_use]
    pub fn every_method(mut self) -> Self {
        self.replay = self.replay.every_method();
        self
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

    /// A budget of its own for each key, made by `budget` when the key is first seen, and at most
    /// [`KEYS_MAX`](KeyedRetryLayer::KEYS_MAX) of them; the layer's one budget is not used.
    ///
    /// For a client of many hosts or tenants, where one that fails must not spend what the others have earned. Where
    /// there are more keys, those that are not in use are forgotten, and start anew with a full budget.
    ///
    /// ```
    /// use std::hash::{DefaultHasher, Hash};
    /// use http::Request;
    /// use mainstay_retry::{RetryLayer, TokenBudget, retry::PerHost};
    ///
    /// let hosts = RetryLayer::http().per_key(PerHost, TokenBudget::default);
    /// let tenant = |request: &Request<String>, key: &mut DefaultHasher| request.headers().get("x-tenant").hash(key);
    /// let tenants = RetryLayer::http().per_key(tenant, TokenBudget::default);
    /// ```
    pub fn per_key<F, B>(
        self,
        key: F,
        budget: impl Fn() -> B + Send + Sync + 'static,
    ) -> KeyedRetryLayer<C, R, F>
    where
        B: Budget,
    {
        let keys_max = KeyedRetryLayer::<C, R, F>::KEYS_MAX;
        let budget = Box::new(move || Arc::new(budget()) as Arc<dyn Budget>);
        KeyedRetryLayer::new(self.policy, self.replay, key, budget, keys_max)
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

    /// Draws the jitter of its waits from this seed: see [`RetryPolicy::seed`]. Default: random numbers of the thread's
    /// own.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.policy = self.policy.seed(seed);
        self
    }
}

impl<S, C: Clone, R: Clone> Layer<S> for RetryLayer<C, R> {
    type Service = Retry<S, C, R>;

    fn layer(&self, inner: S) -> Self::Service {
        Retry::new(inner, self.policy.clone(), self.replay.clone())
    }
}
