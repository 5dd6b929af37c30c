//! How many further attempts a client may make: a token bucket filled by successes.
//!
//! Retries are paid for by calls that succeeded, so they stop by themselves when nothing succeeds. A bucket that is
//! filled by *requests* instead keeps adding load in an outage: with a ratio r, a service that runs at more than
//! 1/(1+r) of its capacity never recovers.
//!
//! The token is taken once, when the decision to try again is made, and not given back when the caller leaves. While
//! the bucket is full, a success only reads it, so that healthy threads share no written cache line.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use crate::verdict::{Kind, Verdict};

/// An allowance of further attempts, shared by all calls to one dependency.
pub trait Budget: fmt::Debug + Send + Sync {
    /// Told the verdict of every finished attempt. On the success path: no clock, no lock.
    fn credit(&self, verdict: Verdict);

    /// Takes the price of one further attempt, or refuses and takes nothing.
    fn try_spend(&self, now: Instant, kind: Kind) -> bool;
}

/// Parts of a token: fine enough that a ratio of 0.0001 is exact.
const TOKEN: u64 = 1_000_000_000;

/// A bucket that gains a fraction of a token per success and loses one per further attempt.
///
/// Lock-free and exact: never more is granted than the initial fill, the credits and the time refill together.
///
/// ```
/// use mainstay_retry::TokenBudget;
///
/// // One retry for every ten successes, ten at once at most; shared by every client of this dependency.
/// let budget = TokenBudget::success_credit(0.1).capacity(10).shared()?;
/// assert_eq!(budget.tokens(), 10);
/// # Ok::<(), mainstay_retry::InvalidBudget>(())
/// ```
pub struct TokenBudget {
    balance: AtomicU64,
    capacity: u64,
    credit: u64,
    refill: Refill,
}

/// A trickle over time, so that a client with little traffic is not stuck at zero.
struct Refill {
    parts_per_second: u64,
    origin: OnceLock<Instant>,
    /// Nanoseconds after `origin` up to which the refill has been paid out.
    paid: AtomicU64,
}

/// Settings of a [`TokenBudget`].
#[derive(Clone, Copy, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct TokenBudgetBuilder {
    credit: f64,
    capacity: u32,
    refill_per_second: f64,
}

/// A budget that could not work as written.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidBudget {
    /// The credit must be finite, not negative, and at most 1,000,000 tokens per success.
    #[error("credit per success must be between 0 and 1000000 tokens, not {0}")]
    Credit(f64),
    /// The refill must be finite, not negative, and at most 1,000,000 tokens a second.
    #[error("refill must be between 0 and 1000000 tokens a second, not {0}")]
    Refill(f64),
}

impl TokenBudget {
    /// Starts a budget that earns `credit` tokens per success. The usual value is 0.1.
    pub const fn success_credit(credit: f64) -> TokenBudgetBuilder {
        TokenBudgetBuilder {
            credit,
            capacity: 10,
            refill_per_second: 0.1,
        }
    }

    /// Whole tokens now in the bucket. Not counting refill that is due but not yet paid out.
    pub fn tokens(&self) -> u64 {
        self.balance.load(Ordering::Relaxed) / TOKEN
    }

    fn deposit(&self, parts: u64) {
        // Relaxed throughout: the balance guards no other memory, and each change is one atomic step.
        let mut balance = self.balance.load(Ordering::Relaxed);
        while balance < self.capacity {
            let more = balance.saturating_add(parts).min(self.capacity);
            match self.balance.compare_exchange_weak(
                balance,
                more,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(seen) => balance = seen,
            }
        }
    }

    fn withdraw(&self, parts: u64) -> bool {
        let enough = |balance: u64| balance.checked_sub(parts);
        self.balance
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, enough)
            .is_ok()
    }
}

impl Budget for TokenBudget {
    fn credit(&self, verdict: Verdict) {
        if verdict == Verdict::Success {
            self.deposit(self.credit);
        }
    }

    fn try_spend(&self, now: Instant, _kind: Kind) -> bool {
        let due = self.refill.take(now);
        if due > 0 {
            self.deposit(due);
        }
        self.withdraw(TOKEN)
    }
}

