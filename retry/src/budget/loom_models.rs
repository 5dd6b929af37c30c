//! Every interleaving of two threads: nothing is granted that was not there, and no credit is lost.
//! `RUSTFLAGS="--cfg mainstay_loom" cargo test -p mainstay-retry --lib --release loom`.

use std::time::Instant;

use loom::{sync::Arc, thread};

use super::{Budget, GrpcThrottle, RatioBudget, TokenBudget};
use crate::verdict::{Kind, Verdict};

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[test]
fn loom_one_token_is_granted_once() {
    loom::model(|| {
        let budget = TokenBudget::success_credit(0.0)
            .capacity(1)
            .refill_per_second(0.0);
        let budget = Arc::new(budget.build().unwrap());
        let now = now();
        let other = Arc::clone(&budget);
        let there = thread::spawn(move || other.try_spend(now, Kind::Server));
        let here = budget.try_spend(now, Kind::Server);
        assert!(here != there.join().unwrap());
        assert_eq!(budget.tokens(), 0);
    });
}

#[test]
fn loom_no_credit_is_lost_beside_a_withdrawal() {
    loom::model(|| {
        let budget = TokenBudget::success_credit(1.0)
            .capacity(3)
            .refill_per_second(0.0);
        let budget = Arc::new(budget.build().unwrap());
        let now = now();
        assert!((0..2).all(|_| budget.try_spend(now, Kind::Server)));
        let other = Arc::clone(&budget);
        let there = thread::spawn(move || other.credit(Verdict::Success, None));
        let granted = u64::from(budget.try_spend(now, Kind::Server));
        there.join().unwrap();
        assert_eq!((granted, budget.tokens()), (1, 1));
    });
}

#[test]
fn loom_time_is_paid_out_once() {
    loom::model(|| {
        let budget = TokenBudget::success_credit(0.0)
            .capacity(3)
            .refill_per_second(1.0);
        let budget = Arc::new(budget.build().unwrap());
        let start = now();
        assert!((0..3).all(|_| budget.try_spend(start, Kind::Server)));
        let later = start + std::time::Duration::from_secs(1);
        let other = Arc::clone(&budget);
        let there = thread::spawn(move || other.try_spend(later, Kind::Server));
        let here = budget.try_spend(later, Kind::Server);
        // One second is one token; who comes between its payment and its deposit may find none.
        let granted = u64::from(here) + u64::from(there.join().unwrap());
        assert!(granted <= 1);
        assert_eq!(budget.tokens() + granted, 1);
    });
}

#[test]
fn loom_a_ratio_takes_what_was_deposited() {
    loom::model(|| {
        let budget = RatioBudget::of_calls(1.0).min_per_second(0);
        let budget = Arc::new(budget.build().unwrap());
        let now = now();
        let other = Arc::clone(&budget);
        let there = thread::spawn(move || {
            other.credit(Verdict::Success, None);
            other.try_spend(now, Kind::Server)
        });
        budget.credit(Verdict::Success, None);
        let here = budget.try_spend(now, Kind::Server);
        let granted = u64::from(here) + u64::from(there.join().unwrap());
        assert_eq!(budget.tokens(now) + granted, 2);
    });
}

#[test]
fn loom_a_throttle_counts_every_outcome() {
    loom::model(|| {
        let throttle = Arc::new(GrpcThrottle::new(4.0, 1.0).unwrap());
        let fail = |throttle: &GrpcThrottle| {
            throttle.credit(Verdict::Retryable(Kind::Server, None), None);
        };
        fail(&throttle);
        fail(&throttle);
        let other = Arc::clone(&throttle);
        let there = thread::spawn(move || fail(&other));
        throttle.credit(Verdict::Success, None);
        there.join().unwrap();
        assert_eq!(throttle.tokens(), 2.0);
    });
}
