//! A share of the calls, over a sliding window, and a floor per second.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Budget, BudgetFault, InvalidBudget, TOKEN, parts};
use crate::{
    sync::{AtomicU64, Mutex, MutexGuard, Ordering, lock},
    verdict::{Kind, Verdict},
};

/// Allows retries up to a share of the calls of the last seconds, and a few per second on top.
///
/// The rule of Finagle and linkerd: each call deposits `ratio` tokens, which last for the `ttl`; a retry takes one; and
/// `min_per_second × ttl` are there from the start, for a client with little traffic. So in any window as long as the
/// `ttl` that ends with a retry, there were at most `ratio × calls + min_per_second × ttl` retries. See the
/// [module docs](crate::budget) for why this is not the default.
///
/// A call deposits when its first attempt ends, whatever its outcome, by one addition to a counter that few other
/// threads use; no clock is read. Deposits are put into the window at the next failure, as if they had come evenly since
/// the failure before it. Failures take a short lock.
///
/// ```
/// use std::time::Duration;
/// use mainstay_retry::RatioBudget;
///
/// let budget = RatioBudget::of_calls(0.2).ttl(Duration::from_secs(10)).min_per_second(10).shared()?;
/// # Ok::<(), mainstay_retry::InvalidBudget>(())
/// ```
pub struct RatioBudget {
    calls: Striped,
    ratio: u64,
    reserve: i128,
    slot: Duration,
    window: Mutex<Window>,
}

/// Settings of a [`RatioBudget`].
#[derive(Clone, Copy, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct RatioBudgetBuilder {
    ratio: f64,
    ttl: Duration,
    min_per_second: u32,
}

/// The grain of the window: deposits last between nine and ten tenths of the time to live.
const SLOTS: usize = 10;

/// The most retries that one call may pay for.
const RATIO_MAX: f64 = 1e3;

/// What was deposited and taken in each of the last slots of time, in parts of a token.
///
/// The sum may be below zero: what was taken from the reserve counts against it until it is as old as a deposit
/// becomes. Wide enough for every call of a century at the largest ratio.
#[derive(Debug)]
struct Window {
    slots: [i128; SLOTS],
    origin: Option<Instant>,
    /// Slots since `origin`.
    current: u64,
    /// How many calls have been put into the window.
    seen: u64,
}

impl Window {
    /// Moves on to the slot of `now`, and puts into the slots since the last time what was deposited in them.
    fn advance(&mut self, now: Instant, slot: Duration, calls: u64, ratio: u64) {
        let origin = *self.origin.get_or_insert(now);
        let elapsed = now.saturating_duration_since(origin).as_nanos();
        let target = u64::try_from(elapsed / slot.as_nanos().max(1)).unwrap_or(u64::MAX);
        // A clock that jumps back stays where it was.
        let steps = target.saturating_sub(self.current);
        let due = i128::from(calls.wrapping_sub(self.seen)) * i128::from(ratio);
        self.seen = calls;
        let each = due / (i128::from(steps) + 1);
        self.add(each);
        // Slots that are older than the window by now are not walked through.
        let skipped = steps.saturating_sub(SLOTS as u64);
        self.current += skipped;
        for _ in skipped..steps {
            self.current += 1;
            self.change(|_| each);
        }
        self.add(due - each * (i128::from(steps) + 1));
    }

    fn add(&mut self, parts: i128) {
        self.change(|slot| slot + parts);
    }

    fn change(&mut self, change: impl FnOnce(i128) -> i128) {
        let index = (self.current % SLOTS as u64) as usize;
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = change(*slot);
        }
    }

    fn sum(&self) -> i128 {
        self.slots.iter().sum()
    }
}

impl RatioBudget {
    /// Starts a budget in which each call pays for `ratio` retries. The usual value is 0.2.
    pub const fn of_calls(ratio: f64) -> RatioBudgetBuilder {
        RatioBudgetBuilder {
            ratio,
            ttl: Duration::from_secs(10),
            min_per_second: 10,
        }
    }

