//! The bucket that successes fill.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Instant,
};

use super::{Budget, BudgetFault, InvalidBudget, TOKEN, parts};
use crate::{
    sync::{AtomicU64, Ordering},
    verdict::{Kind, Verdict},
};

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
    settings: Settings,
    refill: Refill,
}

/// In parts of a token.
#[derive(Clone, Copy)]
struct Settings {
    capacity: u64,
    credit: u64,
    /// By [`Kind::index`].
    costs: [u64; Kind::COUNT],
    gives_back: bool,
}

/// A trickle over time, so that a client with little traffic is not stuck at zero.
struct Refill {
    parts_per_second: u64,
    origin: OnceLock<Instant>,
    /// Nanoseconds after `origin` up to which the refill has been paid out, or [`STOPPED`].
    paid: AtomicU64,
}

/// Settings of a [`TokenBudget`].
#[derive(Clone, Copy, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct TokenBudgetBuilder {
    credit: f64,
    capacity: u32,
    refill_per_second: f64,
    costs: [f64; Kind::COUNT],
    gives_back: bool,
}

/// Nanoseconds in a second.
const NANOS: u64 = 1_000_000_000;

/// The bucket was full, and time earns nothing until somebody looks at it again.
const STOPPED: u64 = u64::MAX;

/// The most tokens that any one event is worth.
const TOKENS_MAX: f64 = 1e6;

impl TokenBudget {
    /// Starts a budget that earns `credit` tokens per success. The usual value is 0.1.
    pub const fn success_credit(credit: f64) -> TokenBudgetBuilder {
        TokenBudgetBuilder {
            credit,
            capacity: 10,
            refill_per_second: 0.1,
            costs: [1.0; Kind::COUNT],
            gives_back: false,
        }
    }

    /// The quota of AWS's SDKs in standard mode: 500 tokens, 14 a retry but 5 after a throttled attempt, one earned by
    /// each call that succeeds at once; a retry that succeeds gives back what it cost. No refill over time.
    ///
    /// Lenient: it lets about forty calls fail and retry in full before it bites, and needs 500 successes to fill.
    pub const fn aws_standard() -> TokenBudgetBuilder {
        Self::success_credit(1.0)
            .capacity(500)
            .refill_per_second(0.0)
            .cost(14.0)
            .cost_of(Kind::Throttled, 5.0)
            .give_back_on_success()
    }

    /// Whole tokens now in the bucket. Not counting refill that is due but not yet paid out.
    pub fn tokens(&self) -> u64 {
        self.balance.load(Ordering::Relaxed) / TOKEN
    }

    /// [`credit`](Budget::credit) of a success, where the type is known. A full bucket is only read.
    #[inline]
    pub(crate) fn credit_success(&self, repeats: impl FnOnce() -> Option<Kind>) {
        if self.balance.load(Ordering::Relaxed) < self.settings.capacity {
            self.deposit(match repeats() {
                Some(kind) if self.settings.gives_back => self.cost(kind),
                _ => self.settings.credit,
            });
        }
    }

    /// [`try_spend`](Budget::try_spend), with a clock that is not looked at if time earns nothing.
    #[inline]
    pub(crate) fn spend(&self, now: impl FnOnce() -> Instant, kind: Kind) -> bool {
        let parts = self.cost(kind);
        if self.refill.parts_per_second > 0 {
            if self.balance.load(Ordering::Relaxed) >= self.settings.capacity {
                self.refill.forgo();
            } else {
                self.deposit(self.refill.take(now()));
            }
        }
        self.withdraw(parts)
    }

    fn cost(&self, kind: Kind) -> u64 {
        // Every kind has its place in the table.
        self.settings
            .costs
            .get(kind.index())
            .copied()
            .unwrap_or(TOKEN)
    }

    fn deposit(&self, parts: u64) {
        // Relaxed throughout: the balance guards no other memory, and each change is one atomic step.
        let capacity = self.settings.capacity;
        let mut balance = self.balance.load(Ordering::Relaxed);
        while balance < capacity {
            let more = balance.saturating_add(parts).min(capacity);
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
        let mut balance = self.balance.load(Ordering::Relaxed);
        while let Some(less) = balance.checked_sub(parts) {
            match self.balance.compare_exchange_weak(
                balance,
                less,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(seen) => balance = seen,
            }
        }
        false
    }
}

impl Budget for TokenBudget {
    fn credit(&self, verdict: Verdict, repeats: Option<Kind>) {
        if verdict == Verdict::Success {
            self.credit_success(|| repeats);
        }
    }

    fn try_spend(&self, now: Instant, kind: Kind) -> bool {
        self.spend(|| now, kind)
    }
}

impl Refill {
    fn new(parts_per_second: u64) -> Self {
        Self {
            parts_per_second,
            origin: OnceLock::new(),
            paid: AtomicU64::new(STOPPED),
        }
    }

