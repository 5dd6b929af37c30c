use std::sync::Arc;

use tower_layer::Layer;

use super::{
    HedgeDelay, HedgeService, HttpRaceClassify,
    service::{Rules, Settings},
};
use crate::{
    budget::{Budget, TokenBudget},
    replay::{HttpReplay, NonIdempotent},
};

/// Sends slow requests once more. See the [module docs](crate::hedge).
///
/// The budget and what has been learned about latencies belong to the layer: every service it wraps shares them.
#[derive(Clone, Debug)]
pub struct HedgeLayer<C, R> {
    settings: Settings,
    classify: C,
    replay: R,
}

impl HedgeLayer<HttpRaceClassify, HttpReplay> {
    /// For HTTP clients: [`HttpRaceClassify`] judges, [`HttpReplay`] copies what is safe to send twice.
    pub fn http() -> Self {
        Self::new(HttpRaceClassify, HttpReplay::new())
    }
}

impl<C> HedgeLayer<C, HttpReplay> {
    /// What to do about methods that are not idempotent. Default: hedge them with an idempotency key only. The server
    /// must take the key's word for it while the first request is under way, and answer both or refuse one with 409,
    /// which does not end the race.
    #[must_use]
    pub fn non_idempotent(mut self, rule: NonIdempotent) -> Self {
        self.replay = self.replay.non_idempotent(rule);
        self
    }

    /// Largest request body that is held for a hedge, in bytes. Default [`HttpReplay::MAX_BYTES`].
    #[must_use]
    pub fn max_replay_bytes(mut self, bytes: u64) -> Self {
        self.replay = self.replay.max_bytes(bytes);
        self
    }
}

impl<C, R> HedgeLayer<C, R> {
    /// Most hedges of one attempt, whatever is asked for: four, the five attempts that gRPC allows.
    pub const HEDGES_MAX: u32 = 4;

    /// With this judge and this way to copy requests: one hedge, after the 95th percentile of recent latencies and at
    /// least 10 ms, paid for by a [`TokenBudget`] of its own.
    pub fn new(classify: C, replay: R) -> Self {
        Self {
            settings: Settings {
                delay: HedgeDelay::default(),
                max_hedges: 1,
                budget: Arc::new(TokenBudget::default()),
                fills_budget: true,
            },
            classify,
            replay,
        }
    }

    /// How long an attempt may take before it is hedged. Default [`HedgeDelay::default`].
    #[must_use]
    pub fn delay(mut self, delay: impl Into<HedgeDelay>) -> Self {
        self.settings.delay = delay.into();
        self
    }

    /// Most hedges of one attempt, each a delay after the one before. Zero turns hedging off; more than
    /// [`HEDGES_MAX`](Self::HEDGES_MAX) counts as that. Default 1.
    #[must_use]
    pub fn max_hedges(mut self, hedges: u32) -> Self {
        self.settings.max_hedges = hedges.min(Self::HEDGES_MAX);
        self
    }

    /// Pays for hedges from this budget: the one of the retry layer above, which also fills it, so that retries and
    /// hedges together stay within it. See [`fills_budget`](Self::fills_budget) if there is none.
    #[must_use]
    pub fn budget(mut self, budget: Arc<dyn Budget>) -> Self {
        self.settings.budget = budget;
        self.settings.fills_budget = false;
        self
    }

    /// Whether the outcomes that this layer sees are told to the budget. Default: to its own, not to one that was given
    /// to it, for a retry layer above tells it the same. To be called after [`budget`](Self::budget).
    #[must_use]
    pub fn fills_budget(mut self, fills: bool) -> Self {
        self.settings.fills_budget = fills;
        self
    }
}

impl<S, C: Clone, R: Clone> Layer<S> for HedgeLayer<C, R> {
    type Service = HedgeService<S, C, R>;

    fn layer(&self, inner: S) -> Self::Service {
        let rules = Rules {
            settings: self.settings.clone(),
            classify: self.classify.clone(),
            replay: self.replay.clone(),
        };
        HedgeService::new(inner, rules)
    }
}