    /// Whole tokens there are at `now`.
    pub fn tokens(&self, now: Instant) -> u64 {
        let parts = self.reserve + self.advanced(now).sum();
        u64::try_from(parts.max(0) / i128::from(TOKEN)).unwrap_or(u64::MAX)
    }

    fn advanced(&self, now: Instant) -> MutexGuard<'_, Window> {
        let mut window = lock(&self.window);
        window.advance(now, self.slot, self.calls.sum(), self.ratio);
        window
    }
}

impl Budget for RatioBudget {
    fn credit(&self, verdict: Verdict, repeats: Option<Kind>) {
        let asked = match verdict {
            Verdict::Retryable(kind, _) | Verdict::Failure(kind) => kind.is_retryable(),
            Verdict::Success | Verdict::Ignore => true,
        };
        if repeats.is_none() && asked && self.ratio > 0 {
            self.calls.increment();
        }
    }

    fn try_spend(&self, now: Instant, _kind: Kind) -> bool {
        let mut window = self.advanced(now);
        let enough = self.reserve + window.sum() >= i128::from(TOKEN);
        if enough {
            window.add(-i128::from(TOKEN));
        }
        enough
    }
}

impl fmt::Debug for RatioBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RatioBudget")
            .field("ratio", &(self.ratio as f64 / TOKEN as f64))
            .field("ttl", &(self.slot * SLOTS as u32))
            .finish_non_exhaustive()
    }
}

impl RatioBudgetBuilder {
    /// How long a deposit lasts, from 1 s to 60 s. Default 10 s. Longer lets a burst of failures spend the calls of a
    /// calmer time; shorter lets it spend almost nothing.
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Retries per second that are allowed whatever the traffic. Default 10; keep it well below what the other side can
    /// spare, times the number of clients.
    pub const fn min_per_second(mut self, retries: u32) -> Self {
        self.min_per_second = retries;
        self
    }

    /// Makes the budget.
    ///
    /// # Errors
    /// [`InvalidBudget`] lists a ratio that is negative, above 1,000 or not a number, and a time to live outside 1 s to
    /// 60 s.
    pub fn build(self) -> Result<RatioBudget, InvalidBudget> {
        let ratio = parts(self.ratio, RATIO_MAX);
        let lasting = (Duration::from_secs(1)..=Duration::from_secs(60)).contains(&self.ttl);
        InvalidBudget::check([
            ratio.is_none().then_some(BudgetFault::Ratio(self.ratio)),
            (!lasting).then_some(BudgetFault::TimeToLive(self.ttl)),
        ])?;
        let per_nanosecond = u128::from(self.min_per_second); // in parts: a token has as many as a second nanoseconds
        let window = Window {
            slots: [0; SLOTS],
            origin: None,
            current: 0,
            seen: 0,
        };
        Ok(RatioBudget {
            calls: Striped::default(),
            ratio: ratio.unwrap_or_default(),
            reserve: i128::try_from(per_nanosecond * self.ttl.as_nanos()).unwrap_or(i128::MAX),
            slot: self.ttl / SLOTS as u32,
            window: Mutex::new(window),
        })
    }

    /// [`build`](Self::build), ready to be handed to several layers.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn shared(self) -> Result<Arc<RatioBudget>, InvalidBudget> {
        self.build().map(Arc::new)
    }
}

/// A counter in several places, so that threads that count at once seldom meet on a cache line.
#[derive(Default)]
struct Striped {
    stripes: [Stripe; STRIPES],
}

const STRIPES: usize = if cfg!(all(test, mainstay_loom)) {
    2
} else {
    16
};

/// Two cache lines, for processors that fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

