//! Jobs run once, and say what came of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use mainstay_errors::{Category, Error, Problem};
use mainstay_idempotency::codec::Aead;
use mainstay_idempotency::{Jobs, Key, Ran, Wait};
use sqlx::Pool;
use tokio::time::Instant;

use crate::db::{TestDb, on_each};

on_each!(
    a_job_runs_once_and_its_result_stays,
    a_job_that_fails_panics_or_hangs_leaves_nothing_and_runs_again,
    the_same_key_with_another_input_does_not_run,
    two_names_may_use_one_key,
    a_job_started_many_times_at_once_runs_once,
    a_result_that_is_of_another_type_now_is_told_and_not_run_again,
    results_are_sealed_at_rest
);

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

async fn run<D: TestDb>(jobs: &Jobs<D>, text: &'static str) -> Result<Ran<String>, Error> {
    jobs.run(&key(text), text, async move |mut tx| {
        D::effect(&mut tx, text).await.map_err(Error::internal)?;
        Ok::<_, Error>(format!("done {text}"))
    })
    .await
}

async fn a_job_runs_once_and_its_result_stays<D: TestDb>(pool: Pool<D>) {
    let commits = Arc::new(AtomicUsize::new(0));
    let jobs = Jobs::new(pool.clone(), "invoices").on_commit({
        let commits = Arc::clone(&commits);
        move || _ = commits.fetch_add(1, Ordering::SeqCst)
    });
    let done = "done march".to_owned();
    assert_eq!(run(&jobs, "march").await.unwrap(), Ran::Now(done.clone()));
    for _ in 0..2 {
        assert_eq!(
            run(&jobs, "march").await.unwrap(),
            Ran::Before(done.clone())
        );
    }
    assert_eq!(D::effects(&pool, "march").await, 1);
    assert_eq!(commits.load(Ordering::SeqCst), 1);
}

async fn a_job_that_fails_panics_or_hangs_leaves_nothing_and_runs_again<D: TestDb>(pool: Pool<D>) {
    let jobs = Jobs::new(pool.clone(), "invoices").time_max(Duration::from_millis(50));
    let failing = async |how: &'static str| {
        let jobs = jobs.clone();
        let job = async move |mut tx: mainstay_idempotency::IdemTx<D>| {
            D::effect(&mut tx, "march").await.map_err(Error::internal)?;
            match how {
                "fail" => Err(Problem::new(Category::Unavailable, "not_now").into()),
                "panic" => panic!("as asked"),
                _ => std::future::pending::<Result<String, Error>>().await,
            }
        };
        tokio::spawn(async move { jobs.run(&key("march"), "march", job).await }).await
    };
    assert_eq!(
        failing("fail").await.unwrap().unwrap_err().code(),
        "not_now"
    );
    assert!(failing("panic").await.unwrap_err().is_panic());
    // The transaction of the one that panicked may be rolled back a moment later: until then the key is in flight.
    let deadline = Instant::now() + Duration::from_secs(20);
    let hung = loop {
        let error = failing("hang").await.unwrap().unwrap_err();
        if error.code() != "idempotency_key_in_flight" || Instant::now() >= deadline {
            break error;
        }
    };
    assert_eq!(hung.code(), "idempotency_handler_timeout");
    assert_eq!(D::effects(&pool, "march").await, 0);
    let jobs = Jobs::new(pool.clone(), "invoices");
    assert!(matches!(run(&jobs, "march").await, Ok(Ran::Now(_))));
    assert_eq!(D::effects(&pool, "march").await, 1);
}

async fn the_same_key_with_another_input_does_not_run<D: TestDb>(pool: Pool<D>) {
    let jobs = Jobs::new(pool, "invoices");
    assert!(run(&jobs, "march").await.is_ok());
    let march = key("march");
    let other = jobs.run(&march, "april", async |_tx| Ok::<_, Error>(String::new()));
    assert_eq!(other.await.unwrap_err().code(), "idempotency_key_reused");
}

async fn two_names_may_use_one_key<D: TestDb>(pool: Pool<D>) {
    for name in ["invoices", "reminders", "Invoices", "invoices "] {
        let jobs = Jobs::new(pool.clone(), name);
        assert!(
            matches!(run(&jobs, "march").await, Ok(Ran::Now(_))),
            "{name}"
        );
    }
    assert_eq!(D::effects(&pool, "march").await, 4);
}

async fn a_job_started_many_times_at_once_runs_once<D: TestDb>(pool: Pool<D>) {
    let jobs = Jobs::new(pool.clone(), "invoices").wait(Wait::Up(Duration::from_secs(20)));
    let started = (0..5).map(|_| {
        let jobs = jobs.clone();
        tokio::spawn(async move { run(&jobs, "march").await.unwrap() })
    });
    let ran = join_all(started).await;
    let now = ran.iter().filter(|ran| matches!(ran, Ok(Ran::Now(_))));
    assert_eq!(now.count(), 1);
    assert_eq!(D::effects(&pool, "march").await, 1);
}

async fn a_result_that_is_of_another_type_now_is_told_and_not_run_again<D: TestDb>(pool: Pool<D>) {
    let jobs = Jobs::new(pool, "invoices");
    assert!(run(&jobs, "march").await.is_ok());
    let march = key("march");
    let other = jobs.run(&march, "march", async |_tx| Ok::<u32, Error>(7));
    assert_eq!(
        other.await.unwrap_err().code(),
        "idempotency_record_unreadable"
    );
}

async fn results_are_sealed_at_rest<D: TestDb>(pool: Pool<D>) {
    let sealing = |key| Jobs::new(pool.clone(), "invoices").codec(Aead::new(1, &[key; 32]));
    let jobs = sealing(7);
    let done = "done march".to_owned();
    assert_eq!(run(&jobs, "march").await.unwrap(), Ran::Now(done.clone()));
    assert_eq!(run(&jobs, "march").await.unwrap(), Ran::Before(done));
    for without in [sealing(8), Jobs::new(pool.clone(), "invoices")] {
        let unread = run(&without, "march").await.unwrap_err();
        assert_eq!(unread.code(), "idempotency_record_unreadable");
    }
    assert_eq!(D::effects(&pool, "march").await, 1);
}