impl Refill {
    /// The parts earned since the last call that got some. Each nanosecond is paid out at most once.
    fn take(&self, now: Instant) -> u64 {
        if self.parts_per_second == 0 {
            return 0;
        }
        let origin = *self.origin.get_or_init(|| now);
        let elapsed = now.saturating_duration_since(origin).as_nanos();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        let paid = self.paid.load(Ordering::Relaxed);
        let earned = u128::from(elapsed.saturating_sub(paid)) * u128::from(self.parts_per_second)
            / 1_000_000_000;
        if earned == 0 {
            return 0;
        }
        // Only the time that whole parts took is paid for. The rest stays, so that frequent calls do not lose it.
        let took = (earned * 1_000_000_000).div_ceil(u128::from(self.parts_per_second));
        let until = paid.saturating_add(u64::try_from(took).unwrap_or(u64::MAX));
        match self
            .paid
            .compare_exchange(paid, until, Ordering::Relaxed, Ordering::Relaxed)
        {
            Ok(_) => u64::try_from(earned).unwrap_or(u64::MAX),
            Err(_) => 0, // another call was paid for this time
        }
    }
}

impl fmt::Debug for TokenBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenBudget")
            .field(
                "tokens",
                &(self.balance.load(Ordering::Relaxed) as f64 / TOKEN as f64),
            )
            .field("capacity", &(self.capacity / TOKEN))
            .finish_non_exhaustive()
    }
}

impl TokenBudgetBuilder {
    /// Most tokens the bucket holds, and how many it starts with. Default 10: a short burst of failures is retried in
    /// full. Zero means never to try again.
    pub const fn capacity(mut self, tokens: u32) -> Self {
        self.capacity = tokens;
        self
    }

    /// Tokens gained per second whatever happens. Default 0.1, one retry in ten seconds for an idle client; keep it
    /// well below what the other side can spare.
    pub const fn refill_per_second(mut self, tokens: f64) -> Self {
        self.refill_per_second = tokens;
        self
    }

    /// Makes the budget.
    ///
    /// # Errors
    /// [`InvalidBudget`] when the credit or the refill is negative, too large or not a number.
    pub fn build(self) -> Result<TokenBudget, InvalidBudget> {
        let credit = parts(self.credit).ok_or(InvalidBudget::Credit(self.credit))?;
        let parts_per_second =
            parts(self.refill_per_second).ok_or(InvalidBudget::Refill(self.refill_per_second))?;
        let capacity = u64::from(self.capacity) * TOKEN;
        let refill = Refill {
            parts_per_second,
            origin: OnceLock::new(),
            paid: AtomicU64::new(0),
        };
        Ok(TokenBudget {
            balance: AtomicU64::new(capacity),
            capacity,
            credit,
            refill,
        })
    }

    /// [`build`](Self::build), ready to be handed to several layers.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn shared(self) -> Result<Arc<TokenBudget>, InvalidBudget> {
        self.build().map(Arc::new)
    }
}

impl Default for TokenBudget {
    /// 0.1 tokens per success and per second, 10 at most.
    fn default() -> Self {
        let capacity = 10 * TOKEN;
        let refill = Refill {
            parts_per_second: TOKEN / 10,
            origin: OnceLock::new(),
            paid: AtomicU64::new(0),
        };
        Self {
            balance: AtomicU64::new(capacity),
            capacity,
            credit: TOKEN / 10,
            refill,
        }
    }
}

