//! The last N calls, exactly.
//!
//! A ring with one place per call. A record claims the next place, puts its outcome there, and adds to the running
//! number of hits what that changed. While healthy nothing changes but the claim: one atomic write per call.
//!
//! Of calls that end at the same moment the claims give the order. A record that is overtaken by a whole turn of the
//! ring between its claim and its write replaces a later outcome; the running number is the sum of the ring at all times
//! at which nobody is in between.

use super::Reading;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// All accesses are sequentially consistent: of two records that together meet a rule, one has to see the other.
const SC: Ordering = Ordering::SeqCst;

pub(in crate::breaker) struct CountWindow {
    /// `epoch: 32 bits | place: 16 bits | calls: 16 bits`
    cursor: AtomicU64,
    /// `epoch: 32 bits | hits + HITS_ZERO: 32 bits`
    hits: AtomicU64,
    /// `epoch: 31 bits | hit: 1 bit`. An older epoch's place is an empty one, so that a reset need not touch them.
    places: Box<[AtomicU32]>,
}

/// A hit may be taken out by another thread before its own has added it, so the number can dip below zero.
const HITS_ZERO: u64 = 1 << 31;
const PLACE_BITS: u32 = 16;
const MASK: u64 = (1 << PLACE_BITS) - 1;
const EPOCH_BITS: u32 = 32;

impl CountWindow {
    /// Most calls it can hold: a quarter of a megabyte.
    pub(in crate::breaker) const SIZE_MAX: u32 = MASK as u32;

    pub(in crate::breaker) fn new(size: u32) -> Self {
        Self {
            cursor: AtomicU64::new(0),
            hits: AtomicU64::new(HITS_ZERO),
            places: (0..size).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    #[inline]
    pub(in crate::breaker) fn record(&self, epoch: u32, hit: bool) -> Option<Reading> {
        let (place, calls) = self.claim(epoch)?;
        self.fill(place, epoch, hit)?;
        Some(Reading::counted(calls, self.hits(epoch)?))
    }

    /// [`record`](Self::record) for a good call, that says nothing while there are no hits.
    #[inline(always)]
    pub(in crate::breaker) fn record_good(&self, epoch: u32) -> Option<Reading> {
        let (place, calls) = self.claim(epoch)?;
        let none = u64::from(epoch) << EPOCH_BITS | HITS_ZERO;
        // The order of the two looks is that of `record`.
        let free = self.places.get(place)?.load(SC) != epoch << 1 | 1;
        if free && self.hits.load(SC) == none {
            return None;
        }
        self.replace_hit(place, calls, epoch)
    }

    #[cold]
    fn replace_hit(&self, place: usize, calls: u64, epoch: u32) -> Option<Reading> {
        self.fill(place, epoch, false)?;
        Some(Reading::counted(calls, self.hits(epoch)?))
    }

    /// The next place, and the number of calls with this one.
    #[inline(always)]
    fn claim(&self, epoch: u32) -> Option<(usize, u64)> {
        let size = self.places.len() as u64;
        let mut cursor = self.cursor.load(SC);
        loop {
            if (cursor >> EPOCH_BITS) as u32 != epoch {
                return None;
            }
            let place = cursor >> PLACE_BITS & MASK;
            let calls = cursor & MASK;
            let next = if place + 1 < size { place + 1 } else { 0 };
            let calls = if calls < size { calls + 1 } else { calls };
            let claimed = u64::from(epoch) << EPOCH_BITS | next << PLACE_BITS | calls;
            match self.cursor.compare_exchange_weak(cursor, claimed, SC, SC) {
                Ok(_) => return Some((place as usize, calls)),
                Err(seen) => cursor = seen,
            }
        }
    }

    #[inline]
    fn fill(&self, place: usize, epoch: u32, hit: bool) -> Option<()> {
        let slot = self.places.get(place)?;
        let old = slot.load(SC);
        // To find what one would write is as good as to write it.
        if is_hit(old, epoch) == hit {
            return Some(());
        }
        self.put(slot, old, epoch, hit)
    }

    #[cold]
    fn put(&self, slot: &AtomicU32, mut old: u32, epoch: u32, hit: bool) -> Option<()> {
        loop {
            if is_newer(old, epoch) {
                return None;
            }
            if is_hit(old, epoch) == hit {
                return Some(());
            }
            let mark = epoch << 1 | u32::from(hit);
            match slot.compare_exchange(old, mark, SC, SC) {
                Ok(_) => break,
                Err(seen) => old = seen,
            }
        }
        let mut hits = self.hits.load(SC);
        loop {
            if (hits >> EPOCH_BITS) as u32 != epoch {
                return None;
            }
            let changed = if hit { hits + 1 } else { hits - 1 };
            match self.hits.compare_exchange_weak(hits, changed, SC, SC) {
                Ok(_) => return Some(()),
                Err(seen) => hits = seen,
            }
        }
    }

    #[inline]
    fn hits(&self, epoch: u32) -> Option<u64> {
        let hits = self.hits.load(SC);
        let low = hits & u64::from(u32::MAX);
        ((hits >> EPOCH_BITS) as u32 == epoch).then_some(low.saturating_sub(HITS_ZERO))
    }

    pub(in crate::breaker) fn read(&self, epoch: u32) -> Option<Reading> {
        let hits = self.hits(epoch)?;
        let cursor = self.cursor.load(SC);
        ((cursor >> EPOCH_BITS) as u32 == epoch).then_some(Reading::counted(cursor & MASK, hits))
    }

    pub(in crate::breaker) fn reset(&self, epoch: u32) {
        // Exchanges where stores would do: the model checker takes a store for one that may be overtaken by a failing
        // exchange.
        let epoch = u64::from(epoch) << EPOCH_BITS;
        self.hits.swap(epoch | HITS_ZERO, SC);
        self.cursor.swap(epoch, SC);
    }
}

fn is_hit(mark: u32, epoch: u32) -> bool {
    mark == epoch << 1 | 1
}

/// Whether a place was written in an epoch after this one; epochs go round after 2^31.
fn is_newer(mark: u32, epoch: u32) -> bool {
    let ahead = (mark >> 1).wrapping_sub(epoch) & (u32::MAX >> 1);
    ahead != 0 && ahead < 1 << 30
}
