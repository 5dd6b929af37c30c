use std::{cell::Cell, time::Duration};

use mainstay_retry::{
    Backoff, CircuitBreaker, Classify, Deadline, Error, EveryError, Kind, RetryPolicy, TokenBudget,
    Trip, Verdict, retry, retry_until,
};
use tokio::time::Instant;

use crate::support::{ms, secs};

#[tokio::test(start_paused = true)]
async fn plain_code_is_tried_again_by_the_same_rules() {
    let policy = RetryPolicy::new(EveryError)
        .backoff(Backoff::exponential(secs(1), secs(9)))
        .max_attempts(4);
    let runs = Cell::new(0);
    let start = Instant::now();
    let outcome: Result<u32, &str> = retry(&policy, async || {
        runs.set(runs.get() + 1);
        if runs.get() < 3 {
            Err("not yet")
        } else {
            Ok(runs.get())
        }
    })
    .await;
    assert_eq!(outcome, Ok(3));
    assert_eq!(start.elapsed(), secs(1 + 2));
}

#[tokio::test(start_paused = true)]
async fn a_closure_judges_and_the_last_error_comes_out() {
    let judge = |outcome: Result<&(), &u16>| match outcome {
        Ok(()) => Verdict::Success,
        Err(404) => Verdict::Failure(Kind::Server),
        Err(_) => Verdict::Retryable(Kind::Server, Some(secs(5))),
    };
    let policy = RetryPolicy::new(judge).backoff(Backoff::constant(ms(0)));
    for (code, runs, time) in [(404, 1, 0), (500, 3, 10)] {
        let (count, start) = (Cell::new(0), Instant::now());
        let outcome = retry(&policy, async || {
            count.set(count.get() + 1);
            Err(code)
        });
        assert_eq!(outcome.await, Err(code));
        assert_eq!((count.get(), start.elapsed()), (runs, secs(time)));
    }
}

#[tokio::test(start_paused = true)]
async fn deadline_and_budget_hold_here_too() {
    let budget = TokenBudget::success_credit(0.0)
        .capacity(1)
        .refill_per_second(0.0)
        .shared()
        .unwrap();
    let policy = RetryPolicy::new(EveryError)
        .backoff(Backoff::constant(secs(2)))
        .budget(budget.clone());
    let runs = Cell::new(0);
    let fail = async || {
        runs.set(runs.get() + 1);
        Err::<(), _>("no")
    };
    let _ = retry_until(&policy, Deadline::within(secs(2)), fail).await;
    assert_eq!((runs.take(), budget.tokens()), (1, 1));
    let _ = retry(&policy, fail).await;
    assert_eq!((runs.take(), budget.tokens()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_ends_it() {
    let breaker = CircuitBreaker::builder("mail").build().unwrap();
    breaker.handle().force_open();
    let policy = RetryPolicy::new(EveryError);
    let runs = Cell::new(0);
    let outcome = retry(&policy, async || {
        runs.set(runs.get() + 1);
        let permit = breaker.try_acquire()?;
        permit.record(Verdict::Success);
        Ok::<_, Error>(())
    });
    assert!(outcome.await.unwrap_err().is_circuit_open());
    assert_eq!(runs.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn our_refusals_are_final_even_for_a_classifier_that_says_otherwise() {
    struct Stubborn(Kind);
    impl Classify<(), ()> for Stubborn {
        fn classify(&self, _: Result<&(), &()>) -> Verdict {
            Verdict::Retryable(self.0, None)
        }
    }
    for kind in [Kind::CircuitOpen, Kind::DeadlineExceeded] {
        let (runs, policy) = (Cell::new(0), RetryPolicy::new(Stubborn(kind)));
        let outcome = retry(&policy, async || {
            runs.set(runs.get() + 1);
            Err(())
        });
        outcome.await.unwrap_err();
        assert_eq!(runs.get(), 1, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_opens_between_runs_is_told_as_attempted() {
    let breaker = CircuitBreaker::builder("mail")
        .trip(Trip::consecutive(1))
        .build()
        .unwrap();
    let policy = RetryPolicy::new(EveryError);
    let outcome = retry(&policy, async || {
        let permit = breaker.try_acquire()?;
        permit.record(Verdict::Failure(Kind::Transient));
        Err::<(), _>(Error::Inner("reset".into()))
    });
    match outcome.await.unwrap_err() {
        Error::CircuitOpen(open) => assert!(open.attempted()),
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn no_run_starts_after_the_deadline_though_timers_are_late() {
    let policy = RetryPolicy::new(EveryError)
        .backoff(Backoff::constant(ms(10)))
        .max_attempts(9)
        .without_budget();
    // Timers end at whole milliseconds: this wait ends before the deadline, and its timer after it.
    let (deadline, runs) = (
        Deadline::within(Duration::from_micros(10_100)),
        Cell::new(0),
    );
    tokio::time::advance(Duration::from_micros(1)).await;
    let outcome: Result<(), u32> = retry_until(&policy, deadline, async || {
        let now = Instant::now().into_std();
        assert!(
            !deadline.has_passed(now),
            "late by {:?}",
            now - deadline.instant()
        );
        runs.set(runs.get() + 1);
        Err(runs.get())
    })
    .await;
    assert_eq!(outcome, Err(1), "the last outcome comes out");
}
