//! What the outbox costs on MariaDB or MySQL, beside the same SQL by hand in the same run, contestants in turn; medians.
//!
//! - enqueueing one event, and a hundred in one statement, beside INSERTs into a table of the same shape;
//! - draining with one relay (64 lanes, batches of 1000, a sink that does nothing) beside SELECT .. SKIP LOCKED and DELETE of
//!   a thousand rows, which keeps no order, from a table whose primary key is the id; then both again while somebody holds a
//!   snapshot, and while a transaction that enqueued is left open.
//!
//! `MAINSTAY_TEST_MARIADB_URL=... cargo bench -p mainstay-outbox --features mysql --bench mariadb`; `MAINSTAY_BENCH_ROWS` is how
//! many are drained.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a program that measures"
)]

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mainstay_outbox::{
    Event, LaneRef, Message, Outbox, OutboxConfig, Outcome, Outcomes, Relay, Sink, SinkDown,
    migrate,
};
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use sqlx::{AssertSqlSafe, Connection, MySql, MySqlConnection, MySqlPool};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const ROUNDS: usize = 7;
const SINGLES: usize = 1_000;
const HUNDREDS: usize = 50;
const PAYLOAD: [u8; 300] = [b'x'; 300];

/// The columns that a hand-written outbox of this kind needs; the lane is worked out by the program.
fn table(name: &str, keys: &str) -> String {
    format!(
        "CREATE TABLE {name} (
             lane INT NOT NULL, id BIGINT NOT NULL AUTO_INCREMENT, event_id BINARY(16) NOT NULL, source VARCHAR(255) NOT NULL,
             type VARCHAR(255) NOT NULL, topic VARBINARY(255) NOT NULL, subject VARCHAR(1024), time DATETIME(6) NOT NULL,
             content_type VARCHAR(255), `key` VARBINARY(1024), headers MEDIUMTEXT NOT NULL, payload LONGBLOB NOT NULL,
             enqueued_at DATETIME(6) NOT NULL DEFAULT (utc_timestamp(6)), attempts INT NOT NULL DEFAULT 0, {keys}
         ) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    )
}

/// With the keys of the library's table, to enqueue into.
const SAME_SHAPE: &str = "same_shape";

/// With the key that a queue without lanes has, to drain: of a table of lanes `ORDER BY id` would sort and lock every row.
const QUEUE: &str = "queue_by_hand";

#[tokio::main]
async fn main() {
    let Ok(url) = std::env::var("MAINSTAY_TEST_MARIADB_URL") else {
        return println!("set MAINSTAY_TEST_MARIADB_URL to measure");
    };
    let rows = std::env::var("MAINSTAY_BENCH_ROWS").map_or(64_000, |n| n.parse().unwrap());
    let name = format!("mainstay_bench_{}", Uuid::now_v7().simple());
    let mut conn = MySqlConnection::connect(&url).await.unwrap();
    let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::raw_sql(create).execute(&mut conn).await.unwrap();
    let options: MySqlConnectOptions = url.parse().unwrap();
    // Without the pool's pings, which would be as many round trips again for every contestant.
    let pool = MySqlPoolOptions::new()
        .max_connections(8)
        .test_before_acquire(false)
        .connect_with(options.database(&name))
        .await
        .unwrap();
    migrate(&pool).await.unwrap();
    for (name, keys) in [
        (SAME_SHAPE, "PRIMARY KEY (lane, id), KEY (id)"),
        (QUEUE, "PRIMARY KEY (id)"),
    ] {
        let create = AssertSqlSafe(table(name, keys));
        sqlx::raw_sql(create).execute(&pool).await.unwrap();
    }
    let world = World {
        outbox: Outbox::new(OutboxConfig::default().source("/bench")),
        pool: pool.clone(),
    };
    let mut report = String::new();
    world.enqueueing(&mut report).await;
    for (what, hold) in [
        ("quiet", None),
        (
            "a held snapshot",
            Some("START TRANSACTION WITH CONSISTENT SNAPSHOT"),
        ),
        ("an open writer", Some("START TRANSACTION")),
    ] {
        world.draining(&mut report, what, hold, rows).await;
    }
    println!("{report}");
    pool.close().await;
    let drop = AssertSqlSafe(format!("DROP DATABASE {name}"));
    sqlx::raw_sql(drop).execute(&mut conn).await.unwrap();
}