    /// The parts earned since the last call that got some. Each nanosecond is paid out at most once.
    fn take(&self, now: Instant) -> u64 {
        let elapsed = self.elapsed(now);
        let paid = self.paid.load(Ordering::Relaxed);
        if paid == STOPPED {
            // Whoever comes first starts it; for the others nothing is due yet.
            let _ = self
                .paid
                .compare_exchange(paid, elapsed, Ordering::Relaxed, Ordering::Relaxed);
            return 0;
        }
        let (earned, took) = self.earned(elapsed.saturating_sub(paid));
        if earned == 0 {
            return 0;
        }
        // Only the time that whole parts took is paid for. The rest stays, so that frequent calls do not lose it.
        match self.paid.compare_exchange(
            paid,
            paid.saturating_add(took).min(STOPPED - 1),
            Ordering::Relaxed,
            Ordering::Relaxed,
        ) {
            Ok(_) => earned,
            Err(_) => 0, // another call was paid for this time
        }
    }

    /// Lets the time go unpaid until the next look at it: there is no room for what it would earn. No clock is read, so
    /// that the first retries of a healthy client cost none; what it loses is one interval between two retries.
    fn forgo(&self) {
        self.paid.store(STOPPED, Ordering::Relaxed);
    }

    fn elapsed(&self, now: Instant) -> u64 {
        let origin = *self.origin.get_or_init(|| now);
        let elapsed = now.saturating_duration_since(origin);
        let seconds = elapsed.as_secs().saturating_mul(NANOS);
        let nanos = seconds.saturating_add(u64::from(elapsed.subsec_nanos()));
        nanos.min(STOPPED - 1)
    }

    /// What these nanoseconds earn, and how many of them it takes to earn that.
    fn earned(&self, nanos: u64) -> (u64, u64) {
        let rate = self.parts_per_second;
        // Three minutes at the default rate fit; wider division costs as much as all the rest of a retry.
        if let Some(product) = nanos.checked_mul(rate) {
            let earned = product / NANOS;
            return (earned, (earned * NANOS).div_ceil(rate.max(1)));
        }
        let (rate, nanos) = (u128::from(rate), u128::from(nanos));
        let earned = nanos * rate / u128::from(NANOS);
        let took = (earned * u128::from(NANOS)).div_ceil(rate.max(1));
        let clamp = |wide| u64::try_from(wide).unwrap_or(u64::MAX);
        (clamp(earned), clamp(took))
    }
}

impl fmt::Debug for TokenBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenBudget")
            .field(
                "tokens",
                &(self.balance.load(Ordering::Relaxed) as f64 / TOKEN as f64),
            )
            .field("capacity", &(self.settings.capacity / TOKEN))
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

    /// Tokens gained per second whatever happens, from the first retry that finds the bucket not full. Default 0.1, one
    /// retry in ten seconds for an idle client; keep it well below what the other side can spare.
    pub const fn refill_per_second(mut self, tokens: f64) -> Self {
        self.refill_per_second = tokens;
        self
    }

    /// What a retry costs, in tokens, after whatever failure. Default 1.
    pub const fn cost(mut self, tokens: f64) -> Self {
        self.costs = [tokens; Kind::COUNT];
        self
    }

    /// What a retry costs after a failure of this sort. Set it after [`cost`](Self::cost), which sets all.
    ///
    /// A throttled attempt may cost less, for the server refused it cheaply and said when to come back; one that timed
    /// out more, for the server may still be busy with it.
    pub const fn cost_of(mut self, kind: Kind, tokens: f64) -> Self {
        // A slice cannot be indexed by a value without a check that might panic; this one cannot.
        let (index, mut at) = (kind.index(), 0);
        let mut rest: &mut [f64] = &mut self.costs;
        while let Some((first, others)) = rest.split_first_mut() {
            if at == index {
                *first = tokens;
            }
            at += 1;
            rest = others;
        }
        self
    }

    /// [`cost_of`](Self::cost_of) an attempt that was throttled (429).
    pub const fn throttled_cost(self, tokens: f64) -> Self {
        self.cost_of(Kind::Throttled, tokens)
    }

    /// [`cost_of`](Self::cost_of) an attempt that timed out.
    pub const fn timeout_cost(self, tokens: f64) -> Self {
        self.cost_of(Kind::Timeout, tokens)
    }

    /// A retry that succeeds gives back what it cost, instead of the credit. What earlier retries of that call cost
    /// stays spent.
    pub const fn give_back_on_success(mut self) -> Self {
        self.gives_back = true;
        self
    }

    /// Makes the budget.
    ///
    /// # Errors
    /// [`InvalidBudget`] lists the credit, the refill and each cost that is negative, too large or not a number.
    pub fn build(self) -> Result<TokenBudget, InvalidBudget> {
        let wrong = |tokens: f64| parts(tokens, TOKENS_MAX).is_none();
        let credit = wrong(self.credit).then_some(BudgetFault::Credit(self.credit));
        let refill =
            wrong(self.refill_per_second).then_some(BudgetFault::Refill(self.refill_per_second));
        let costs = Kind::ALL.into_iter().zip(self.costs);
        let costs = costs.map(|(kind, cost)| wrong(cost).then_some(BudgetFault::Cost(kind, cost)));
        InvalidBudget::check([credit, refill].into_iter().chain(costs))?;
        let whole = |tokens| parts(tokens, TOKENS_MAX).unwrap_or_default();
        let settings = Settings {
            capacity: u64::from(self.capacity) * TOKEN,
            credit: whole(self.credit),
            costs: self.costs.map(whole),
            gives_back: self.gives_back,
        };
        Ok(TokenBudget::new(settings, whole(self.refill_per_second)))
    }

