//! What went and what was accepted in the last minutes: a ring of slots with a running sum.

use std::{
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Slots of a window. What is counted is forgotten a sixteenth of the window at a time.
pub(super) const SLOTS: u64 = 16;

/// Requests in the upper half of a word, accepts in the lower: one atomic step changes both.
const REQUEST: u64 = 1 << 32;

/// Counts over a rolling window. Recording and reading take a fixed number of steps; only the first of each slot's time
/// takes a lock, for as long as it takes to clear the slots that have passed.
#[derive(Debug)]
pub(super) struct Window {
    slot_nanos: u64,
    origin: OnceLock<Instant>,
    /// How many slots' times have passed since `origin`.
    tick: AtomicU64,
    /// At least the sum of the slots: it is added to first and taken from last.
    total: AtomicU64,
    slots: [AtomicU64; SLOTS as usize],
    turning: Mutex<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) requests: u64,
    pub(super) accepts: u64,
}

impl Window {
    pub(super) fn new(length: Duration) -> Self {
        let nanos = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        Self {
            slot_nanos: (nanos / SLOTS).max(1),
            origin: OnceLock::new(),
            tick: AtomicU64::new(0),
            total: AtomicU64::new(0),
            slots: std::array::from_fn(|_| AtomicU64::new(0)),
            turning: Mutex::new(()),
        }
    }

    pub(super) fn record(&self, accepted: bool, now: Instant) {
        let tick = self.turn(now);
        let parts = REQUEST + u64::from(accepted);
        self.total.fetch_add(parts, Ordering::Relaxed);
        // Whoever clears the slot has seen the addition above, so that the sum does not fall below zero. One that
        // comes late counts in the slot's next time.
        if let Some(slot) = self.slot(tick) {
            slot.fetch_add(parts, Ordering::Release);
        }
    }

    pub(super) fn counts(&self, now: Instant) -> Counts {
        self.turn(now);
        self.last_counts()
    }

    /// As of the last call that knew the time.
    pub(super) fn last_counts(&self) -> Counts {
        let total = self.total.load(Ordering::Relaxed);
        Counts {
            requests: total / REQUEST,
            accepts: total % REQUEST,
        }
    }

    /// Forgets what is too old. A clock that is read by several threads may seem to go back; the ring does not.
    fn turn(&self, now: Instant) -> u64 {
        let origin = *self.origin.get_or_init(|| now);
        let elapsed = now.saturating_duration_since(origin).as_nanos();
        let tick = u64::try_from(elapsed).unwrap_or(u64::MAX) / self.slot_nanos;
        let seen = self.tick.load(Ordering::Acquire);
        if tick <= seen {
            return seen;
        }
        self.clear_until(tick);
        tick
    }

    #[cold]
    fn clear_until(&self, tick: u64) {
        let turning = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = self.tick.load(Ordering::Acquire);
        for passed in 1..=tick.saturating_sub(seen).min(SLOTS) {
            if let Some(slot) = self.slot(seen.wrapping_add(passed)) {
                let old = slot.swap(0, Ordering::Acquire);
                self.total.fetch_sub(old, Ordering::Relaxed);
            }
        }
        self.tick.fetch_max(tick, Ordering::Release);
        drop(turning);
    }

    fn slot(&self, tick: u64) -> Option<&AtomicU64> {
        self.slots.get((tick % SLOTS) as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const LENGTH: Duration = Duration::from_secs(16);

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn counts(requests: u64, accepts: u64) -> Counts {
        Counts { requests, accepts }
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten_slot_by_slot() {
        let window = Window::new(LENGTH);
        let now = start();
        let at = |seconds| now + Duration::from_secs(seconds);
        window.record(true, at(0));
        window.record(false, at(0));
        window.record(true, at(8));
        assert_eq!(window.counts(at(15)), counts(3, 2));
        assert_eq!(window.counts(at(16)), counts(1, 1));
        assert_eq!(window.counts(at(23)), counts(1, 1));
        assert_eq!(window.counts(at(24)), counts(0, 0));
    }

    #[test]
    fn jumps_of_the_clock_do_no_harm() {
        let window = Window::new(LENGTH);
        let now = start();
        let month = Duration::from_secs(30 * 86_400);
        for n in 0..100_u32 {
            window.record(true, now + month * n);
            assert_eq!(window.counts(now + month * n), counts(1, 1));
        }
        window.record(false, now);
        let later = now + month * 99;
        assert_eq!(window.counts(later), counts(2, 1), "the past is now");
        assert_eq!(window.counts(later + LENGTH), counts(0, 0));
        let tiny = Window::new(Duration::ZERO);
        tiny.record(true, now);
        assert_eq!(tiny.counts(now + LENGTH), counts(0, 0));
    }

    #[test]
    fn threads_lose_nothing_while_the_ring_turns() {
        let window = Window::new(LENGTH);
        let now = start();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..10_000_u64 {
                        window.record(n % 2 == 0, now + Duration::from_millis(n));
                    }
                });
            }
        });
        // Ten seconds of sixteen: all is there yet, and later all of it is gone.
        let last = now + Duration::from_secs(10);
        assert_eq!(window.counts(last), counts(40_000, 20_000));
        assert_eq!(window.counts(last + LENGTH * 2), counts(0, 0));
    }

    #[test]
    fn turning_under_fire_leaves_no_remainder() {
        let window = Window::new(LENGTH);
        let now = start();
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let window = &window;
                scope.spawn(move || {
                    for n in 0..20_000_u64 {
                        window.record(n % 3 == 0, now + Duration::from_millis(n * 7 + thread));
                        let counts = window.last_counts();
                        assert!(counts.accepts <= counts.requests && counts.requests <= 80_000);
                    }
                });
            }
        });
        let last = now + Duration::from_secs(20_000);
        assert_eq!(window.counts(last), counts(0, 0));
        assert!(
            window
                .slots
                .iter()
                .all(|slot| slot.load(Ordering::Relaxed) == 0)
        );
    }

    proptest::proptest! {
        #[test]
        fn the_sum_is_that_of_the_slots_in_the_window(
            steps in proptest::collection::vec((0..3_000_u64, proptest::bool::ANY), 0..200),
        ) {
            let window = Window::new(LENGTH);
            let mut now = start();
            let origin = now;
            let mut model: VecDeque<(u64, bool)> = VecDeque::new();
            for (step, accepted) in steps {
                if !model.is_empty() {
                    now += Duration::from_millis(step);
                }
                let slot = now.saturating_duration_since(origin).as_secs();
                window.record(accepted, now);
                model.push_back((slot, accepted));
                model.retain(|(seen, _)| seen + SLOTS > slot);
                let accepts = model.iter().filter(|(_, accepted)| *accepted).count();
                proptest::prop_assert_eq!(window.counts(now), counts(model.len() as u64, accepts as u64));
            }
        }
    }
}