struct World {
    outbox: Outbox<MySql>,
    pool: MySqlPool,
}

impl World {
    async fn enqueueing(&self, report: &mut String) {
        let mut times: [Vec<Duration>; 4] = Default::default();
        for _ in 0..ROUNDS {
            let began = Instant::now();
            for n in 0..SINGLES {
                let mut tx = self.pool.begin().await.unwrap();
                by_hand(&mut tx, SAME_SHAPE, n, 1).await;
                tx.commit().await.unwrap();
            }
            times[0].push(began.elapsed());
            let began = Instant::now();
            for n in 0..SINGLES {
                let mut tx = self.pool.begin().await.unwrap();
                self.outbox.enqueue(&mut tx, event(n)).await.unwrap();
                tx.commit().await.unwrap();
            }
            times[1].push(began.elapsed());
            let began = Instant::now();
            for n in 0..HUNDREDS {
                let mut tx = self.pool.begin().await.unwrap();
                by_hand(&mut tx, SAME_SHAPE, n * 100, 100).await;
                tx.commit().await.unwrap();
            }
            times[2].push(began.elapsed());
            let began = Instant::now();
            for n in 0..HUNDREDS {
                let mut tx = self.pool.begin().await.unwrap();
                let events = (0..100).map(|m| event(n * 100 + m));
                self.outbox.enqueue_many(&mut tx, events).await.unwrap();
                tx.commit().await.unwrap();
            }
            times[3].push(began.elapsed());
            self.empty().await;
        }
        let [hand, ours, many_hand, many_ours] = times.map(median);
        writeln!(
            report,
            "enqueue one: {:.1} us by hand, {:.1} us here: {:.2} times the time",
            micros(hand, SINGLES),
            micros(ours, SINGLES),
            ours.as_secs_f64() / hand.as_secs_f64()
        )
        .unwrap();
        writeln!(
            report,
            "enqueue 100 in one: {:.2} us an event by hand, {:.2} us here: {:.2} of its speed",
            micros(many_hand, HUNDREDS * 100),
            micros(many_ours, HUNDREDS * 100),
            many_hand.as_secs_f64() / many_ours.as_secs_f64()
        )
        .unwrap();
    }

