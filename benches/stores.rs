//! A keyed request, its replay, and an event in a transaction, each beside the transaction alone; on SQLite, and on Postgres where
//! `MAINSTAY_TEST_POSTGRES_URL` is set.
//!
//! ```sh
//! tests/run --only postgres --exec 'cargo bench --bench stores'
//! ```
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench"
)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use criterion::{Criterion, criterion_group, criterion_main};
use http::{Request, StatusCode};
use mainstay::idempotency::{IdemTx, IdempotencyLayer, Scope};
use mainstay::outbox::{Event, Outbox, OutboxConfig};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, Sqlite};
use tower::ServiceExt;

const INSERT: &str = "INSERT INTO payment (amount) VALUES (7)";

async fn ask(router: &Router, key: String) {
    let request = Request::post("/").header("idempotency-key", key);
    let request = request.body(Body::empty()).unwrap();
    let answer = router.clone().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
}

/// The same for both databases, whose types have nothing in common that would not be longer.
macro_rules! benches {
    ($function:ident, $group:literal, $database:ty, $pool:ty) => {
        fn $function(c: &mut Criterion, runtime: &tokio::runtime::Runtime, pool: &$pool) {
            async fn pay(mut tx: IdemTx<$database>) -> StatusCode {
                sqlx::query(INSERT).execute(&mut **tx).await.unwrap();
                StatusCode::CREATED
            }
            let next = AtomicU64::new(0);
            let number = || next.fetch_add(1, Ordering::Relaxed);
            let layer = IdempotencyLayer::<$database>::local(pool.clone());
            let layer = layer.scope(|_| Ok(Scope::new("acme", "", "pay")));
            // The layer's transactions are tasks of the runtime.
            let _entered = runtime.enter();
            let router = Router::new().route("/", post(pay)).layer(layer);
            let outbox = Outbox::<$database>::new(OutboxConfig::default());
            let event = |n: u64| {
                Event::new("order.placed")
                    .key(n.to_string())
                    .json(&n)
                    .unwrap()
            };
            runtime.block_on(ask(&router, "done".to_owned()));

            let mut group = c.benchmark_group($group);
            group.bench_function("bare_transaction", |b| {
                b.iter(|| {
                    runtime.block_on(async {
                        let mut tx = pool.begin().await.unwrap();
                        sqlx::query(INSERT).execute(&mut *tx).await.unwrap();
                        tx.commit().await.unwrap();
                    });
                });
            });
            group.bench_function("idempotency_first_run", |b| {
                b.iter(|| runtime.block_on(ask(&router, format!("key-{}", number()))));
            });
            group.bench_function("idempotency_replay", |b| {
                b.iter(|| runtime.block_on(ask(&router, "done".to_owned())));
            });
            group.bench_function("outbox_enqueue", |b| {
                b.iter(|| {
                    runtime.block_on(async {
                        let mut tx = pool.begin().await.unwrap();
                        sqlx::query(INSERT).execute(&mut *tx).await.unwrap();
                        outbox.enqueue(&mut tx, event(number())).await.unwrap();
                        tx.commit().await.unwrap();
                    });
                });
            });
            group.bench_function("outbox_enqueue_100", |b| {
                b.iter(|| {
                    runtime.block_on(async {
                        let mut tx = pool.begin().await.unwrap();
                        let events = (0..100).map(|_| event(number()));
                        outbox.enqueue_many(&mut tx, events).await.unwrap();
                        tx.commit().await.unwrap();
                    });
                });
            });
            group.finish();
        }
    };
}

benches!(sqlite, "sqlite", Sqlite, sqlx::SqlitePool);
benches!(postgres, "postgres", Postgres, sqlx::PgPool);

const TABLE: &str = "CREATE TABLE payment (amount BIGINT)";

fn on_sqlite(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("bench.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal);
    let pool = runtime.block_on(async {
        let pool = SqlitePoolOptions::new().test_before_acquire(false);
        let pool = pool.connect_with(options).await.unwrap();
        sqlx::raw_sql(TABLE).execute(&pool).await.unwrap();
        mainstay::idempotency::migrate(&pool).await.unwrap();
        mainstay::outbox::migrate(&pool).await.unwrap();
        pool
    });
    sqlite(c, &runtime, &pool);
    runtime.block_on(pool.close());
}

fn on_postgres(c: &mut Criterion) {
    let Ok(url) = std::env::var("MAINSTAY_TEST_POSTGRES_URL") else {
        println!("postgres: left out, for MAINSTAY_TEST_POSTGRES_URL is not set");
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let admin: PgConnectOptions = url.parse().unwrap();
    let name = format!("mainstay_bench_{}", std::process::id());
    let (pool, mut conn) = runtime.block_on(async {
        let mut conn = PgConnection::connect_with(&admin).await.unwrap();
        let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(create).execute(&mut conn).await.unwrap();
        let pool = PgPoolOptions::new().test_before_acquire(false);
        let pool = pool.connect_with(admin.database(&name)).await.unwrap();
        sqlx::raw_sql(TABLE).execute(&pool).await.unwrap();
        mainstay::idempotency::migrate(&pool).await.unwrap();
        mainstay::outbox::migrate(&pool).await.unwrap();
        (pool, conn)
    });
    postgres(c, &runtime, &pool);
    runtime.block_on(async {
        pool.close().await;
        let drop = AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
        sqlx::raw_sql(drop).execute(&mut conn).await.unwrap();
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30);
    targets = on_sqlite, on_postgres
}
criterion_main!(benches);
