//! A budget for each host or tenant, in bounded memory.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState},
    mem,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use tower_layer::Layer;
use tower_service::Service;

use super::{
    RetryFuture,
    service::{Rules, start},
};
use crate::{budget::Budget, classify::Classify, policy::RetryPolicy, replay::Replay};

/// What a request's budget goes by: whatever it feeds into the hasher.
///
/// A closure `Fn(&Req, &mut DefaultHasher)` is one. The hasher has a random key of its own, so that nobody can choose
/// requests that share a budget.
pub trait BudgetKey<Req> {
    /// Feeds in what tells one key from another. Called once per call.
    fn feed(&self, request: &Req, key: &mut DefaultHasher);
}

impl<F, Req> BudgetKey<Req> for F
where
    F: Fn(&Req, &mut DefaultHasher),
{
    fn feed(&self, request: &Req, key: &mut DefaultHasher) {
        self(request, key);
    }
}

/// A key for each scheme, host and port of an HTTP request.
#[derive(Clone, Copy, Debug, Default)]
pub struct PerHost;

impl<B> BudgetKey<http::Request<B>> for PerHost {
    fn feed(&self, request: &http::Request<B>, key: &mut DefaultHasher) {
        let uri = request.uri();
        uri.scheme().hash(key);
        uri.authority().hash(key);
    }
}

/// Wraps services with [`KeyedRetry`]. Made by [`RetryLayer::per_key`](super::RetryLayer::per_key).
///
/// The budgets belong to the layer: every service it wraps draws on the same ones.
pub struct KeyedRetryLayer<C, R, F> {
    shared: Arc<Shared<C, R, F>>,
}

struct Shared<C, R, F> {
    key: F,
    hasher: RandomState,
    policy: RetryPolicy<C>,
    replay: R,
    budget: Box<dyn Fn() -> Arc<dyn Budget> + Send + Sync>,
    generations: Mutex<Generations<C, R>>,
}

/// The rules by key, in two halves: what was used since the last change of guard, and what only before.
///
/// When the first half is full it becomes the second, and what was in the second is forgotten. So there are never more
/// than `capacity` keys, and one that is in use is not the one to go.
struct Generations<C, R> {
    half: usize,
    young: HashMap<u64, Arc<Rules<C, R>>>,
    old: HashMap<u64, Arc<Rules<C, R>>>,
}

impl<C, R> Generations<C, R> {
    fn get(&mut self, key: u64, make: impl FnOnce() -> Arc<Rules<C, R>>) -> Arc<Rules<C, R>> {
        if let Some(rules) = self.young.get(&key) {
            return Arc::clone(rules);
        }
        let rules = self.old.remove(&key).unwrap_or_else(make);
        if self.young.len() >= self.half {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, Arc::clone(&rules));
        rules
    }
}

impl<C, R, F> KeyedRetryLayer<C, R, F> {
    /// 1,024 hosts or tenants, some 300 bytes each.
    pub const KEYS_MAX: usize = 1_024;

    pub(super) fn new(
        policy: RetryPolicy<C>,
        replay: R,
        key: F,
        budget: Box<dyn Fn() -> Arc<dyn Budget> + Send + Sync>,
        keys_max: usize,
    ) -> Self {
        let generations = Generations {
            half: (keys_max / 2).max(1),
            young: HashMap::new(),
            old: HashMap::new(),
        };
        Self {
            shared: Arc::new(Shared {
                key,
                hasher: RandomState::new(),
                policy,
                replay,
                budget,
                generations: Mutex::new(generations),
            }),
        }
    }

    /// How many keys have a budget now.
    pub fn keys(&self) -> usize {
        let generations = &self.shared.generations;
        let generations = generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.young.len() + generations.old.len()
    }
}

impl<C: Clone, R: Clone, F> Shared<C, R, F> {
    fn rules<Req>(&self, request: &Req) -> Arc<Rules<C, R>>
    where
        F: BudgetKey<Req>,
    {
        let mut key = self.hasher.build_hasher();
        self.key.feed(request, &mut key);
        let key = key.finish();
        let make = || {
            let policy = self.policy.clone().budget((self.budget)());
            let replay = self.replay.clone();
            Arc::new(Rules { policy, replay })
        };
        // Somebody's panic in `make` leaves the map whole.
        let mut generations = self
            .generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        generations.get(key, make)
    }
}

impl<S, C, R, F> Layer<S> for KeyedRetryLayer<C, R, F> {
    type Service = KeyedRetry<S, C, R, F>;

    fn layer(&self, inner: S) -> Self::Service {
        KeyedRetry {
            inner,
            shared: Arc::clone(&self.shared),
        }
    }
}

/// A service whose failed calls are tried again, from a budget for each key. Made by [`KeyedRetryLayer`].
///
/// As [`Retry`](super::Retry), and a hash and a short lock for each call.
pub struct KeyedRetry<S, C, R, F> {
    inner: S,
    shared: Arc<Shared<C, R, F>>,
}

impl<S, C, R, F> KeyedRetry<S, C, R, F> {
    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, C, R, F, Req> Service<Req> for KeyedRetry<S, C, R, F>
where
    S: Service<Req> + Clone,
    S::Error: 'static,
    C: Classify<S::Response, S::Error> + Clone,
    R: Replay<Req> + Clone,
    F: BudgetKey<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RetryFuture<S, Req, C, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let rules = self.shared.rules(&request);
        start(&mut self.inner, &rules, request)
    }
}

impl<C, R, F> Clone for KeyedRetryLayer<C, R, F> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<S: Clone, C, R, F> Clone for KeyedRetry<S, C, R, F> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<C, R, F> fmt::Debug for KeyedRetryLayer<C, R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedRetryLayer")
            .field("keys", &self.keys())
            .finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, C, R, F> fmt::Debug for KeyedRetry<S, C, R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedRetry")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
