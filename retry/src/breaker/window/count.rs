//! The last N calls, exactly.
//!
//! A ring with one place per call. A record takes the next turn, puts its outcome in the place of that turn, and adds to
//! the running number of hits what that changed. While that number is zero no place holds a hit, and a success has
//! nothing to put: one atomic write per call.
//!
//! Of calls that end at the same moment the turns give the order. A failure that is overtaken by a whole round of the
//! ring between its turn and its end stands for a later call; the running number is the sum of the ring at all times at
//! which nobody is in between.

use super::Reading;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// All accesses are sequentially consistent: of two records that together meet a rule, one has to see the other.
const SC: Ordering = Ordering::SeqCst;

pub(in crate::breaker) struct CountWindow {
    /// `epoch: 32 bits | turn: 32 bits`: how many calls were counted, until they are [`turns_max`](Self::turns_max).
    cursor: AtomicU64,
    /// `epoch: 32 bits | hits + HITS_ZERO: 32 bits`
    hits: AtomicU64,
    /// `epoch: 31 bits | hit: 1 bit`. An older epoch's place is an empty one, so that a reset need not touch them.
    places: Box<[AtomicU32]>,
    /// The last turn of a round, from where it goes on with the first of the second: the window is full by then.
    turns_max: u64,
}

/// A hit may be taken out by another thread before its own has added it, so the number can dip below zero.
const HITS_ZERO: u64 = 1 << 31;
const EPOCH_BITS: u32 = 32;
const LOW: u64 = u32::MAX as u64;

impl CountWindow {
    /// Most calls it can hold: a quarter of a megabyte.
    pub(in crate::breaker) const SIZE_MAX: u32 = u16::MAX as u32;

    pub(in crate::breaker) fn new(size: u32) -> Self {
        Self {
            cursor: AtomicU64::new(0),
            hits: AtomicU64::new(HITS_ZERO),
            places: (0..size).map(|_| AtomicU32::new(0)).collect(),
            turns_max: LOW - LOW % u64::from(size.max(1)),
        }
    }

    pub(in crate::breaker) fn record(&self, epoch: u32, hit: bool) -> Option<Reading> {
        self.put(self.take_turn(epoch)?, epoch, hit)
    }

    /// Counts a good call, and says its turn if there is something [to be put](Self::put_good) into its place.
    #[inline(always)]
    pub(in crate::breaker) fn take_good_turn(&self, epoch: u32) -> Option<u64> {
        let turn = self.take_turn(epoch)?;
        // In whatever epoch: if it is no longer ours, there is nothing to put either.
        (self.hits.load(SC) & LOW != HITS_ZERO).then_some(turn)
    }

    #[cold]
    pub(in crate::breaker) fn put_good(&self, turn: u64, epoch: u32) -> Option<Reading> {
        self.put(turn, epoch, false)
    }

    /// The number of this call. Only growing by one keeps the way of a success short.
    #[inline(always)]
    fn take_turn(&self, epoch: u32) -> Option<u64> {
        let mut cursor = self.cursor.load(SC);
        loop {
            if (cursor >> EPOCH_BITS) as u32 != epoch {
                return None;
            }
            let turn = cursor & LOW;
            let next = if turn == self.turns_max {
                self.second_round(cursor)
            } else {
                cursor + 1
            };
            match self.cursor.compare_exchange_weak(cursor, next, SC, SC) {
                Ok(_) => return Some(turn),
                Err(seen) => cursor = seen,
            }
        }
    }

    /// After the turn that has the first place: the second place of a round that is not the first.
    #[cold]
    fn second_round(&self, cursor: u64) -> u64 {
        (cursor & !LOW) + self.size() + 1
    }

    fn size(&self) -> u64 {
        self.places.len() as u64
    }

    /// Puts an outcome into the place of its turn, and says what the window holds then. `None` when the epoch is over.
    fn put(&self, turn: u64, epoch: u32, hit: bool) -> Option<Reading> {
        self.fill(turn, epoch, hit)?;
        let calls = (turn + 1).min(self.size());
        Some(Reading::counted(calls, self.hits(epoch)?))
    }

    fn fill(&self, turn: u64, epoch: u32, hit: bool) -> Option<()> {
        let place = self.places.get((turn % self.size()) as usize)?;
        let mut old = place.load(SC);
        loop {
            if is_newer(old, epoch) {
                return None;
            }
            // To find what one would write is as good as to write it.
            if is_hit(old, epoch) == hit {
                return Some(());
            }
            let mark = epoch << 1 | u32::from(hit);
            match place.compare_exchange(old, mark, SC, SC) {
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

    fn hits(&self, epoch: u32) -> Option<u64> {
        let hits = self.hits.load(SC);
        ((hits >> EPOCH_BITS) as u32 == epoch).then_some((hits & LOW).saturating_sub(HITS_ZERO))
    }

    pub(in crate::breaker) fn read(&self, epoch: u32) -> Option<Reading> {
        let hits = self.hits(epoch)?;
        let cursor = self.cursor.load(SC);
        let calls = (cursor & LOW).min(self.size());
        ((cursor >> EPOCH_BITS) as u32 == epoch).then_some(Reading::counted(calls, hits))
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

#[cfg(test)]
#[cfg(not(mainstay_loom))]
mod tests {
    use super::*;

    #[test]
    fn turns_go_round_without_moving_a_place() {
        for size in [1, 2, 3, 7, 100, 65_535] {
            let window = CountWindow::new(size);
            let full = u64::from(size);
            for _ in 0..size {
                window.record(0, false);
            }
            // As after four thousand million calls, two before the last turn.
            window.cursor.store(window.turns_max - 2, SC);
            for turn in 0..5 {
                let reading = window.record(0, turn == 1).unwrap();
                assert_eq!(reading.calls, full, "size {size}, turn {turn}");
                let hit_is_in = turn >= 1 && turn - 1 < full;
                assert_eq!(
                    reading.hits,
                    u64::from(hit_is_in),
                    "size {size}, turn {turn}"
                );
            }
        }
    }
}