impl Striped {
    fn increment(&self) {
        let index = stripe() % STRIPES;
        if let Some(Stripe(count)) = self.stripes.get(index) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Never less than at an earlier sum that this thread has seen, for each stripe only grows.
    fn sum(&self) -> u64 {
        let counts = self
            .stripes
            .iter()
            .map(|Stripe(count)| count.load(Ordering::Relaxed));
        counts.fold(0, u64::wrapping_add)
    }
}

/// A number of this thread's own.
fn stripe() -> usize {
    use std::{
        cell::Cell,
        sync::atomic::{AtomicUsize, Ordering},
    };
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES);
        }
        mine.get()
    })
}

#[cfg(test)]
#[cfg(not(mainstay_loom))]
mod tests {
    use super::*;

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn call(budget: &RatioBudget) {
        budget.credit(Verdict::Success, None);
    }

    #[test]
    fn the_share_is_exact_over_ten_thousand_calls() {
        // ttl, min per second, ratio
        let plain = [
            0.1, 0.25, 0.5, 0.75, 0.99, 0.999, 0.9999, 0.01, 0.001, 0.0001, 0.3, 0.34, 0.4, 0.6,
            0.7, 0.9,
        ];
        let plain = plain.map(|ratio| (10, 0, ratio));
        let floors = [(1, 10, 0.0), (2, 5, 0.0), (1, 10, 0.1), (2, 5, 0.5)];
        for (ttl, min, ratio) in plain.into_iter().chain(floors) {
            let budget = RatioBudget::of_calls(ratio)
                .ttl(Duration::from_secs(ttl))
                .min_per_second(min)
                .build()
                .unwrap();
            let now = start();
            let granted = (0..10_000)
                .filter(|_| {
                    call(&budget);
                    budget.try_spend(now, Kind::Server)
                })
                .count();
            let expected = (10_000.0 * ratio + 1e-9) as usize + ttl as usize * min as usize;
            assert!(
                granted.abs_diff(expected) <= 1,
                "{ratio} {ttl} {min}: {granted}, not {expected}"
            );
        }
    }

    #[test]
    fn ratios_above_one_pay_for_several_each() {
        for (ratio, tokens) in [(2.0, 20_000), (1.5, 15_000), (1_000.0, 10_000_000)] {
            let budget = RatioBudget::of_calls(ratio)
                .min_per_second(0)
                .build()
                .unwrap();
            (0..10_000).for_each(|_| call(&budget));
            assert_eq!(budget.tokens(start()), tokens, "{ratio}");
        }
    }

    #[test]
    fn nothing_comes_of_nothing_and_a_refusal_takes_nothing() {
        let budget = RatioBudget::of_calls(0.0)
            .min_per_second(0)
            .build()
            .unwrap();
        let now = start();
        call(&budget);
        assert!(!budget.try_spend(now, Kind::Server));
        assert_eq!(budget.advanced(now).sum(), 0);
    }

    #[test]
    fn only_calls_that_were_made_deposit_and_only_once() {
        let budget = RatioBudget::of_calls(1.0)
            .min_per_second(0)
            .build()
            .unwrap();
        let now = start();
        budget.credit(Verdict::Failure(Kind::CircuitOpen), None);
        budget.credit(Verdict::Success, Some(Kind::Server));
        assert_eq!(budget.tokens(now), 0);
        budget.credit(Verdict::Retryable(Kind::Server, None), None);
        budget.credit(Verdict::Ignore, None);
        assert_eq!(budget.tokens(now), 2);
    }

