//! A percentile of recent latencies in fixed space and time: pure, `now` is an argument.

use std::{
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Eight to each power of two of microseconds, up to 2^34, nearly five hours: an eighth of the value is the largest error.
const BUCKETS: usize = 256;

/// The percentile is looked up as soon as it can be known, and anew at each so-manieth latency.
const LOOKUP_EVERY: u64 = 32;

const UNKNOWN: u64 = u64::MAX;

/// A histogram in two halves, each for half of the window; the older is cleared when the newer is full of time.
pub(super) struct Latencies {
    settings: Settings,
    origin: OnceLock<Instant>,
    /// How many halves of the window have passed since `origin`.
    tick: AtomicU64,
    halves: [Half; 2],
    /// The percentile when it was last looked up.
    micros: AtomicU64,
    turning: Mutex<()>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) share: f64,
    pub(super) at_least: Duration,
    pub(super) min_samples: u32,
    pub(super) window: Duration,
}

struct Half {
    recorded: AtomicU64,
    buckets: [AtomicU32; BUCKETS],
}

impl Latencies {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            origin: OnceLock::new(),
            tick: AtomicU64::new(0),
            halves: std::array::from_fn(|_| Half {
                recorded: AtomicU64::new(0),
                buckets: std::array::from_fn(|_| AtomicU32::new(0)),
            }),
            micros: AtomicU64::new(UNKNOWN),
            turning: Mutex::new(()),
        }
    }

    /// The percentile, or the least delay if that is more; none before there were enough latencies.
    pub(super) fn delay(&self) -> Option<Duration> {
        match self.micros.load(Relaxed) {
            UNKNOWN => None,
            micros => Some(Duration::from_micros(micros).max(self.settings.at_least)),
        }
    }

    pub(super) fn record(&self, latency: Duration, now: Instant) {
        let Some(half) = self.halves.get((self.turn(now) % 2) as usize) else {
            return;
        };
        // Relaxed throughout: these are statistics, and each addition is one atomic step.
        if let Some(bucket) = half.buckets.get(bucket_of(latency)) {
            bucket.fetch_add(1, Relaxed);
        }
        let due = half.recorded.fetch_add(1, Relaxed) % LOOKUP_EVERY == LOOKUP_EVERY - 1;
        if due || (self.micros.load(Relaxed) == UNKNOWN && self.are_enough()) {
            self.look_up();
        }
    }

    fn are_enough(&self) -> bool {
        let [a, b] = &self.halves;
        let total = a.recorded.load(Relaxed) + b.recorded.load(Relaxed);
        total >= u64::from(self.settings.min_samples)
    }

    /// Until there are enough new latencies, what was known before is the best guess.
    fn look_up(&self) {
        let [a, b] = &self.halves;
        let both = || a.buckets.iter().zip(&b.buckets);
        let in_bucket = |(a, b): (&AtomicU32, &AtomicU32)| {
            u64::from(a.load(Relaxed)) + u64::from(b.load(Relaxed))
        };
        let total: u64 = both().map(in_bucket).sum();
        if total < u64::from(self.settings.min_samples).max(1) {
            return;
        }
        let wanted = (self.settings.share * total as f64).ceil() as u64;
        let mut below = 0;
        for (bucket, counts) in both().enumerate() {
            below += in_bucket(counts);
            if below >= wanted {
                self.micros.store(upper_bound(bucket), Relaxed);
                return;
            }
        }
    }

    fn turn(&self, now: Instant) -> u64 {
        let origin = *self.origin.get_or_init(|| now);
        let half = (self.settings.window.as_nanos() / 2).max(1);
        let elapsed = now.saturating_duration_since(origin).as_nanos();
        let tick = u64::try_from(elapsed / half).unwrap_or(u64::MAX);
        let seen = self.tick.load(Relaxed);
        if tick <= seen {
            return seen;
        }
        self.clear_until(tick);
        tick
    }

    #[cold]
    fn clear_until(&self, tick: u64) {
        let turning = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = self.tick.load(Relaxed);
        for passed in 1..=tick.saturating_sub(seen).min(2) {
            let index = (seen.wrapping_add(passed) % 2) as usize;
            if let Some(half) = self.halves.get(index) {
                half.recorded.store(0, Relaxed);
                for bucket in &half.buckets {
                    bucket.store(0, Relaxed);
                }
            }
        }
        self.tick.fetch_max(tick, Relaxed);
        drop(turning);
    }
}