    async fn draining(
        &self,
        report: &mut String,
        what: &str,
        hold: Option<&'static str>,
        rows: usize,
    ) {
        let (mut raw, mut relay) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            self.fill_by_hand(rows).await;
            let held = self.hold(hold).await;
            raw.push(self.drain_by_hand(rows).await);
            let_go(held).await;
            self.empty().await;

            self.fill(rows).await;
            let held = self.hold(hold).await;
            relay.push(self.drain(rows).await);
            let_go(held).await;
            self.empty().await;
        }
        let per_second = |time: Duration| rows as f64 / time.as_secs_f64();
        let (raw, relay) = (per_second(median(raw)), per_second(median(relay)));
        writeln!(
            report,
            "drain of {rows}, {what}: {raw:.0} rows/s by hand, {relay:.0} here: {:.2} of its speed",
            relay / raw
        )
        .unwrap();
    }

    /// Leaves a transaction open: one that has looked, or one that has enqueued, in either way.
    async fn hold(&self, begin: Option<&'static str>) -> Option<MySqlConnection> {
        let begin = begin?;
        let mut conn = self.pool.acquire().await.unwrap().detach();
        sqlx::raw_sql(begin).execute(&mut conn).await.unwrap();
        if !begin.ends_with("SNAPSHOT") {
            self.outbox.enqueue(&mut conn, event(0)).await.unwrap();
            by_hand(&mut conn, QUEUE, 0, 1).await;
        }
        Some(conn)
    }

    /// Every statement walks a range of the primary key and meets no row but those it takes. The ORDER BY and LIMIT of the
    /// DELETE are for that: without them MariaDB walks the whole table where most of it is to go, which is seen of the last
    /// batches, and waits at the row of an open writer until that is refused (error 1205, after 50 s by default).
    async fn drain_by_hand(&self, rows: usize) -> Duration {
        let began = Instant::now();
        let mut gone = 0;
        while gone < rows {
            let mut tx = self.pool.begin().await.unwrap();
            let taken: Vec<(i64, Vec<u8>, Vec<u8>)> = sqlx::query_as(
                "SELECT id, event_id, payload FROM queue_by_hand ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED",
            )
            .fetch_all(&mut *tx)
            .await
            .unwrap();
            let ids: Vec<String> = taken.iter().map(|(id, ..)| id.to_string()).collect();
            let delete = format!(
                "DELETE FROM queue_by_hand WHERE id IN ({}) ORDER BY id LIMIT {}",
                ids.join(","),
                ids.len()
            );
            let deleted = sqlx::raw_sql(AssertSqlSafe(delete))
                .execute(&mut *tx)
                .await
                .unwrap();
            assert_eq!(deleted.rows_affected(), taken.len() as u64);
            tx.commit().await.unwrap();
            gone += taken.len();
        }
        began.elapsed()
    }

    async fn drain(&self, rows: usize) -> Duration {
        let sink = Count::default();
        let relay = Relay::builder(self.pool.clone())
            .outbox(&self.outbox)
            .batch(1_000)
            .sink("*", sink.clone())
            .build()
            .await
            .unwrap();
        let began = Instant::now();
        let relay = relay.spawn(CancellationToken::new());
        while sink.0.load(Ordering::Relaxed) < rows as u64 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        relay.drain(Duration::from_secs(30)).await;
        began.elapsed()
    }

    async fn fill_by_hand(&self, rows: usize) {
        for n in (0..rows).step_by(1_000) {
            let mut tx = self.pool.begin().await.unwrap();
            by_hand(&mut tx, QUEUE, n, 1_000.min(rows - n)).await;
            tx.commit().await.unwrap();
        }
    }

    async fn fill(&self, rows: usize) {
        for n in (0..rows).step_by(1_000) {
            let mut tx = self.pool.begin().await.unwrap();
            let events = (n..(n + 1_000).min(rows)).map(event);
            self.outbox.enqueue_many(&mut tx, events).await.unwrap();
            tx.commit().await.unwrap();
        }
    }

    async fn empty(&self) {
        sqlx::raw_sql(
            "TRUNCATE mainstay_outbox_message; TRUNCATE same_shape; TRUNCATE queue_by_hand",
        )
        .execute(&self.pool)
        .await
        .unwrap();
    }
}

/// Ends what `hold` left open; what is dropped may stand in the way of the next statement for a while.
async fn let_go(held: Option<MySqlConnection>) {
    if let Some(held) = held {
        held.close().await.unwrap();
    }
}

fn event(n: usize) -> Event {
    Event::new("payment.created")
        .topic("payments")
        .key(format!("order-{}", n % 10_000))
        .bytes("application/json", &PAYLOAD[..])
}

async fn by_hand(conn: &mut MySqlConnection, table: &str, n: usize, rows: usize) {
    let mut sql = format!(
        "INSERT INTO {table} (lane, event_id, source, type, topic, subject, time, content_type, `key`, headers, payload)
         VALUES (?, ?, ?, ?, ?, ?, coalesce(?, utc_timestamp(6)), ?, ?, ?, ?)",
    );
    for _ in 1..rows {
        sql.push_str(", (?, ?, ?, ?, ?, ?, coalesce(?, utc_timestamp(6)), ?, ?, ?, ?)");
    }
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for row in n..n + rows {
        query = query
            .bind((row % 64) as i32)
            .bind(Uuid::now_v7())
            .bind("/bench")
            .bind("payment.created")
            .bind("payments")
            .bind(None::<String>)
            .bind(None::<String>)
            .bind("application/json")
            .bind(format!("order-{}", row % 10_000).into_bytes())
            .bind("[]")
            .bind(&PAYLOAD[..]);
    }
    query.execute(conn).await.unwrap();
}

/// Counts, and says at once that all is well.
#[derive(Clone, Default)]
struct Count(Arc<AtomicU64>);

impl Sink for Count {
    async fn publish(&self, _lane: LaneRef, batch: &[Message]) -> Result<Outcomes, SinkDown> {
        self.0.fetch_add(batch.len() as u64, Ordering::Relaxed);
        Ok(batch.iter().map(|_| Outcome::Acked).collect())
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn micros(time: Duration, of: usize) -> f64 {
    time.as_secs_f64() * 1e6 / of as f64
}
