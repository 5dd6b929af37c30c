//! What the Local protocol costs on Postgres: round trips counted at the wire, and bytes of its log.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use mainstay_idempotency::store::{Claim, Claimed};
use mainstay_idempotency::{
    Fingerprint, IdempotencyDb, IdempotencyLayer, Key, Parse, Scope, Scoped, Wait,
};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Pool, Postgres};
use tokio::time::Instant;
use uuid::Uuid;

use crate::app::App;
use crate::db::{self, TestDb};
use crate::lost_commits::{Wire, through_wire};

fn unchanged(layer: IdempotencyLayer<Postgres, Scoped>) -> IdempotencyLayer<Postgres, Scoped> {
    layer
}

/// One connection, which the pool does not ping before it gives it away. It still does when it takes it back.
async fn plain(wired: &Pool<Postgres>) -> Pool<Postgres> {
    PgPoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false)
        .connect_with((*wired.connect_options()).clone())
        .await
        .unwrap()
}

async fn bare(pool: &Pool<Postgres>) {
    let mut tx = pool.begin().await.unwrap();
    Postgres::effect(&mut tx, "bare").await.unwrap();
    tx.commit().await.unwrap();
}

async fn round_trips(wire: &Wire, pool: &Pool<Postgres>, work: impl Future<Output = ()>) -> usize {
    // The pool has its connection back, and has pinged it.
    drop(pool.acquire().await.unwrap());
    drop(pool.acquire().await.unwrap());
    let before = wire.flights.load(Ordering::SeqCst);
    work.await;
    drop(pool.acquire().await.unwrap());
    drop(pool.acquire().await.unwrap());
    wire.flights.load(Ordering::SeqCst) - before
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn a_first_run_takes_two_round_trips_more_and_a_replay_takes_one_on_postgres() {
    db::on::<Postgres, _>(|direct| async move {
        let (wire, wired) = through_wire(&direct).await;
        let pool = plain(&wired).await;
        let app = App::with(pool.clone(), unchanged);
        // Statements are prepared once per connection.
        let timed = [(); 3].map(|()| Uuid::now_v7().to_string());
        for key in ["warm-1", "warm-2", &timed[0], &timed[1]] {
            assert_eq!(app.post(key, "ok").await.status, StatusCode::CREATED);
            assert!(app.post(key, "ok").await.replayed());
            bare(&pool).await;
        }
        let nothing = round_trips(&wire, &pool, async {}).await;
        let select = round_trips(&wire, &pool, async {
            _ = Postgres::effects(&pool, "none").await;
        })
        .await;
        let select = {
            _ = select; // prepared now
            round_trips(&wire, &pool, async {
                _ = Postgres::effects(&pool, "none").await;
            })
            .await
        };
        let bare = round_trips(&wire, &pool, bare(&pool)).await;
        for key in ["k", &timed[2]] {
            let first = round_trips(&wire, &pool, async {
                assert_eq!(app.post(key, "ok").await.status, StatusCode::CREATED);
            })
            .await;
            let replay = round_trips(&wire, &pool, async {
                assert!(app.post(key, "ok").await.replayed());
            })
            .await;
            println!(
                "{key}: nothing {nothing}, select {select}, bare {bare}, first run {first}, replay {replay}"
            );
            assert_eq!(
                first,
                bare + 2,
                "BEGIN, effect and COMMIT, a look and the record"
            );
            assert_eq!(replay, select, "a record is one primary key's look");
        }
        let last = App::with(pool.clone(), IdempotencyLayer::optimistic);
        for key in ["warm-last", "last"] {
            let run = round_trips(&wire, &pool, async {
                assert_eq!(last.post(key, "ok").await.status, StatusCode::CREATED);
            })
            .await;
            if key == "last" {
                println!("claimed last: nothing {nothing}, bare {bare}, first run {run}");
                assert_eq!(run, bare + 1, "BEGIN, effect and COMMIT, and the record");
            }
        }
        pool.close().await;
        wired.close().await;
    })
    .await;
}

/// Bytes of the write-ahead log that `work` adds, per time.
async fn log_bytes(pool: &Pool<Postgres>, times: i64, work: impl AsyncFn(i64)) -> i64 {
    let before: String = sqlx::query_scalar("select pg_current_wal_insert_lsn()::text")
        .fetch_one(pool)
        .await
        .unwrap();
    for time in 0..times {
        work(time).await;
    }
    let bytes: i64 = sqlx::query_scalar(
        "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1::text::pg_lsn)::bigint",
    )
    .bind(before)
    .fetch_one(pool)
    .await
    .unwrap();
    bytes / times
}

/// The log is the whole server's, other tests' included: the least of many measurements is that of this work alone.
/// There are 40 of them, and then as many as it takes to find a moment in which nobody else writes.
async fn least_log_bytes(
    pool: &Pool<Postgres>,
    at_most: i64,
    times: i64,
    work: impl AsyncFn(i64),
) -> i64 {
    let deadline = Instant::now() + Duration::from_secs(90);
    let mut least = i64::MAX;
    let mut round = 0;
    while round < 40 || (least > at_most && Instant::now() < deadline) {
        let bytes = log_bytes(pool, times, async |time| work(round * times + time).await).await;
        least = least.min(bytes);
        round += 1;
    }
    least
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn a_request_logs_little_and_a_replay_nothing_on_postgres() {
    db::on::<Postgres, _>(|pool| async move {
        const BAR: i64 = 900;
        let app = App::new(pool.clone());
        let body = "bytes 300".to_owned();
        // Past the full pages that the first writes after a checkpoint log.
        for time in 0..50 {
            app.post(&format!("warm-{time}"), &body).await;
            app.post(&Uuid::now_v7().to_string(), &body).await;
            bare(&pool).await;
        }
        let bare = least_log_bytes(&pool, BAR, 5, async |_| bare(&pool).await).await;
        let first = least_log_bytes(&pool, BAR, 5, async |time| {
            let answer = app.post(&format!("k-{time}"), &body).await;
            assert!(!answer.replayed());
        })
        .await;
        let timed = least_log_bytes(&pool, BAR, 5, async |_| {
            let answer = app.post(&Uuid::now_v7().to_string(), &body).await;
            assert!(!answer.replayed());
        })
        .await;
        let replay = least_log_bytes(&pool, 0, 1, async |time| {
            assert!(
                app.post(&format!("k-{}", time % 200), &body)
                    .await
                    .replayed()
            );
        })
        .await;
        println!("log bytes: bare {bare}, first run {first}, with a time {timed}, replay {replay}");
        for run in [first, timed] {
            assert!(
                run <= BAR,
                "{run} bytes, of which {bare} are the effect's own"
            );
        }
        assert_eq!(replay, 0);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn a_duplicate_is_told_so_by_a_pool_of_one_connection_on_postgres() {
    db::on::<Postgres, _>(|pool| async move {
        let one = plain(&pool).await;
        let claim = Claim {
            scope: Scope::new("tenant", "", "pay"),
            key: Key::parse(b"one-connection", Parse::Lenient).unwrap(),
            fingerprint: Fingerprint::new("POST", "/", ""),
        };
        let long = Duration::from_secs(60);
        let first = Postgres::begin_claim(&pool, &claim, long, Wait::No).await;
        let second = Postgres::begin_claim(&one, &claim, long, Wait::No).await;
        let (waiting, found) = second.unwrap();
        assert_eq!(found, Claimed::InFlight);
        for tx in [first.unwrap().0, waiting].into_iter().flatten() {
            Postgres::rollback(tx).await;
        }
    })
    .await;
}
