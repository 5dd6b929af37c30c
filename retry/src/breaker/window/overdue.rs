//! How many calls are under way that have already taken too long.
//!
//! A call that hangs says nothing until it ends, and then it is late. So calls are counted in when they start, in ring
//! places by the time of their start, and out when they end; what is still in a place that is older than the limit is
//! overdue. Eight places cover the limit: a call is found overdue when it has run for the limit, at most an
//! eighth of it later. When a place is taken for a new time, what was left in it moves to one common number.

use crate::sync::{AtomicU64, Ordering};

const ORDER: Ordering = Ordering::AcqRel;

pub(in crate::breaker) struct Overdue {
    /// Nanoseconds in one place.
    grain: u64,
    /// `epoch: 16 bits | tick: 24 bits | calls: 24 bits`
    places: [AtomicU64; PLACES as usize],
    /// `epoch: 32 bits | calls + LATE_ZERO: 32 bits`
    late: AtomicU64,
    /// The tick at which somebody last looked.
    looked: AtomicU64,
}

/// The limit in eight, the present, and the first that is overdue.
const PLACES: u64 = LIMIT_TICKS + 2;
const LIMIT_TICKS: u64 = 8;
const CALLS_BITS: u32 = 24;
const CALLS: u64 = (1 << CALLS_BITS) - 1;
const TICK_BITS: u32 = 24;
const TICK: u64 = (1 << TICK_BITS) - 1;
/// A call may be counted out of the common number before it was moved there.
const LATE_ZERO: u64 = 1 << 31;

fn stamp(epoch: u32, tick: u64) -> u64 {
    (u64::from(epoch) & 0xFFFF) << TICK_BITS | tick & TICK
}

impl Overdue {
    pub(in crate::breaker) fn new(limit_nanos: u64) -> Self {
        Self {
            grain: limit_nanos.div_ceil(LIMIT_TICKS).max(1),
            places: std::array::from_fn(|_| AtomicU64::new(0)),
            late: AtomicU64::new(LATE_ZERO),
            looked: AtomicU64::new(0),
        }
    }

    /// A call starts.
    pub(in crate::breaker) fn start(&self, epoch: u32, now: u64) {
        let tick = now / self.grain;
        let Some(place) = self.place(tick) else {
            return;
        };
        let stamp = stamp(epoch, tick);
        let mut word = place.load(Ordering::Acquire);
        loop {
            let ahead = (word >> (CALLS_BITS + TICK_BITS)).wrapping_sub(u64::from(epoch)) & 0xFFFF;
            if ahead != 0 && ahead < 1 << 15 {
                return; // this epoch is over
            }
            let same = word >> CALLS_BITS == stamp;
            let next = if !same {
                stamp << CALLS_BITS | 1
            } else if word & CALLS < CALLS {
                word + 1
            } else {
                word
            };
            match place.compare_exchange_weak(word, next, ORDER, Ordering::Acquire) {
                Ok(_) if same => return,
                Ok(_) => {
                    let left = word & CALLS;
                    if ahead == 0 && left > 0 {
                        self.move_late(epoch, |late| late + left);
                    }
                    return;
                }
                Err(seen) => word = seen,
            }
        }
    }

    /// A call that started at `started` ends.
    pub(in crate::breaker) fn end(&self, epoch: u32, started: u64) {
        let tick = started / self.grain;
        let Some(place) = self.place(tick) else {
            return;
        };
        let stamp = stamp(epoch, tick);
        let mut word = place.load(Ordering::Acquire);
        while word >> CALLS_BITS == stamp && word & CALLS > 0 {
            match place.compare_exchange_weak(word, word - 1, ORDER, Ordering::Acquire) {
                Ok(_) => return,
                Err(seen) => word = seen,
            }
        }
        self.move_late(epoch, |late| late - 1);
    }

    fn move_late(&self, epoch: u32, change: impl Fn(u64) -> u64) {
        let mut late = self.late.load(Ordering::Acquire);
        while (late >> 32) as u32 == epoch {
            match self
                .late
                .compare_exchange_weak(late, change(late), ORDER, Ordering::Acquire)
            {
                Ok(_) => return,
                Err(seen) => late = seen,
            }
        }
    }

    /// Whether nobody has looked in this eighth of the limit.
    pub(in crate::breaker) fn is_due(&self, now: u64) -> bool {
        now / self.grain != self.looked.load(Ordering::Relaxed)
    }

    /// The calls overdue at `now`, told to one caller in each eighth of the limit: they change with time alone.
    pub(in crate::breaker) fn look(&self, epoch: u32, now: u64) -> Option<u64> {
        let tick = now / self.grain;
        let looked = self.looked.load(Ordering::Relaxed);
        if tick == looked {
            return None;
        }
        let mine = self
            .looked
            .compare_exchange(looked, tick, Ordering::Relaxed, Ordering::Relaxed);
        mine.is_ok().then(|| self.count(epoch, now))
    }

    pub(in crate::breaker) fn count(&self, epoch: u32, now: u64) -> u64 {
        let tick = now / self.grain;
        let here: u64 = self
            .places
            .iter()
            .map(|place| place.load(Ordering::Acquire))
            .filter(|word| word >> (CALLS_BITS + TICK_BITS) == u64::from(epoch) & 0xFFFF)
            .filter(|word| {
                let age = tick.wrapping_sub(word >> CALLS_BITS) & TICK;
                // Half the circle is the future, where a thread with a later clock has put a call.
                age > LIMIT_TICKS && age < TICK / 2
            })
            .map(|word| word & CALLS)
            .sum();
        let late = self.late.load(Ordering::Acquire);
        if (late >> 32) as u32 == epoch {
            (here + (late & u64::from(u32::MAX))).saturating_sub(LATE_ZERO)
        } else {
            here
        }
    }

    /// Forgets all calls under way: they belong to another time.
    pub(in crate::breaker) fn reset(&self, epoch: u32) {
        self.late
            .store(u64::from(epoch) << 32 | LATE_ZERO, Ordering::Release);
        for place in &self.places {
            place.store(stamp(epoch, TICK) << CALLS_BITS, Ordering::Release);
        }
    }

    fn place(&self, tick: u64) -> Option<&AtomicU64> {
        self.places.get((tick % PLACES) as usize)
    }
}
