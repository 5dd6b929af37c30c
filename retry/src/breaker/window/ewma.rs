//! An average in which every call weighs less with every call after it.
//!
//! One word and no memory of single calls. While healthy the average rests at zero and nothing is written at all, so
//! that threads share no cache line; the price is that it has no edge: a burst fades, it never falls out.

use super::Reading;
use crate::sync::{AtomicU64, Ordering};

/// All accesses are sequentially consistent, as in the other windows.
const SC: Ordering = Ordering::SeqCst;

pub(in crate::breaker) struct EwmaWindow {
    /// `epoch: 24 bits | calls: 12 bits | average: 28 bits`
    word: AtomicU64,
    /// The weight of one call, in parts of [`ONE`].
    weight: u64,
}

const AVERAGE_BITS: u32 = 28;
const CALLS_BITS: u32 = 12;
const ONE: u64 = (1 << AVERAGE_BITS) - 1;
const CALLS: u64 = (1 << CALLS_BITS) - 1;
const EPOCH: u32 = (1 << 24) - 1;

const fn epoch_of(word: u64) -> u32 {
    (word >> (AVERAGE_BITS + CALLS_BITS)) as u32
}

const fn pack(epoch: u32, calls: u64, average: u64) -> u64 {
    ((epoch & EPOCH) as u64) << (AVERAGE_BITS + CALLS_BITS) | calls << AVERAGE_BITS | average
}

const fn reading(word: u64) -> Reading {
    Reading {
        calls: word >> AVERAGE_BITS & CALLS,
        hits: word & ONE,
        of: ONE,
    }
}

impl EwmaWindow {
    /// A longer memory would be finer than the average's grain. Also the most calls that are counted.
    pub(in crate::breaker) const SIZE_MAX: u32 = CALLS as u32;

    /// A call weighs `2 / (size + 1)`, so that the average age of what it remembers is that of a window of `size`.
    pub(in crate::breaker) fn new(size: u32) -> Self {
        Self {
            word: AtomicU64::new(0),
            weight: (2 * ONE / (u64::from(size) + 1)).min(ONE),
        }
    }

    #[inline]
    pub(in crate::breaker) fn record(&self, epoch: u32, hit: bool) -> Option<Reading> {
        let mut word = self.word.load(SC);
        loop {
            if epoch_of(word) != epoch & EPOCH {
                return None;
            }
            let calls = (word >> AVERAGE_BITS & CALLS) + 1;
            let average = word & ONE;
            // Rounded down both ways, so that a run of good calls brings it to rest at zero.
            let average = if hit {
                average + ((ONE - average) * self.weight) / ONE
            } else if average > 0 {
                average - (average * self.weight).div_ceil(ONE)
            } else {
                0
            };
            let next = pack(epoch, calls.min(CALLS), average);
            if next == word {
                return Some(reading(word));
            }
            match self.word.compare_exchange_weak(word, next, SC, SC) {
                Ok(_) => return Some(reading(next)),
                Err(seen) => word = seen,
            }
        }
    }

    /// What `reading` would be after so many hits more.
    pub(in crate::breaker) fn with_hits(&self, mut reading: Reading, hits: u64) -> Reading {
        // After as many calls as the average remembers, more of the same change nothing.
        for _ in 0..hits.min(CALLS) {
            reading.calls += 1;
            reading.hits += ((ONE - reading.hits) * self.weight) / ONE;
        }
        reading
    }

    pub(in crate::breaker) fn read(&self, epoch: u32) -> Option<Reading> {
        let word = self.word.load(SC);
        (epoch_of(word) == epoch & EPOCH).then(|| reading(word))
    }

    pub(in crate::breaker) fn reset(&self, epoch: u32) {
        self.word.swap(pack(epoch, 0, 0), SC);
    }
}