/// Values below 8 have a bucket each; above, the three bits after the first tell eight apart.
fn bucket_of(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros())
        .unwrap_or(u64::MAX)
        .min((1 << 34) - 1);
    if micros < 8 {
        return micros as usize;
    }
    let exponent = 63 - micros.leading_zeros();
    let eighth = (micros >> (exponent - 3)) & 7;
    (exponent as usize - 2) * 8 + eighth as usize
}

/// The largest value of a bucket, in microseconds.
const fn upper_bound(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 8 {
        return bucket;
    }
    ((8 + bucket % 8 + 1) << (bucket / 8 - 1)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latencies(share: f64) -> Latencies {
        Latencies::new(Settings {
            share,
            at_least: Duration::ZERO,
            min_samples: 100,
            window: Duration::from_secs(60),
        })
    }

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn every_value_is_in_the_bucket_that_reaches_just_above_it() {
        let mut last = None;
        for bucket in 0..BUCKETS {
            let upper = upper_bound(bucket);
            assert_eq!(bucket_of(Duration::from_micros(upper)), bucket);
            assert_eq!(
                bucket_of(Duration::from_micros(upper + 1)),
                (bucket + 1).min(255)
            );
            assert!(last < Some(upper));
            last = Some(upper);
        }
        assert_eq!(bucket_of(Duration::MAX), 255);
    }

    #[test]
    fn the_percentile_is_at_most_an_eighth_too_high() {
        for (share, exact) in [(0.5, 500), (0.9, 900), (0.95, 950), (0.99, 990)] {
            let latencies = latencies(share);
            let now = start();
            for n in 0..8_000 {
                latencies.record(ms(n * 7 % 1_000 + 1), now);
            }
            let delay = latencies.delay().unwrap();
            let (low, high) = (ms(exact - 2), ms(exact + 2) * 9 / 8);
            assert!(low <= delay && delay <= high, "{share}: {delay:?}");
        }
    }

    #[test]
    fn nothing_is_known_before_there_were_enough_and_something_is_as_soon_as_there_are() {
        for min_samples in [0, 1, 10, 31, 32, 33, 100, 1_000] {
            let settings = Settings {
                min_samples,
                ..latencies(0.95).settings
            };
            let latencies = Latencies::new(settings);
            let now = start();
            for _ in 1..min_samples {
                latencies.record(ms(10), now);
                assert_eq!(latencies.delay(), None, "{min_samples}");
            }
            latencies.record(ms(10), now);
            assert!(latencies.delay().is_some(), "{min_samples}");
        }
    }

    #[test]
    fn the_past_is_forgotten_when_there_is_a_new_present() {
        let latencies = latencies(0.95);
        let now = start();
        let record = |latency, at| {
            for _ in 0..200 {
                latencies.record(latency, at);
            }
            latencies.delay().unwrap()
        };
        assert!(record(ms(800), now) >= ms(800));
        let later = now + Duration::from_secs(30 * 86_400);
        latencies.record(ms(10), later);
        assert!(latencies.delay().unwrap() >= ms(800), "the best guess");
        assert!(record(ms(10), later) < ms(12));
        // Within one window both count.
        assert!(record(ms(100), later + Duration::from_secs(40)) >= ms(100));
    }

    #[test]
    fn the_least_delay_is_kept() {
        let settings = Settings {
            at_least: ms(25),
            ..latencies(0.9).settings
        };
        let latencies = Latencies::new(settings);
        for _ in 0..200 {
            latencies.record(Duration::from_micros(3), start());
        }
        assert_eq!(latencies.delay(), Some(ms(25)));
    }

    #[test]
    fn threads_may_record_while_the_halves_turn() {
        let latencies = latencies(0.95);
        let now = start();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..20_000 {
                        latencies.record(ms(100), now + ms(n * 20));
                    }
                });
            }
        });
        let delay = latencies.delay().unwrap();
        assert!(ms(100) <= delay && delay <= ms(113), "{delay:?}");
    }
}