    #[test]
    fn deposits_and_debts_last_for_the_time_to_live() {
        let budget = RatioBudget::of_calls(1.0)
            .ttl(Duration::from_secs(10))
            .min_per_second(1)
            .build()
            .unwrap();
        let at = |seconds| start_of() + Duration::from_secs(seconds);
        fn start_of() -> Instant {
            use std::sync::OnceLock;
            static START: OnceLock<Instant> = OnceLock::new();
            *START.get_or_init(start)
        }
        assert_eq!(budget.tokens(at(0)), 10);
        (0..10).for_each(|_| call(&budget));
        assert_eq!(budget.tokens(at(0)), 20);
        for _ in 0..20 {
            assert!(budget.try_spend(at(3), Kind::Server));
        }
        assert!(!budget.try_spend(at(9), Kind::Server), "spent");
        assert!(
            !budget.try_spend(at(12), Kind::Server),
            "the deposits are gone, what was taken is not"
        );
        assert_eq!(budget.tokens(at(13)), 10, "the reserve is back");
        assert_eq!(budget.tokens(at(1_000_000)), 10);
        assert_eq!(budget.tokens(at(2)), 10, "a clock that jumps back");
    }

    #[test]
    fn calls_since_the_last_failure_count_as_if_they_had_come_evenly() {
        let budget = RatioBudget::of_calls(1.0)
            .min_per_second(0)
            .build()
            .unwrap();
        let now = start();
        assert_eq!(budget.tokens(now), 0);
        (0..1_000).for_each(|_| call(&budget));
        // 100 s at ten a second: the window of 10 s holds the last tenth of them.
        let tokens = budget.tokens(now + Duration::from_secs(100));
        assert!((95..=105).contains(&tokens), "{tokens}");
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for bad in [-0.1, 1_000.1, f64::NAN, f64::INFINITY] {
            for ttl in [0, 61] {
                let settings = RatioBudget::of_calls(bad).ttl(Duration::from_secs(ttl));
                let error = settings.build().unwrap_err();
                assert!(matches!(
                    error.faults(),
                    [BudgetFault::Ratio(_), BudgetFault::TimeToLive(_)]
                ));
            }
        }
        let extreme = RatioBudget::of_calls(1e3)
            .ttl(Duration::from_secs(60))
            .min_per_second(u32::MAX)
            .build()
            .unwrap();
        assert_eq!(extreme.tokens(start()), 60 * u64::from(u32::MAX));
    }

    #[test]
    fn threads_together_take_exactly_what_was_deposited() {
        let budget = RatioBudget::of_calls(0.25)
            .min_per_second(0)
            .build()
            .unwrap();
        let now = start();
        let granted: usize = std::thread::scope(|scope| {
            let worker = || {
                (0..4_000)
                    .filter(|_| {
                        call(&budget);
                        budget.try_spend(now, Kind::Server)
                    })
                    .count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        let left = budget.tokens(now) as usize;
        assert_eq!(granted + left, 4_000, "{granted} granted, {left} left");
    }

    proptest::proptest! {
        #[test]
        fn no_window_that_ends_with_a_retry_holds_more_than_its_share(
            ratio in 0.0..2.0f64, min in 0..3u32, steps in proptest::collection::vec((0..400u64, 0..4u32), 1..200),
        ) {
            let ttl = Duration::from_secs(2);
            let budget = RatioBudget::of_calls(ratio).ttl(ttl).min_per_second(min).build().unwrap();
            let mut now = start();
            let (mut calls, mut retries) = (Vec::new(), Vec::new());
            for (pause, made) in steps {
                now += Duration::from_millis(pause);
                for _ in 0..made {
                    call(&budget);
                    // Asking at once keeps the estimate of when calls came out of the model.
                    calls.push(now);
                    let _ = budget.tokens(now);
                }
                if budget.try_spend(now, Kind::Server) {
                    retries.push(now);
                    // The grain of the window is a tenth of it.
                    let deposits = calls.iter().filter(|at| now.duration_since(**at) < ttl).count();
                    let taken = retries.iter().filter(|at| now.duration_since(**at) < ttl * 9 / 10).count();
                    let share = ratio * deposits as f64 + f64::from(min) * ttl.as_secs_f64();
                    proptest::prop_assert!(taken as f64 <= share + 1e-6, "{taken} of {share}");
                }
            }
        }
    }
}