fn parts(tokens: f64) -> Option<u64> {
    (0.0..=1e6)
        .contains(&tokens)
        .then(|| (tokens * TOKEN as f64).round() as u64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn exact(credit: f64, capacity: u32) -> TokenBudget {
        TokenBudget::success_credit(credit)
            .capacity(capacity)
            .refill_per_second(0.0)
            .build()
            .unwrap()
    }

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn spend(budget: &TokenBudget) -> bool {
        budget.try_spend(start(), Kind::Server)
    }

    #[test]
    fn the_bucket_follows_its_trace() {
        // S = success, F = a failure that asks for a retry; capacity 4, 0.4 per success.
        let budget = exact(0.4, 4);
        let trace = [
            ('F', true),
            ('F', true),
            ('S', true),
            ('F', true),
            ('F', true),
            ('F', false),
        ];
        let more = [
            ('S', true),
            ('S', true),
            ('F', true),
            ('F', false),
            ('S', true),
            ('F', false),
        ];
        for (step, (event, granted)) in trace.into_iter().chain(more).enumerate() {
            match event {
                'S' => budget.credit(Verdict::Success),
                _ => assert_eq!(spend(&budget), granted, "step {step}"),
            }
        }
    }

    #[test]
    fn ratios_are_exact_over_ten_thousand_calls() {
        for ratio in [
            0.0001, 0.001, 0.01, 0.1, 0.25, 0.3, 0.34, 0.4, 0.5, 0.6, 0.7, 0.75, 0.9, 0.99, 0.999,
            0.9999,
        ] {
            let budget = exact(ratio, 1_000_000);
            budget.balance.store(0, Ordering::Relaxed);
            let granted = (0..10_000)
                .filter(|_| {
                    budget.credit(Verdict::Success);
                    spend(&budget)
                })
                .count();
            assert_eq!(granted, (10_000.0 * ratio + 1e-9) as usize, "ratio {ratio}");
        }
        let generous = exact(1_000.0, u32::MAX);
        generous.balance.store(0, Ordering::Relaxed);
        (0..10_000).for_each(|_| generous.credit(Verdict::Success));
        assert_eq!(generous.tokens(), 10_000_000);
    }

    #[test]
    fn a_refused_attempt_costs_nothing() {
        let budget = exact(0.6, 0);
        assert!(!spend(&budget));
        let budget = exact(0.6, 1);
        assert!(spend(&budget));
        budget.credit(Verdict::Success);
        assert!(!spend(&budget) && !spend(&budget));
        budget.credit(Verdict::Success);
        assert!(spend(&budget));
    }

    #[test]
    fn only_successes_are_credited() {
        let budget = exact(1.0, 5);
        assert!(spend(&budget));
        budget.credit(Verdict::Ignore);
        budget.credit(Verdict::Failure(Kind::Server));
        budget.credit(Verdict::Retryable(Kind::Server, None));
        assert_eq!(budget.tokens(), 4);
    }

    #[test]
    fn time_pays_each_nanosecond_once_and_stops_at_the_capacity() {
        let budget = TokenBudget::success_credit(0.0)
            .capacity(2)
            .refill_per_second(0.1)
            .build()
            .unwrap();
        let t0 = start();
        let at = |seconds| budget.try_spend(t0 + Duration::from_secs(seconds), Kind::Server);
        assert!(at(0) && at(0) && !at(0));
        assert!(!at(9), "nine tenths of a token");
        assert!(at(10) && !at(10));
        assert!(!at(5), "a clock that jumps back pays nothing");
        assert!(
            at(100_000) && at(100_000) && !at(100_000),
            "an idle day fills two tokens, not ten thousand"
        );
    }

    #[test]
    fn asking_often_does_not_lose_the_refill() {
        let budget = TokenBudget::success_credit(0.0)
            .refill_per_second(0.0001)
            .build()
            .unwrap();
        let t0 = start();
        budget.refill.take(t0);
        // One part in ten microseconds, asked for every nineteen.
        let earned: u64 = (1..=10_000)
            .map(|n| budget.refill.take(t0 + Duration::from_micros(19 * n)))
            .sum();
        assert_eq!(earned, 19_000);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for bad in [-0.1, f64::NAN, f64::INFINITY, 1e9] {
            assert!(matches!(
                TokenBudget::success_credit(bad).build(),
                Err(InvalidBudget::Credit(_))
            ));
            let refill = TokenBudget::success_credit(0.1).refill_per_second(bad);
            assert!(matches!(refill.build(), Err(InvalidBudget::Refill(_))));
        }
    }

    #[test]
    fn threads_together_never_spend_more_than_was_there() {
        let budget = exact(0.25, 1_000);
        let granted: usize = std::thread::scope(|scope| {
            let worker = || {
                (0..4_000)
                    .filter(|_| {
                        budget.credit(Verdict::Success);
                        spend(&budget)
                    })
                    .count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        // 16 000 credits of a quarter and the first thousand; only what would overflow the brim may be missing.
        let left = budget.balance.load(Ordering::Relaxed);
        let spent = granted as u64 * TOKEN;
        assert!(spent + left <= 5_000 * TOKEN);
        assert!(granted >= 4_000, "{granted}");
    }

    proptest! {
        #[test]
        fn never_more_is_granted_than_was_deposited(
            credit in 0.0..3.0f64, capacity in 0..20u32, calls in proptest::collection::vec(any::<bool>(), 0..300),
        ) {
            let budget = exact(credit, capacity);
            let mut model = u64::from(capacity) * TOKEN;
            for success in calls {
                if success {
                    budget.credit(Verdict::Success);
                    model = (model + (credit * TOKEN as f64).round() as u64).min(u64::from(capacity) * TOKEN);
                } else {
                    let granted = spend(&budget);
                    prop_assert_eq!(granted, model >= TOKEN);
                    model -= if granted { TOKEN } else { 0 };
                }
                prop_assert_eq!(budget.balance.load(Ordering::Relaxed), model);
            }
        }
    }
}
