//! How long to wait before asking again: growth, a cap and jitter, as a pure function of what happened so far.
//!
//! A [`Backoff`] holds no state and no randomness of its own. Two calls that fail in the same instant ask the same
//! schedule with different random numbers and so come back at different times, which is the whole point of jitter.
//! All arithmetic is in nanoseconds and saturates: attempt 100 000 is the cap, never a panic.
//!
//! ```
//! use std::time::Duration;
//! use mainstay_retry::{Backoff, Jitter};
//!
//! let plain = Backoff::exponential(Duration::from_millis(1), Duration::from_millis(5));
//! let waits: Vec<_> = (1..=5).map(|n| plain.delay(n, Duration::ZERO, &mut rand::rng())).collect();
//! assert_eq!(waits, [1, 2, 4, 5, 5].map(Duration::from_millis));
//!
//! let spread = plain.with_jitter(Jitter::Full);
//! assert!(spread.delay(3, Duration::ZERO, &mut rand::rng()) <= Duration::from_millis(4));
//! ```

use std::time::Duration;

use rand::{Rng, RngExt};

use crate::dice::Dice;

/// A schedule of waits between attempts.
///
/// The first wait is `initial`, later ones grow, and none is longer than `max`. A `max` below `initial` wins over it.
/// See the [module docs](crate::backoff) for the argument and an example.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    growth: Growth,
    jitter: Jitter,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Growth {
    Linear(Duration),
    Exponential(f64),
}

/// How a wait is spread, so that callers that failed together do not come back together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Jitter {
    /// The wait exactly as scheduled. For tests, and for a caller that is alone.
    None,
    /// Uniform in `[0, wait]`: spreads best, the default.
    #[default]
    Full,
    /// Uniform in `[wait / 2, wait]`: never comes back at once.
    Equal,
    /// Uniform in `[initial, 3 × previous wait]`, capped: a random walk that does not look at the attempt number. The
    /// first wait is `initial` for everybody, so callers that failed together spread only from the second on.
    Decorrelated,
}

/// A multiplier that would make waits shrink, or is not a number.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("backoff multiplier must be a finite number of at least 1, not {0}")]
pub struct InvalidMultiplier(f64);

impl Backoff {
    /// Always the same wait. Without jitter; see [`with_jitter`](Self::with_jitter).
    pub const fn constant(wait: Duration) -> Self {
        Self::new(wait, wait, Growth::Exponential(1.0), Jitter::None)
    }

    /// `initial`, then a `step` more each time, up to `max`. Without jitter.
    pub const fn linear(initial: Duration, step: Duration, max: Duration) -> Self {
        Self::new(initial, max, Growth::Linear(step), Jitter::None)
    }

    /// `initial`, then twice as long each time, up to `max`. Without jitter.
    pub const fn exponential(initial: Duration, max: Duration) -> Self {
        Self::new(initial, max, Growth::Exponential(2.0), Jitter::None)
    }

    /// [`exponential`](Self::exponential) with [`Jitter::Full`]: what a client of a shared server should use.
    pub const fn full_jitter(initial: Duration, max: Duration) -> Self {
        Self::exponential(initial, max).with_jitter(Jitter::Full)
    }

    /// [`exponential`](Self::exponential) with [`Jitter::Equal`]: at least half the wait is certain.
    pub const fn equal_jitter(initial: Duration, max: Duration) -> Self {
        Self::exponential(initial, max).with_jitter(Jitter::Equal)
    }

    /// Waits with [`Jitter::Decorrelated`] between `initial` and `max`.
    pub const fn decorrelated(initial: Duration, max: Duration) -> Self {
        Self::exponential(initial, max).with_jitter(Jitter::Decorrelated)
    }

    const fn new(initial: Duration, max: Duration, growth: Growth, jitter: Jitter) -> Self {
        Self {
            initial,
            max,
            growth,
            jitter,
        }
    }

    /// The same schedule, spread differently.
    #[must_use]
    pub const fn with_jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// The same start and cap, growing by `multiplier` instead of doubling.
    ///
    /// # Errors
    /// [`InvalidMultiplier`] when it is below 1, infinite or not a number.
    pub const fn with_multiplier(mut self, multiplier: f64) -> Result<Self, InvalidMultiplier> {
        if !(multiplier.is_finite() && multiplier >= 1.0) {
            return Err(InvalidMultiplier(multiplier));
        }
        self.growth = Growth::Exponential(multiplier);
        Ok(self)
    }

