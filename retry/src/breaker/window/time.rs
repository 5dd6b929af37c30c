//! The calls of the last while, in ten buckets.
//!
//! Only the bucket of the present is written by records: one atomic word. When its time is over, the next record closes
//! it under a lock, by swapping the word, so that whatever was counted before the swap is in the sum and whatever
//! comes after it finds a word with another serial number and begins anew. The sum over the closed buckets is kept
//! ready, and a reading is the two words together, whether they hold ten calls or ten million.
//!
//! The window is exact but for its edge: it covers the time asked for, less at most the one bucket that is being filled.

use super::Reading;
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering, lock};

/// All accesses are sequentially consistent: of two records that together meet a rule, one has to see the other.
const SC: Ordering = Ordering::SeqCst;

const BUCKETS: u64 = 10;

pub(in crate::breaker) struct TimeWindow {
    /// Nanoseconds in a bucket.
    grain: u64,
    epoch: AtomicU32,
    /// The last moment of the present bucket. Written after `live`: who sees the new one has missed the old word.
    last: AtomicU64,
    /// `serial: 20 bits | calls: 22 bits | hits: 22 bits`
    live: AtomicU64,
    /// `calls: 32 bits | hits: 32 bits` of what `past` holds. Both stop at their greatest value.
    sealed: AtomicU64,
    past: Mutex<Past>,
}

#[derive(Default)]
struct Past {
    /// The number of the present bucket since the origin.
    tick: u64,
    /// `(calls, hits)`. The present bucket's place holds what did not fit into the word.
    buckets: [(u64, u64); BUCKETS as usize],
}

const FIELD_BITS: u32 = 22;
const FIELD: u64 = (1 << FIELD_BITS) - 1;
const CALL: u64 = 1 << FIELD_BITS;
const SERIAL: u64 = 1 << (2 * FIELD_BITS);

const fn calls(live: u64) -> u64 {
    live >> FIELD_BITS & FIELD
}

const fn hits(live: u64) -> u64 {
    live & FIELD
}

/// The word of the next bucket, or of what comes after a reset.
const fn next(live: u64) -> u64 {
    (live & !(SERIAL - 1)).wrapping_add(SERIAL)
}

impl TimeWindow {
    pub(in crate::breaker) fn new(length_nanos: u64) -> Self {
        let grain = (length_nanos / BUCKETS).max(1);
        Self {
            grain,
            epoch: AtomicU32::new(0),
            last: AtomicU64::new(grain - 1),
            live: AtomicU64::new(0),
            sealed: AtomicU64::new(0),
            past: Mutex::new(Past::default()),
        }
    }

    /// `now` may be earlier than in another record: it then counts as the present.
    pub(in crate::breaker) fn record(&self, epoch: u32, now: u64, hit: bool) -> Option<Reading> {
        let live = self.add(epoch, now, hit)?;
        Some(reading(live, self.sealed.load(SC)))
    }

    /// [`record`](Self::record) for a good call, that says nothing while there are no hits.
    #[inline(always)]
    pub(in crate::breaker) fn record_good(&self, epoch: u32, now: u64) -> Option<Reading> {
        let live = self.add(epoch, now, false)?;
        let sealed = self.sealed.load(SC);
        if hits(live) == 0 && sealed as u32 == 0 {
            return None;
        }
        Some(reading(live, sealed))
    }

    /// Counts one call in the present bucket: what is in it then.
    #[inline(always)]
    fn add(&self, epoch: u32, now: u64, hit: bool) -> Option<u64> {
        let mut live = self.live.load(SC);
        loop {
            // Looked at after the word: when the window has been reset since, the exchange fails.
            if self.epoch.load(SC) != epoch {
                return None;
            }
            if now > self.last.load(SC) || calls(live) == FIELD {
                self.turn(now);
                live = self.live.load(SC);
                continue;
            }
            let more = live + CALL + u64::from(hit);
            match self.live.compare_exchange_weak(live, more, SC, SC) {
                Ok(_) => return Some(more),
                Err(seen) => live = seen,
            }
        }
    }

    /// Closes the present bucket if it is over or full.
    #[cold]
    fn turn(&self, now: u64) {
        let mut past = lock(&self.past);
        let tick = (now / self.grain).max(past.tick);
        if tick == past.tick && calls(self.live.load(SC)) < FIELD {
            return; // another record was faster
        }
        let mut live = self.live.load(SC);
        while let Err(seen) = self.live.compare_exchange(live, next(live), SC, SC) {
            live = seen;
        }
        past.add(calls(live), hits(live));
        past.advance(tick);
        let (calls, hits) = past.sum();
        let most = u64::from(u32::MAX);
        self.sealed
            .store(calls.min(most) << 32 | hits.min(most), SC);
        self.last.store(self.last_of(tick), SC);
    }

    fn last_of(&self, tick: u64) -> u64 {
        // At the end of time, time does not pass.
        let end = tick.saturating_add(1).checked_mul(self.grain);
        end.map_or(u64::MAX, |end| end - 1)
    }

    /// What the window holds at `now`. While a bucket is being closed, the two words that a record looks at belong to
    /// different moments; here nobody is closing one.
    pub(in crate::breaker) fn read(&self, epoch: u32, now: u64) -> Option<Reading> {
        if now > self.last.load(SC) {
            self.turn(now);
        }
        let past = lock(&self.past);
        if self.epoch.load(SC) != epoch {
            return None;
        }
        let live = self.live.load(SC);
        let (sealed_calls, sealed_hits) = past.sum();
        let most = u64::from(u32::MAX);
        Some(Reading::counted(
            sealed_calls.min(most) + calls(live),
            sealed_hits.min(most) + hits(live),
        ))
    }

    pub(in crate::breaker) fn reset(&self, epoch: u32) {
        let mut past = lock(&self.past);
        // First, so that a record which has seen the new word below also sees that its own epoch is over.
        self.epoch.store(epoch, SC);
        let mut live = self.live.load(SC);
        while let Err(seen) = self.live.compare_exchange(live, next(live), SC, SC) {
            live = seen;
        }
        past.buckets = Default::default();
        self.sealed.store(0, SC);
    }
}

fn reading(live: u64, sealed: u64) -> Reading {
    let low = u64::from(u32::MAX);
    Reading::counted((sealed >> 32) + calls(live), (sealed & low) + hits(live))
}

impl Past {
    fn place(&mut self, tick: u64) -> Option<&mut (u64, u64)> {
        self.buckets.get_mut((tick % BUCKETS) as usize)
    }

    fn add(&mut self, calls: u64, hits: u64) {
        if let Some(place) = self.place(self.tick) {
            place.0 = place.0.saturating_add(calls);
            place.1 = place.1.saturating_add(hits);
        }
    }

    /// Moves on and empties what has left the window: after a jump of months too, no more than all ten.
    fn advance(&mut self, tick: u64) {
        for new in (self.tick + 1..=tick).take(BUCKETS as usize) {
            if let Some(place) = self.place(new) {
                *place = (0, 0);
            }
        }
        self.tick = tick;
    }

    fn sum(&self) -> (u64, u64) {
        self.buckets.iter().fold((0, 0), |sum: (u64, u64), bucket| {
            (
                sum.0.saturating_add(bucket.0),
                sum.1.saturating_add(bucket.1),
            )
        })
    }
}
