//! The bounded map from a key's hash to its circuit.
//!
//! Sharded, each shard a map into a ring of slots. A hand goes round the ring to find who makes way: it passes
//! over a circuit that was used since it last came by, and over one that knows something, unless nobody has wanted to
//! know it for long.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    breaker::{builder::Settings, circuit::Circuit, permit::Slip},
    clock,
    error::Name,
    policy::TARGET,
};

pub(super) struct Map {
    name: Name,
    settings: Settings,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    unguarded: AtomicU64,
}

#[derive(Default)]
struct Shard {
    places: HashMap<u64, usize>,
    slots: Vec<Slot>,
    hand: usize,
    slots_max: usize,
}

struct Slot {
    hash: u64,
    circuit: Arc<Circuit>,
    used: bool,
    /// When the hand last found it used, or it was made.
    idle_since: Instant,
}

/// Shards spread threads over locks; below this many keys each they would only spread keys unevenly.
const SHARD_KEYS_MIN: usize = 64;
const SHARDS_MAX: usize = 16;

/// Slots that are looked at to find who makes way: the cost of a new key is bounded when the map is full.
const LOOKS_MAX: usize = 32;

/// A circuit that knows something is forgotten when nobody has come to it for so long and it waits for nothing. Hosts
/// that are gone for good, which is why they failed, would else keep their places for ever.
const IDLE: Duration = Duration::from_secs(600);

impl Map {
    pub(super) fn new(name: Name, settings: Settings, keys_max: usize) -> Self {
        let count = (keys_max / SHARD_KEYS_MIN).clamp(1, SHARDS_MAX);
        let shard = |n| {
            // The remainder goes to the first shards, so that all together hold exactly as many as asked for.
            let slots_max = keys_max / count + usize::from(n < keys_max % count);
            Mutex::new(Shard {
                slots_max,
                ..Shard::default()
            })
        };
        Self {
            name,
            settings,
            hasher: RandomState::new(),
            shards: (0..count).map(shard).collect(),
            unguarded: AtomicU64::new(0),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn len(&self) -> usize {
        let shards = self.shards.iter();
        shards
            .map(|shard| {
                let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                shard.slots.len()
            })
            .sum()
    }

    pub(super) fn unguarded(&self) -> u64 {
        self.unguarded.load(Ordering::Relaxed)
    }

    /// Leave to make one call, or who refuses it and the wait until a probe in nanoseconds.
    pub(super) fn try_acquire<K: Hash + ?Sized>(
        &self,
        key: &K,
    ) -> Result<Slip<Arc<Circuit>>, (Arc<Circuit>, u64)> {
        match self.circuit(self.hasher.hash_one(key)) {
            Some(circuit) => Slip::acquire(Arc::clone(&circuit)).map_err(|wait| (circuit, wait)),
            None => {
                if self.unguarded.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::warn!(
                        target: TARGET, breaker = &**self.name,
                        "no place for a new key: its calls go through without a breaker",
                    );
                }
                Ok(Slip::uncounted())
            }
        }
    }

    pub(super) fn circuit_or_new<K: Hash + ?Sized>(&self, key: &K) -> Arc<Circuit> {
        let circuit = self.circuit(self.hasher.hash_one(key));
        circuit.unwrap_or_else(|| self.new_circuit())
    }

    fn new_circuit(&self) -> Arc<Circuit> {
        Arc::new(Circuit::new(Arc::clone(&self.name), self.settings))
    }

    fn circuit(&self, hash: u64) -> Option<Arc<Circuit>> {
        let shard = self.shards.get(hash as usize % self.shards.len())?;
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&place) = shard.places.get(&hash) {
            let slot = shard.slots.get_mut(place)?;
            slot.used = true;
            return Some(Arc::clone(&slot.circuit));
        }
        let now = clock::now();
        let place = shard.place(now)?;
        let circuit = self.new_circuit();
        let slot = Slot {
            hash,
            circuit: Arc::clone(&circuit),
            used: false,
            idle_since: now,
        };
        let old = match shard.slots.get_mut(place) {
            Some(old) => Some(std::mem::replace(old, slot)),
            None => {
                shard.slots.push(slot);
                None
            }
        };
        if let Some(old) = &old {
            shard.places.remove(&old.hash);
        }
        shard.places.insert(hash, place);
        drop(shard);
        drop(old); // its windows, outside the lock
        Some(circuit)
    }
}

impl Shard {
    /// The place for a new circuit: a free one, or that of one which can be forgotten.
    fn place(&mut self, now: Instant) -> Option<usize> {
        if self.slots.len() < self.slots_max {
            return Some(self.slots.len());
        }
        // Twice round is enough to find any that can go.
        for _ in 0..LOOKS_MAX.min(2 * self.slots.len()) {
            let place = self.hand % self.slots.len();
            self.hand = (place + 1) % self.slots.len();
            let slot = self.slots.get_mut(place)?;
            if std::mem::take(&mut slot.used) {
                slot.idle_since = now;
                continue;
            }
            // Nobody can get hold of it meanwhile: the only way to it is through this shard's lock.
            let nobodys = Arc::strong_count(&slot.circuit) == 1;
            let idle = now.saturating_duration_since(slot.idle_since) >= IDLE;
            if nobodys && (slot.circuit.is_quiet() || (idle && slot.circuit.waits_for_nothing())) {
                return Some(place);
            }
        }
        None
    }
}