    /// [`build`](Self::build), ready to be handed to several layers.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn shared(self) -> Result<Arc<TokenBudget>, InvalidBudget> {
        self.build().map(Arc::new)
    }
}

impl TokenBudget {
    fn new(settings: Settings, refill_per_second: u64) -> Self {
        Self {
            balance: AtomicU64::new(settings.capacity),
            settings,
            refill: Refill::new(refill_per_second),
        }
    }
}

impl Default for TokenBudget {
    /// 0.1 tokens per success and per second, 10 at most, a retry costs one.
    fn default() -> Self {
        let settings = Settings {
            capacity: 10 * TOKEN,
            credit: TOKEN / 10,
            costs: [TOKEN; Kind::COUNT],
            gives_back: false,
        };
        Self::new(settings, TOKEN / 10)
    }
}

#[cfg(test)]
#[cfg(not(mainstay_loom))]
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
                'S' => budget.credit(Verdict::Success, None),
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
                    budget.credit(Verdict::Success, None);
                    spend(&budget)
                })
                .count();
            assert_eq!(granted, (10_000.0 * ratio + 1e-9) as usize, "ratio {ratio}");
        }
        let generous = exact(1_000.0, u32::MAX);
        generous.balance.store(0, Ordering::Relaxed);
        (0..10_000).for_each(|_| generous.credit(Verdict::Success, None));
        assert_eq!(generous.tokens(), 10_000_000);
    }

    #[test]
    fn aws_standard_traces_hold() {
        let quota = |capacity, cost| {
            TokenBudget::success_credit(1.0)
                .capacity(capacity)
                .refill_per_second(0.0)
                .cost(cost)
                .timeout_cost(10.0)
                .give_back_on_success()
                .build()
                .unwrap()
        };
        // Four retries that fail.
        let budget = quota(500, 5.0);
        for left in [495, 490, 485, 480] {
            assert!(spend(&budget));
            assert_eq!(budget.tokens(), left);
        }
        // A success after two retries gives the last one back.
        let budget = quota(500, 5.0);
        assert!(spend(&budget) && spend(&budget));
        budget.credit(Verdict::Success, Some(Kind::Server));
        assert_eq!(budget.tokens(), 495);
        // A bucket for one.
        let budget = quota(5, 5.0);
        assert!(spend(&budget) && !spend(&budget));
        assert_eq!(budget.tokens(), 0);
        // Timeouts at twice the price.
        let budget = quota(100, 5.0);
        for left in [90, 80] {
            assert!(budget.try_spend(start(), Kind::Timeout));
            assert_eq!(budget.tokens(), left);
        }
        budget.credit(Verdict::Success, Some(Kind::Timeout));
        assert_eq!(budget.tokens(), 90);
        // Calls that succeed at once earn one each.
        let budget = quota(20, 5.0);
        assert!((0..4).all(|_| spend(&budget)) && !spend(&budget));
        (0..20).for_each(|_| budget.credit(Verdict::Success, None));
        assert_eq!(budget.tokens(), 20);
    }

    #[test]
    fn the_preset_charges_a_throttled_attempt_less() {
        let budget = TokenBudget::aws_standard().build().unwrap();
        assert!(spend(&budget));
        assert_eq!(budget.tokens(), 486);
        assert!(budget.try_spend(start(), Kind::Throttled));
        assert_eq!(budget.tokens(), 481);
    }

    #[test]
    fn a_refused_attempt_costs_nothing() {
        let budget = exact(0.6, 0);
        assert!(!spend(&budget));
        let budget = exact(0.6, 1);
        assert!(spend(&budget));
        budget.credit(Verdict::Success, None);
        assert!(!spend(&budget) && !spend(&budget));
        budget.credit(Verdict::Success, None);
        assert!(spend(&budget));
    }

    #[test]
    fn only_successes_are_credited() {
        let budget = exact(1.0, 5);
        assert!(spend(&budget));
        budget.credit(Verdict::Ignore, None);
        budget.credit(Verdict::Failure(Kind::Server), None);
        budget.credit(Verdict::Retryable(Kind::Server, None), None);
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
            let settings = TokenBudget::success_credit(bad)
                .refill_per_second(bad)
                .throttled_cost(bad);
            let error = settings.build().unwrap_err();
            let [
                BudgetFault::Credit(_),
                BudgetFault::Refill(_),
                BudgetFault::Cost(Kind::Throttled, _),
            ] = error.faults()
            else {
                panic!("{error}")
            };
        }
    }

    #[test]
    fn threads_together_never_spend_more_than_was_there() {
        let budget = exact(0.25, 1_000);
        let granted: usize = std::thread::scope(|scope| {
            let worker = || {
                (0..4_000)
                    .filter(|_| {
                        budget.credit(Verdict::Success, None);
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
                    budget.credit(Verdict::Success, None);
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
