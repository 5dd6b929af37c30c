//! A circuit per key: per host, per tenant, per region, in a bounded number.

mod layer;
mod map;

use std::{fmt, hash::Hash, sync::Arc};

pub use self::layer::{KeyedBreaker, KeyedBreakerLayer};
use self::map::Map;
use super::{BreakerHandle, Permit, builder::Settings};
use crate::{
    classify::HttpClassify,
    error::{CircuitOpen, Name},
};

/// Circuit breakers that are made as keys are met. Clones share them. Made by
/// [`CircuitBreakerBuilder::keyed`](super::CircuitBreakerBuilder::keyed).
///
/// ```
/// use mainstay_retry::{CircuitBreaker, Trip};
///
/// let breakers = CircuitBreaker::builder("upstreams").trip(Trip::consecutive(5)).keyed(1024)?;
/// let layer = breakers.layer(|request: &http::Request<()>| request.uri().host().map(str::to_owned));
/// breakers.handle("10.0.0.7").force_open(); // one of them, until `reset`
/// # let _ = layer;
/// # Ok::<(), mainstay_retry::breaker::InvalidBreaker>(())
/// ```
///
/// # Bounds
/// At most `keys_max` circuits are kept, each for a 64-bit hash of its key that no sender of keys can predict; the keys
/// themselves are not stored, and two of a thousand share a circuit with a chance of 1 in 10^13. Errors, events, logs
/// and metrics carry the name of the whole, never a key, so that their number is bounded too.
///
/// When there is no place for a new key, the circuit that has been idle the longest, near enough, makes way; but only one
/// that is closed, remembers no failure, has no call under way and no [handle](Self::handle); or one without either that
/// no call has come to for ten minutes and whose wait is over, so that hosts which are gone for good do not keep their
/// places. So nobody who is being refused is let in because the circuit was forgotten, and what an operator has forced
/// stays. Where no such circuit is found among the thirty-two that are looked at, the call is let
/// through without a breaker: a flood of new keys must not refuse, or decide for, anybody else's.
/// [`unguarded`](Self::unguarded) counts these calls.
#[derive(Clone)]
pub struct KeyedBreakers {
    map: Arc<Map>,
}

impl KeyedBreakers {
    pub(super) fn new(name: Name, settings: Settings, keys_max: usize) -> Self {
        Self {
            map: Arc::new(Map::new(name, settings, keys_max)),
        }
    }

    /// A layer for HTTP clients. `key` says which circuit a request belongs to: a host, usually.
    pub fn layer<F>(&self, key: F) -> KeyedBreakerLayer<F, HttpClassify> {
        self.layer_with(key, HttpClassify)
    }

    /// A layer that judges outcomes with `classify`.
    pub fn layer_with<F, C>(&self, key: F, classify: C) -> KeyedBreakerLayer<F, C> {
        KeyedBreakerLayer::new(Arc::clone(&self.map), key, classify)
    }

    /// Leave to make one call for `key`.
    ///
    /// # Errors
    /// [`CircuitOpen`] when the call must not be made.
    pub fn try_acquire<K: Hash + ?Sized>(&self, key: &K) -> Result<Permit, CircuitOpen> {
        match self.map.try_acquire(key) {
            Ok(slip) => Ok(Permit::new(slip)),
            Err((circuit, wait)) => Err(circuit.refusal(wait)),
        }
    }

    /// A handle on the circuit of `key`, which is made if it is not there. While the handle is held, the circuit is
    /// kept. One that finds no place is not the circuit of later calls.
    pub fn handle<K: Hash + ?Sized>(&self, key: &K) -> BreakerHandle {
        BreakerHandle::new(self.map.circuit_or_new(key))
    }

    /// How many circuits there are now.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether no key was met yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many calls were let through without a breaker, because there was no place for their key.
    pub fn unguarded(&self) -> u64 {
        self.map.unguarded()
    }
}

impl fmt::Debug for KeyedBreakers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedBreakers")
            .field("name", &self.map.name())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