    /// The first scheduled wait.
    pub const fn initial(&self) -> Duration {
        self.initial
    }

    /// The longest wait this schedule gives.
    pub const fn max(&self) -> Duration {
        self.max
    }

    /// How waits are spread.
    pub const fn jitter(&self) -> Jitter {
        self.jitter
    }

    /// The scheduled wait after attempt number `attempt` failed, before jitter. The first attempt is 1 (0 counts as 1).
    pub fn scheduled(&self, attempt: u32) -> Duration {
        let steps = attempt.saturating_sub(1);
        let wait = match self.growth {
            Growth::Linear(step) => self.initial.saturating_add(step.saturating_mul(steps)),
            Growth::Exponential(multiplier) => grow(self.initial, multiplier, steps, self.max),
        };
        wait.min(self.max)
    }

    /// The wait after attempt number `attempt` failed, given the wait before that attempt (zero if there was none).
    ///
    /// `attempt` counts from 1. `prev` is only looked at by [`Jitter::Decorrelated`].
    pub fn delay<R: Rng + ?Sized>(&self, attempt: u32, prev: Duration, rng: &mut R) -> Duration {
        match self.jitter {
            Jitter::None => self.scheduled(attempt),
            Jitter::Full => between(Duration::ZERO, self.scheduled(attempt), rng),
            Jitter::Equal => {
                let wait = self.scheduled(attempt);
                between(wait / 2, wait, rng)
            }
            Jitter::Decorrelated => {
                let low = self.initial.min(self.max);
                let high = prev.saturating_mul(3).min(self.max);
                if high <= low {
                    low
                } else {
                    between(low, high, rng)
                }
            }
        }
    }
}

impl Backoff {
    /// [`delay`](Self::delay), with the dice if there are some, else with this thread's own random numbers; only touched
    /// if a number is needed.
    #[inline]
    pub(crate) fn wait(
        &self,
        attempt: u32,
        prev: impl FnOnce() -> Duration,
        dice: Option<&Dice>,
    ) -> Duration {
        if self.max.is_zero() {
            return Duration::ZERO;
        }
        match (self.jitter, dice) {
            (Jitter::None, _) => self.scheduled(attempt),
            (_, None) => self.delay(attempt, prev(), &mut rand::rng()),
            (_, Some(mut dice)) => self.delay(attempt, prev(), &mut dice),
        }
    }
}

impl Default for Backoff {
    /// 100 ms doubling to 20 s with full jitter: short enough to hide a restart, long enough not to be a load.
    fn default() -> Self {
        Self::full_jitter(Duration::from_millis(100), Duration::from_secs(20))
    }
}

/// `initial × multiplier^steps`, cut at `max` before it can leave the range of a `Duration`.
fn grow(initial: Duration, multiplier: f64, steps: u32, max: Duration) -> Duration {
    // Zero times an infinite factor is not a number, and one to any power is one.
    if initial.is_zero() || multiplier == 1.0 || steps == 0 {
        return initial;
    }
    // `f64` holds whole nanoseconds exactly up to 104 days, and doubling is exact at any size.
    let factor = multiplier.powi(i32::try_from(steps).unwrap_or(i32::MAX));
    let nanos = initial.as_nanos() as f64 * factor;
    if nanos >= max.as_nanos() as f64 {
        max
    } else {
        from_nanos(nanos as u128).max(initial)
    }
}

/// Uniform in `[low, high]`, both ends included, to the nanosecond.
fn between<R: Rng + ?Sized>(low: Duration, high: Duration, rng: &mut R) -> Duration {
    let span = high.saturating_sub(low).as_nanos();
    // 64 bits of nanoseconds are 584 years; drawing wider numbers would cost every call for nobody's sake.
    let span = u64::try_from(span).unwrap_or(u64::MAX);
    low.saturating_add(Duration::from_nanos(rng.random_range(0..=span)))
}

