//! Jobs whose effects are elsewhere go on where they were left.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mainstay_errors::{Category, Error, Outcome, Problem};
use mainstay_idempotency::codec::Aead;
use mainstay_idempotency::leased::{LeaseError, LeasedDb, Leases, Remote};
use mainstay_idempotency::{ErrorKind, Key, LeasedJobs, LentLease, Ran};
use sqlx::Pool;

use crate::db::{TestDb, on_each};

on_each!(
    a_job_in_steps_runs_once_and_its_result_stays,
    a_job_that_fails_goes_on_behind_its_steps,
    a_job_that_panics_or_hangs_is_in_flight_until_its_lease_is_over,
    a_remote_that_would_act_twice_is_not_asked_twice,
    a_result_that_cannot_be_kept_does_not_undo_the_steps,
    results_of_jobs_in_steps_are_sealed_at_rest
);

/// Nor does it say so.
async fn a_result_that_cannot_be_kept_does_not_undo_the_steps<D: TestDb + LeasedDb>(pool: Pool<D>) {
    let jobs = LeasedJobs::new(Leases::new(pool.clone()), "payouts");
    let key = key();
    let ran = jobs.run(&key, "", |mut lease| async move {
        let step = lease.step("debit", |mut tx, _| async move {
            D::effect(&mut tx, "debit").await.map_err(Error::internal)
        });
        step.await?;
        // JSON has no names like these.
        Ok::<_, Error>(std::collections::HashMap::from([((1, 2), 3)]))
    });
    let failed = Problem::from(ran.await.unwrap_err());
    assert_eq!(failed.outcome(), Outcome::Unknown);
    assert_eq!(D::effects(&pool, "debit").await, 1);
}

#[test]
fn what_fails_between_steps_does_not_say_that_nothing_was_done() {
    for failed in [
        LeaseError::<Error>::Store(ErrorKind::Unavailable.into()),
        LeaseError::TimedOut,
    ] {
        let problem = Problem::from(Error::from(failed));
        assert_eq!(
            (problem.code(), problem.outcome()),
            ("idempotency_outcome_unknown", Outcome::Unknown)
        );
    }
}

fn key() -> Key {
    Key::new("payout-17").unwrap()
}

#[derive(Clone, Copy)]
enum Then {
    GoOn,
    Fail,
    Panic,
    Hang,
}

/// Two steps: one in the database, one elsewhere, which says how often it was asked.
async fn pay<D: TestDb + LeasedDb>(
    mut lease: LentLease<Pool<D>>,
    calls: Arc<AtomicUsize>,
    then: Then,
) -> Result<usize, Error> {
    lease
        .step("debit", |mut tx, _| async move {
            D::effect(&mut tx, "debit").await.map_err(Error::internal)
        })
        .await?;
    match then {
        Then::GoOn => {}
        Then::Fail => return Err(Problem::new(Category::Unavailable, "not_now").into()),
        Then::Panic => panic!("as asked"),
        Then::Hang => std::future::pending().await,
    }
    let called = lease
        .call("transfer", Remote::HonoursKey, |_| async move {
            Ok::<_, Error>(calls.fetch_add(1, Ordering::SeqCst) + 1)
        })
        .await?;
    Ok(called)
}

struct Payouts<D: TestDb + LeasedDb> {
    jobs: LeasedJobs<Pool<D>>,
    calls: Arc<AtomicUsize>,
}

impl<D: TestDb + LeasedDb> Payouts<D> {
    fn new(pool: &Pool<D>) -> Self {
        Self {
            jobs: LeasedJobs::new(Leases::new(pool.clone()), "payouts"),
            calls: Arc::default(),
        }
    }

    async fn run(&self, then: Then) -> Result<Ran<usize>, Error> {
        let calls = Arc::clone(&self.calls);
        let job = move |lease| pay(lease, calls, then);
        self.jobs.run(&key(), "17", job).await
    }
}

async fn a_job_in_steps_runs_once_and_its_result_stays<D: TestDb + LeasedDb>(pool: Pool<D>) {
    let payouts = Payouts::new(&pool);
    assert_eq!(payouts.run(Then::GoOn).await.unwrap(), Ran::Now(1));
    for _ in 0..2 {
        assert_eq!(payouts.run(Then::GoOn).await.unwrap(), Ran::Before(1));
    }
    assert_eq!(D::effects(&pool, "debit").await, 1);
    let other = payouts
        .jobs
        .run(&key(), "18", |_| async { Ok::<usize, Error>(0) })
        .await;
    assert_eq!(other.unwrap_err().code(), "idempotency_key_reused");
}

