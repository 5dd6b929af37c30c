//! What the relay costs beside the same work by hand, on one server and in one run: rounds in turn, medians and ratios.
//!
//! `MAINSTAY_TEST_POSTGRES_URL=.. cargo bench -p mainstay-outbox --features postgres,sqlite --bench relay`
//! `MAINSTAY_BENCH_ROWS` (200000), `MAINSTAY_BENCH_ROUNDS` (3) and `MAINSTAY_BENCH_BACKLOG` (1000000; claims are timed at
//! ten thousand rows and at this many) make it longer or shorter; words after `--` choose parts by name.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a program that measures"
)]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use mainstay_outbox::{
    Event, LaneRef, Message, Outbox, OutboxConfig, Outcome, Outcomes, Relay, RelayHandle, Sink,
    SinkDown, migrate,
    store::{Ask, Claim, Look},
};
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, PgPool, Postgres, Row, SqlitePool,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

fn number(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Takes everything at once and does nothing with it.
#[derive(Clone)]
struct Nothing;

impl Sink for Nothing {
    async fn publish(&self, _: LaneRef, batch: &[Message]) -> Result<Outcomes, SinkDown> {
        Ok(batch.iter().map(|_| Outcome::Acked).collect())
    }
}

/// Notes how long ago each message was made.
#[derive(Clone, Default)]
struct Stopwatch(Arc<Mutex<Vec<Duration>>>);

impl Sink for Stopwatch {
    async fn publish(&self, _: LaneRef, batch: &[Message]) -> Result<Outcomes, SinkDown> {
        let now = SystemTime::now();
        let mut all = self.0.lock().unwrap();
        for message in batch {
            let made: [u8; 16] = message.payload()[..16].try_into().unwrap();
            let made =
                SystemTime::UNIX_EPOCH + Duration::from_nanos(u128::from_be_bytes(made) as u64);
            all.push(now.duration_since(made).unwrap_or_default());
        }
        Ok(batch.iter().map(|_| Outcome::Acked).collect())
    }
}

#[tokio::main]
async fn main() {
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let wants =
        |part: &str| chosen.is_empty() || chosen.iter().any(|word| part.contains(word.as_str()));
    match std::env::var("MAINSTAY_TEST_POSTGRES_URL") {
        Ok(url) => {
            let server = Server::new(&url).await;
            if wants("drain") {
                server.drain().await;
            }
            if wants("claim") {
                server.claim().await;
            }
            if wants("latency") {
                server.latency().await;
            }
            server.gone().await;
        }
        Err(_) => println!("set MAINSTAY_TEST_POSTGRES_URL to measure Postgres"),
    }
    if wants("sqlite") {
        sqlite().await;
    }
}

/// A database of its own on the server.
struct Server {
    pool: PgPool,
    admin: PgConnectOptions,
    name: String,
}

/// What one round took.
struct Round {
    rate: f64,
    statements: f64,
    wal: f64,
}

impl Server {
    async fn new(url: &str) -> Self {
        let admin: PgConnectOptions = url.parse().unwrap();
        let name = format!("mainstay_bench_{}", Uuid::now_v7().simple());
        let mut conn = PgConnection::connect_with(&admin).await.unwrap();
        let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(create).execute(&mut conn).await.unwrap();
        // Without the pool's pings, which would be a round trip more for every statement of every contestant.
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .test_before_acquire(false)
            .connect_with(admin.clone().database(&name))
            .await
            .unwrap();
        migrate(&pool).await.unwrap();
        Self { pool, admin, name }
    }

    async fn gone(self) {
        self.pool.close().await;
        let mut conn = PgConnection::connect_with(&self.admin).await.unwrap();
        let drop = AssertSqlSafe(format!("DROP DATABASE {} WITH (FORCE)", self.name));
        sqlx::raw_sql(drop).execute(&mut conn).await.unwrap();
    }

    async fn fill(&self, rows: u64) {
        // Before and not after: the first change to a page after a checkpoint writes the whole page to the log.
        sqlx::raw_sql("CHECKPOINT")
            .execute(&self.pool)
            .await
            .unwrap();
        sqlx::query(
            "INSERT INTO mainstay_outbox_message
                 (lane, event_id, source, type, topic, time, content_type, key, headers, payload)
             SELECT n % 64, gen_random_uuid(), '/bench', 'order.placed', 'orders', now(), 'application/json',
                 convert_to('order-' || n % 20000, 'UTF8'), '[]', convert_to(repeat('x', 200), 'UTF8')
             FROM generate_series(1, $1) n",
        )
        .bind(rows as i64)
        .execute(&self.pool)
        .await
        .unwrap();
        sqlx::raw_sql("VACUUM (ANALYZE) mainstay_outbox_message")
            .execute(&self.pool)
            .await
            .unwrap();
    }

    /// Committed transactions, as far as they have been reported, and the end of the log.
    async fn counters(&self) -> (i64, f64) {
        let row = sqlx::query(
            "SELECT xact_commit, pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8
             FROM pg_stat_database WHERE datname = current_database()",
        )
        .fetch_one(&self.pool)
        .await
        .unwrap();
        (row.get(0), row.get(1))
    }

    async fn measured(&self, rows: u64, work: impl AsyncFnOnce()) -> Round {
        tokio::time::sleep(Duration::from_millis(1_100)).await; // backends report once a second
        let (statements, wal) = self.counters().await;
        let began = Instant::now();
        work().await;
        let took = began.elapsed();
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let after = self.counters().await;
        Round {
            rate: rows as f64 / took.as_secs_f64(),
            statements: (after.0 - statements) as f64 / rows as f64,
            wal: (after.1 - wal) / rows as f64,
        }
    }

    /// What the relay is measured by: no lanes, no order, no crash that is noticed, one connection.
    async fn by_hand(&self) {
        let mut conn = self.pool.acquire().await.unwrap();
        loop {
            let mut tx = conn.begin().await.unwrap();
            let rows = sqlx::query(
                "SELECT id, lane, event_id, source, type, topic, subject, time, content_type, key, headers, payload
                 FROM mainstay_outbox_message ORDER BY lane, id LIMIT 1000 FOR UPDATE SKIP LOCKED",
            )
            .fetch_all(&mut *tx)
            .await
            .unwrap();
            if rows.is_empty() {
                return;
            }
            let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
            let lanes: Vec<i32> = rows.iter().map(|row| row.get(1)).collect();
            sqlx::query(
                "DELETE FROM mainstay_outbox_message m USING unnest($1::integer[], $2::bigint[]) AS d(lane, id)
                 WHERE m.lane = d.lane AND m.id = d.id",
            )
            .bind(lanes)
            .bind(ids)
            .execute(&mut *tx)
            .await
            .unwrap();
            tx.commit().await.unwrap();
        }
    }

    async fn relay(&self, batch: u32) -> RelayHandle {
        let relay = Relay::builder(self.pool.clone())
            .batch(batch)
            .in_flight_max(64_000)
            .in_flight_bytes_max(1 << 30)
            .sink("*", Nothing)
            .build()
            .await
            .unwrap();
        relay.spawn(CancellationToken::new())
    }

    async fn by_relay(&self, rows: u64, batch: u32) {
        let relay = self.relay(batch).await;
        while relay.stats().delivered < rows {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        relay.drain(Duration::from_secs(5)).await;
    }

    async fn drain(&self) {
        let rows = number("MAINSTAY_BENCH_ROWS", 200_000);
        let rounds = number("MAINSTAY_BENCH_ROUNDS", 3);
        println!(
            "draining {rows} messages of 200 bytes, 64 lanes, no-op sink; medians of {rounds} rounds"
        );
        println!(
            "{:<44}{:>12}{:>8}{:>14}{:>12}",
            "", "messages/s", "ratio", "statements", "WAL bytes"
        );
        let contestants = [
            (
                "SELECT .. SKIP LOCKED, DELETE, 1000 by hand",
                0,
                Hindrance::None,
            ),
            ("relay, batch 1000", 1_000, Hindrance::None),
            ("relay, batch 100", 100, Hindrance::None),
            ("by hand, snapshot held", 0, Hindrance::Snapshot),
            (
                "relay, batch 1000, snapshot held",
                1_000,
                Hindrance::Snapshot,
            ),
            ("relay, batch 100, snapshot held", 100, Hindrance::Snapshot),
            ("relay, batch 1000, writer open", 1_000, Hindrance::Writer),
            ("relay, batch 100, writer open", 100, Hindrance::Writer),
        ];
        let mut results: Vec<Vec<Round>> = contestants.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for ((_, batch, hindrance), results) in contestants.iter().zip(&mut results) {
                let hindrance = self.hinder(*hindrance).await;
                self.fill(rows).await;
                let round = self
                    .measured(rows, async || match *batch {
                        0 => self.by_hand().await,
                        batch => self.by_relay(rows, batch).await,
                    })
                    .await;
                results.push(round);
                drop(hindrance);
                sqlx::raw_sql("TRUNCATE mainstay_outbox_message")
                    .execute(&self.pool)
                    .await
                    .unwrap();
            }
        }
        let mut base = None;
        for ((name, ..), results) in contestants.iter().zip(&mut results) {
            results.sort_by(|a, b| a.rate.total_cmp(&b.rate));
            let median = &results[results.len() / 2];
            let base = *base.get_or_insert(median.rate);
            println!(
                "{name:<44}{:>12.0}{:>8.2}{:>14.4}{:>12.0}",
                median.rate,
                median.rate / base,
                median.statements,
                median.wal
            );
        }
    }

    /// Somebody who is in the way for as long as the connection lives.
    async fn hinder(&self, how: Hindrance) -> Option<PgConnection> {
        let begin = match how {
            Hindrance::None => return None,
            Hindrance::Snapshot => "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1",
            Hindrance::Writer => "BEGIN; SELECT pg_current_xact_id()",
        };
        // In another database the writer is as much in the way; a snapshot only in this one.
        let options = match how {
            Hindrance::Writer => self.admin.clone(),
            _ => self.admin.clone().database(&self.name),
        };
        let mut conn = PgConnection::connect_with(&options).await.unwrap();
        sqlx::raw_sql(begin).execute(&mut conn).await.unwrap();
        Some(conn)
    }

    async fn claim(&self) {
        let large = number("MAINSTAY_BENCH_BACKLOG", 1_000_000);
        println!("one claim of 64 lanes, 100 messages each, milliseconds");
        let mut first = None;
        for rows in [10_000, large] {
            self.fill(rows).await;
            let ask = Ask {
                lanes: (0..64).map(|lane| Look::new(lane, 0)).collect(),
                batch: 100,
                total: 64_000,
                bytes: 1 << 30,
                skip_topics: Vec::new(),
                held_back: false,
                large: false,
            };
            let mut times = Vec::new();
            for _ in 0..30 {
                let began = Instant::now();
                let due = <Postgres as Claim>::candidates(self.pool.clone(), ask.clone());
                assert_eq!(due.await.unwrap().len(), 6_400);
                times.push(began.elapsed().as_secs_f64() * 1e3);
            }
            times.sort_by(f64::total_cmp);
            let median = times[times.len() / 2];
            let base = *first.get_or_insert(median);
            println!(
                "{:<44}{median:>12.2}{:>8.2}",
                format!("backlog of {rows}"),
                median / base
            );
            sqlx::raw_sql("TRUNCATE mainstay_outbox_message")
                .execute(&self.pool)
                .await
                .unwrap();
        }
    }

    async fn latency(&self) {
        println!("from COMMIT to publish at 1000 messages a second, milliseconds");
        for (name, wakes) in [
            ("woken in process", true),
            ("polling every 100 ms at most", false),
        ] {
            let outbox = Outbox::<Postgres>::new(OutboxConfig::default());
            let sink = Stopwatch::default();
            let mut builder = Relay::builder(self.pool.clone()).sink("*", sink.clone());
            if wakes {
                builder = builder.outbox(&outbox);
            }
            let relay = builder
                .build()
                .await
                .unwrap()
                .spawn(CancellationToken::new());
            let mut every = tokio::time::interval(Duration::from_millis(1));
            for n in 0..5_000_u32 {
                every.tick().await;
                let mut tx = self.pool.begin().await.unwrap();
                let now = SystemTime::now()
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .unwrap();
                let event = Event::new("t").key((n % 500).to_be_bytes()).bytes(
                    "application/octet-stream",
                    now.as_nanos().to_be_bytes().to_vec(),
                );
                outbox.enqueue(&mut tx, event).await.unwrap();
                tx.commit().await.unwrap();
                outbox.waker().notify_after_commit();
            }
            while relay.stats().delivered < 5_000 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            relay.drain(Duration::from_secs(5)).await;
            let mut all = sink.0.lock().unwrap().clone();
            all.sort();
            let at = |part: f64| all[(all.len() as f64 * part) as usize].as_secs_f64() * 1e3;
            println!(
                "{name:<44} p50 {:>8.2}  p99 {:>8.2}  max {:>8.2}",
                at(0.5),
                at(0.99),
                at(0.9999)
            );
        }
    }
}

#[derive(Clone, Copy)]
enum Hindrance {
    None,
    /// Keeps what is deleted from being cleaned away.
    Snapshot,
    /// Has begun to write and does not end.
    Writer,
}

async fn sqlite() {
    let rows = number("MAINSTAY_BENCH_ROWS", 200_000) / 4;
    let folder = std::env::temp_dir().join(format!("mainstay-bench-{}", Uuid::now_v7().simple()));
    std::fs::create_dir_all(&folder).unwrap();
    let options = SqliteConnectOptions::new()
        .filename(folder.join("outbox.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal);
    let pool: SqlitePool = SqlitePoolOptions::new()
        .max_connections(4)
        .test_before_acquire(false)
        .connect_with(options)
        .await
        .unwrap();
    migrate(&pool).await.unwrap();
    println!("SQLite: draining {rows} messages of 200 bytes, 64 lanes, batch 1000, no-op sink");
    let mut base = None;
    for by_relay in [false, true, false, true] {
        sqlx::query(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)
             INSERT INTO mainstay_outbox_message
                 (lane, event_id, source, type, topic, time, content_type, key, headers, payload, enqueued_at)
             SELECT n % 64, randomblob(16), '/bench', 'order.placed', 'orders', 0, 'application/json',
                 CAST('order-' || n % 20000 AS BLOB), '[]', zeroblob(200), 0
             FROM n",
        )
        .bind(rows as i64)
        .execute(&pool)
        .await
        .unwrap();
        let began = Instant::now();
        if by_relay {
            let relay = Relay::builder(pool.clone())
                .batch(1_000)
                .in_flight_max(64_000)
                .sink("*", Nothing)
                .build()
                .await
                .unwrap();
            let relay = relay.spawn(CancellationToken::new());
            while relay.stats().delivered < rows {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            relay.drain(Duration::from_secs(5)).await;
        } else {
            sqlite_by_hand(&pool).await;
        }
        let rate = rows as f64 / began.elapsed().as_secs_f64();
        let base = *base.get_or_insert(rate);
        let name = if by_relay {
            "relay"
        } else {
            "SELECT, DELETE by hand"
        };
        println!("{name:<44}{rate:>12.0}{:>8.2}", rate / base);
    }
    pool.close().await;
    std::fs::remove_dir_all(folder).unwrap();
}

async fn sqlite_by_hand(pool: &SqlitePool) {
    loop {
        let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let rows = sqlx::query(
            "SELECT id, lane, event_id, source, type, topic, subject, time, content_type, key, headers, payload
             FROM mainstay_outbox_message ORDER BY id LIMIT 1000",
        )
        .fetch_all(&mut *tx)
        .await
        .unwrap();
        if rows.is_empty() {
            return;
        }
        let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        sqlx::query(
            "DELETE FROM mainstay_outbox_message WHERE id IN (SELECT value FROM json_each(?1))",
        )
        .bind(serde_json::to_string(&ids).unwrap())
        .execute(&mut *tx)
        .await
        .unwrap();
        tx.commit().await.unwrap();
    }
}