fn from_nanos(nanos: u128) -> Duration {
    const PER_SECOND: u128 = 1_000_000_000;
    match u64::try_from(nanos / PER_SECOND) {
        Ok(secs) => Duration::new(secs, (nanos % PER_SECOND) as u32),
        Err(_) => Duration::MAX,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn schedule<const N: usize>(backoff: Backoff) -> [Duration; N] {
        let mut rng = StdRng::seed_from_u64(1);
        std::array::from_fn(|i| backoff.delay(i as u32 + 1, Duration::ZERO, &mut rng))
    }

    #[test]
    fn published_schedules_hold() {
        assert_eq!(
            schedule(Backoff::exponential(ms(1), ms(5))),
            [1, 2, 4, 5, 5].map(ms)
        );
        assert_eq!(
            schedule(Backoff::exponential(ms(2_000), ms(30_000))),
            [2_000, 4_000, 8_000, 16_000, 30_000].map(ms)
        );
        assert_eq!(
            schedule(Backoff::linear(ms(1), ms(2), ms(6))),
            [1, 3, 5, 6, 6].map(ms)
        );
        assert_eq!(
            schedule(Backoff::exponential(ms(1_000), ms(3_000))),
            [1_000, 2_000, 3_000, 3_000].map(ms)
        );
        assert_eq!(schedule(Backoff::constant(ms(7))), [7, 7, 7].map(ms));
        // AWS's standard mode, and with a cap of 3 s.
        assert_eq!(
            schedule(Backoff::exponential(ms(1_000), ms(20_000))),
            [1_000, 2_000, 4_000, 8_000].map(ms)
        );
        assert_eq!(
            Backoff::exponential(ms(86_400_000), ms(7)).scheduled(100_000),
            ms(7)
        );
    }

    /// A generator that always gives the same word, to place a wait where one wants it in its interval.
    struct Always(u64);

    impl rand::TryRng for Always {
        type Error = std::convert::Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            Ok((self.0 >> 32) as u32)
        }

        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            Ok(self.0)
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
            bytes.fill((self.0 >> 56) as u8);
            Ok(())
        }
    }

    #[test]
    fn intervals_are_used_from_end_to_end() {
        // What the lowest and the highest random number give, by jitter, attempt and the wait before.
        let (start, max) = (ms(5), ms(120));
        let full = [
            (0, 5),
            (0, 10),
            (0, 20),
            (0, 40),
            (0, 80),
            (0, 120),
            (0, 120),
        ];
        let equal = [
            (2, 5),
            (5, 10),
            (10, 20),
            (20, 40),
            (40, 80),
            (60, 120),
            (60, 120),
        ];
        for (index, (full, equal)) in full.into_iter().zip(equal).enumerate() {
            for (jitter, (low, high)) in [(Jitter::Full, full), (Jitter::Equal, equal)] {
                let backoff = Backoff::exponential(start, max).with_jitter(jitter);
                let wait = |word| backoff.delay(index as u32 + 1, ms(0), &mut Always(word));
                let half = if (jitter, index) == (Jitter::Equal, 0) {
                    500
                } else {
                    0
                };
                assert_eq!(
                    wait(0),
                    ms(low) + Duration::from_micros(half),
                    "{jitter:?} {index}"
                );
                assert_eq!(wait(u64::MAX), ms(high), "{jitter:?} {index}");
            }
        }
        let walk = Backoff::decorrelated(ms(100), ms(10_000));
        for (prev, low, high) in [
            (0, 100, 100),
            (100, 100, 300),
            (1_000, 100, 3_000),
            (9_000, 100, 10_000),
        ] {
            for attempt in [1, 2, 1_025, 100_000] {
                assert_eq!(walk.delay(attempt, ms(prev), &mut Always(0)), ms(low));
                assert_eq!(
                    walk.delay(attempt, ms(prev), &mut Always(u64::MAX)),
                    ms(high)
                );
            }
        }
    }

    #[test]
    fn far_attempts_and_long_waits_saturate_at_the_cap() {
        let mut rng = StdRng::seed_from_u64(1);
        let day = Duration::from_secs(86_400);
        for attempt in [0, 1, 100, 1_000, 100_000, u32::MAX] {
            for max in [Duration::ZERO, ms(20), day * 3_650, Duration::MAX] {
                for jitter in [
                    Jitter::None,
                    Jitter::Full,
                    Jitter::Equal,
                    Jitter::Decorrelated,
                ] {
                    let wait = Backoff::exponential(day, max)
                        .with_jitter(jitter)
                        .delay(attempt, max, &mut rng);
                    assert!(
                        wait <= max,
                        "attempt {attempt}, {jitter:?}: {wait:?} > {max:?}"
                    );
                }
            }
        }
        assert_eq!(
            Backoff::exponential(day, Duration::MAX).scheduled(1_000),
            Duration::MAX
        );
        assert_eq!(
            Backoff::linear(day, day, Duration::MAX).scheduled(1_000),
            day * 1_000
        );
        assert_eq!(
            Backoff::exponential(Duration::ZERO, day).scheduled(u32::MAX),
            Duration::ZERO
        );
    }

    #[test]
    fn a_cap_below_the_first_wait_wins() {
        assert_eq!(Backoff::exponential(ms(100), ms(40)).scheduled(1), ms(40));
        let mut rng = StdRng::seed_from_u64(1);
        assert_eq!(
            Backoff::decorrelated(ms(100), ms(40)).delay(1, Duration::ZERO, &mut rng),
            ms(40)
        );
    }

    #[test]
    fn a_decorrelated_wait_without_a_previous_one_is_the_initial() {
        let mut rng = StdRng::seed_from_u64(1);
        assert_eq!(
            Backoff::decorrelated(ms(100), ms(10_000)).delay(9, Duration::ZERO, &mut rng),
            ms(100)
        );
    }

    #[test]
    fn shrinking_multipliers_are_refused() {
        for bad in [0.0, -1.0, 0.99, f64::NAN, f64::INFINITY] {
            assert!(
                Backoff::default().with_multiplier(bad).is_err(),
                "{bad} was accepted"
            );
        }
        let slow = Backoff::exponential(ms(100), ms(1_000))
            .with_multiplier(1.5)
            .unwrap();
        assert_eq!(slow.scheduled(3), ms(225));
    }

    #[test]
    fn ten_thousand_callers_spread_out_even_from_whole_seconds() {
        let backoff = Backoff::full_jitter(Duration::from_secs(1), Duration::from_secs(20));
        let mut rng = StdRng::seed_from_u64(7);
        let mut waits: Vec<_> = (0..10_000)
            .map(|_| backoff.delay(1, Duration::ZERO, &mut rng))
            .collect();
        let mean = waits.iter().sum::<Duration>() / 10_000;
        assert!(mean.abs_diff(ms(500)) < ms(10), "mean {mean:?}");
        waits.sort_unstable();
        waits.dedup();
        assert!(waits.len() >= 9_990, "{} distinct", waits.len());
    }

    #[test]
    fn the_same_seed_gives_the_same_waits() {
        let one: [_; 8] = schedule(Backoff::default());
        assert_eq!(one, schedule(Backoff::default()));
    }

    fn any_duration() -> impl Strategy<Value = Duration> {
        prop_oneof![
            (any::<u64>(), 0..1_000_000_000u32).prop_map(|(s, n)| Duration::new(s, n)),
            (0..10_000_000_000u64).prop_map(Duration::from_nanos),
        ]
    }

    proptest! {
        #[test]
        fn every_wait_lies_in_its_declared_interval(
            initial in any_duration(), max in any_duration(), prev in any_duration(),
            attempt: u32, multiplier in 1.0..16.0f64, seed: u64,
        ) {
            let mut rng = StdRng::seed_from_u64(seed);
            let plain = Backoff::exponential(initial, max).with_multiplier(multiplier).unwrap();
            let wait = plain.scheduled(attempt);
            prop_assert!(wait <= max);
            prop_assert!(wait >= initial.min(max));
            prop_assert_eq!(plain.delay(attempt, prev, &mut rng), wait);
            prop_assert!(plain.with_jitter(Jitter::Full).delay(attempt, prev, &mut rng) <= wait);
            let equal = plain.with_jitter(Jitter::Equal).delay(attempt, prev, &mut rng);
            prop_assert!(wait / 2 <= equal && equal <= wait);
            let walk = plain.with_jitter(Jitter::Decorrelated).delay(attempt, prev, &mut rng);
            prop_assert!(initial.min(max) <= walk && walk <= max);
            prop_assert!(walk <= prev.saturating_mul(3).max(initial));
        }

        #[test]
        fn waits_never_shrink_with_the_attempt(initial in any_duration(), max in any_duration(), attempt in 0..u32::MAX) {
            let plain = Backoff::exponential(initial, max);
            prop_assert!(plain.scheduled(attempt) <= plain.scheduled(attempt + 1));
        }
    }
}