async fn a_job_that_fails_goes_on_behind_its_steps<D: TestDb + LeasedDb>(pool: Pool<D>) {
    let payouts = Payouts::new(&pool);
    for _ in 0..2 {
        let failed = payouts.run(Then::Fail).await.unwrap_err();
        assert_eq!(failed.code(), "not_now");
    }
    assert_eq!(payouts.run(Then::GoOn).await.unwrap(), Ran::Now(1));
    assert_eq!(D::effects(&pool, "debit").await, 1, "in three attempts");
    assert_eq!(payouts.calls.load(Ordering::SeqCst), 1);
}

async fn a_job_that_panics_or_hangs_is_in_flight_until_its_lease_is_over<D: TestDb + LeasedDb>(
    pool: Pool<D>,
) {
    for then in [Then::Panic, Then::Hang] {
        let leases = Leases::new(pool.clone()).lease_time(Duration::from_secs(1));
        let name = if matches!(then, Then::Panic) {
            "panics"
        } else {
            "hangs"
        };
        let payouts = Arc::new(Payouts {
            jobs: LeasedJobs::new(leases, name).time_max(Duration::from_millis(300)),
            calls: Arc::default(),
        });
        let lost = tokio::spawn({
            let payouts = Arc::clone(&payouts);
            async move { payouts.run(then).await }
        });
        match (then, lost.await) {
            (Then::Panic, lost) => assert!(lost.unwrap_err().is_panic()),
            (_, lost) => {
                let code = lost.unwrap().unwrap_err();
                assert_eq!(code.code(), "idempotency_outcome_unknown");
            }
        }
        let waiting = payouts.run(Then::GoOn).await.unwrap_err();
        assert_eq!(waiting.code(), "idempotency_key_in_flight");
        // Nobody renews it any more; by the database's clock it is over within its time.
        let done = loop {
            match payouts.run(Then::GoOn).await {
                Ok(done) => break done,
                Err(later) => assert_eq!(later.code(), "idempotency_key_in_flight"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(done, Ran::Now(1));
    }
    assert_eq!(D::effects(&pool, "debit").await, 2, "one for each job");
}

async fn a_remote_that_would_act_twice_is_not_asked_twice<D: TestDb + LeasedDb>(pool: Pool<D>) {
    let leases = Leases::new(pool.clone()).lease_time(Duration::from_millis(500));
    let jobs = LeasedJobs::new(leases, "mails").time_max(Duration::from_millis(100));
    let calls = Arc::new(AtomicUsize::new(0));
    let send = |hangs: bool| {
        let calls = Arc::clone(&calls);
        move |mut lease: LentLease<Pool<D>>| async move {
            let sent = lease.call("send", Remote::ActsAgain, |_| async move {
                calls.fetch_add(1, Ordering::SeqCst);
                if hangs {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Error>(())
            });
            sent.await.map_err(Error::from)
        }
    };
    let cut_off = jobs.run(&key(), "", send(true)).await.unwrap_err();
    assert_eq!(cut_off.code(), "idempotency_outcome_unknown");
    let next = loop {
        match jobs.run(&key(), "", send(false)).await {
            Err(later) if later.code() == "idempotency_key_in_flight" => {}
            settled => break settled,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(next.unwrap_err().code(), "idempotency_outcome_unknown");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

async fn results_of_jobs_in_steps_are_sealed_at_rest<D: TestDb + LeasedDb>(pool: Pool<D>) {
    let plain = LeasedJobs::new(Leases::new(pool), "payouts");
    let jobs = plain.clone().codec(Aead::new(1, &[7; 32]));
    let job = |_| async { Ok::<_, Error>(17) };
    assert_eq!(jobs.run(&key(), "", job).await.unwrap(), Ran::Now(17));
    assert_eq!(jobs.run(&key(), "", job).await.unwrap(), Ran::Before(17));
    let unread = plain.run(&key(), "", job).await.unwrap_err();
    assert_eq!(unread.code(), "idempotency_record_unreadable");
}
