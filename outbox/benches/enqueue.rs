//! What producing costs beside the same work by hand, on one server and in one run: rounds in turn, medians and ratios.
//!
//! `MAINSTAY_TEST_POSTGRES_URL=.. cargo bench -p mainstay-outbox --features postgres --bench enqueue`
//! `MAINSTAY_BENCH_ROUNDS` (15) and `MAINSTAY_BENCH_SECONDS` (2, of each round of writers and of the latencies) make it
//! longer or shorter; words after `--` choose parts by name: `one`, `many`, `wake`, `latency`.

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
    collections::HashMap,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use mainstay_outbox::{
    Event, LaneRef, Message, Ordering, Outbox, OutboxConfig, Outcomes, Relay, Sink, SinkDown,
    migrate,
};
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, PgPool, Postgres,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Statements of one round.
const BLOCK: usize = 500;
/// Events in one statement.
const MANY: usize = 100;
const WRITERS: usize = 32;
/// Where the other process is told its database.
const CHILD: &str = "MAINSTAY_BENCH_CHILD_URL";

fn number(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn rounds() -> u64 {
    number("MAINSTAY_BENCH_ROUNDS", 15)
}

fn span() -> Duration {
    Duration::from_secs(number("MAINSTAY_BENCH_SECONDS", 2))
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn outbox() -> Outbox<Postgres> {
    Outbox::new(OutboxConfig::default().source("/orders"))
}

fn event(key: u64) -> Event {
    Event::new("order.placed")
        .topic("orders")
        .key(key.to_be_bytes())
        .bytes("application/json", vec![b'7'; 200])
}

/// The row that `event` becomes, written by somebody who knows the number of lanes.
async fn by_hand(conn: &mut PgConnection, key: u64) {
    sqlx::query(
        "INSERT INTO mainstay_outbox_message
             (lane, event_id, source, type, topic, time, content_type, key, headers, payload)
         VALUES ($1, $2, $3, $4, $5, clock_timestamp(), $6, $7, $8, $9)",
    )
    .bind((key % 64) as i32)
    .bind(Uuid::now_v7())
    .bind("/orders")
    .bind("order.placed")
    .bind("orders")
    .bind("application/json")
    .bind(key.to_be_bytes().to_vec())
    .bind("[]")
    .bind(vec![b'7'; 200])
    .execute(conn)
    .await
    .unwrap();
}

async fn many_by_hand(conn: &mut PgConnection, first: u64) {
    let keys = first..first + MANY as u64;
    let texts = |text: &str| vec![text.to_owned(); MANY];
    sqlx::query(
        "INSERT INTO mainstay_outbox_message
             (lane, event_id, source, type, topic, time, content_type, key, headers, payload)
         SELECT lane, event_id, $3, type, topic, clock_timestamp(), content_type, key, headers, payload
         FROM unnest($1::integer[], $2::uuid[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::text[], $9::bytea[])
             AS u(lane, event_id, type, topic, content_type, key, headers, payload)",
    )
    .bind(keys.clone().map(|key| (key % 64) as i32).collect::<Vec<_>>())
    .bind(keys.clone().map(|_| Uuid::now_v7()).collect::<Vec<_>>())
    .bind("/orders")
    .bind(texts("order.placed"))
    .bind(texts("orders"))
    .bind(texts("application/json"))
    .bind(keys.map(|key| key.to_be_bytes().to_vec()).collect::<Vec<_>>())
    .bind(texts("[]"))
    .bind(vec![vec![b'7'; 200]; MANY])
    .execute(conn)
    .await
    .unwrap();
}

/// Microseconds a statement, of a block of them in one transaction.
async fn block(
    conn: &mut PgConnection,
    n: usize,
    mut statement: impl AsyncFnMut(&mut PgConnection, u64),
) -> f64 {
    let mut tx = conn.begin().await.unwrap();
    let before = Instant::now();
    for key in 0..n {
        statement(&mut tx, key as u64).await;
    }
    let took = before.elapsed();
    tx.commit().await.unwrap();
    took.as_secs_f64() * 1e6 / n as f64
}

async fn one(pool: &PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let outbox = outbox();
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..rounds() {
        times[0].push(block(&mut conn, BLOCK, by_hand).await);
        let plain = block(&mut conn, BLOCK, async |conn, key| {
            outbox.enqueue(conn, event(key)).await.unwrap();
        });
        times[1].push(plain.await);
        let strict = block(&mut conn, BLOCK, async |conn, key| {
            let event = event(key).ordering(Ordering::PerKeyStrict);
            outbox.enqueue(conn, event).await.unwrap();
        });
        times[2].push(strict.await);
    }
    let [hand, plain, strict] = times.map(median);
    println!(
        "one: by hand {hand:.1} us, enqueue {plain:.1} us ({:.3}x), strict {strict:.1} us ({:.3}x)",
        plain / hand,
        strict / hand
    );
}

async fn many(pool: &PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let outbox = outbox();
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..rounds() {
        times[0].push(block(&mut conn, BLOCK / 10, many_by_hand).await);
        let plain = block(&mut conn, BLOCK / 10, async |conn, key| {
            let events = (key..key + MANY as u64).map(event);
            outbox.enqueue_many(conn, events).await.unwrap();
        });
        times[1].push(plain.await);
        let strict = block(&mut conn, BLOCK / 10, async |conn, key| {
            let events = (key..key + MANY as u64).map(event);
            let events = events.map(|event| event.ordering(Ordering::PerKeyStrict));
            outbox.enqueue_many(conn, events).await.unwrap();
        });
        times[2].push(strict.await);
    }
    let [hand, plain, strict] = times.map(median);
    println!(
        "many: {MANY} in one by hand {hand:.0} us, enqueue_many {plain:.0} us ({:.3} of its speed), strict {strict:.0} us ({:.3})",
        hand / plain,
        hand / strict
    );
}

/// Transactions a second of writers that each do nothing but enqueue and commit.
async fn writers(pool: &PgPool, outbox: &Outbox<Postgres>, notify: bool) -> f64 {
    let until = Instant::now() + span();
    let mut tasks = Vec::new();
    for writer in 0..WRITERS {
        let (pool, outbox) = (pool.clone(), outbox.clone());
        tasks.push(tokio::spawn(async move {
            let mut conn = pool.acquire().await.unwrap();
            let mut commits = 0u32;
            while Instant::now() < until {
                let mut tx = conn.begin().await.unwrap();
                outbox.enqueue(&mut tx, event(writer as u64)).await.unwrap();
                if notify {
                    sqlx::query("NOTIFY somebody")
                        .execute(&mut *tx)
                        .await
                        .unwrap();
                }
                tx.commit().await.unwrap();
                outbox.waker().notify_after_commit();
                commits += 1;
            }
            commits
        }));
    }
    let mut commits = 0;
    for task in tasks {
        commits += task.await.unwrap();
    }
    f64::from(commits) / span().as_secs_f64()
}

async fn wake(pool: &PgPool) {
    let mut rates = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..rounds().div_ceil(3) {
        rates[0].push(writers(pool, &outbox(), false).await);
        let announced = outbox();
        let announcer = announced.announce(pool.clone());
        rates[1].push(writers(pool, &announced, false).await);
        drop(announcer);
        rates[2].push(writers(pool, &outbox(), true).await);
    }
    let [none, announced, inside] = rates.map(median);
    println!(
        "wake: {WRITERS} writers {none:.0} tx/s, announced {announced:.0} ({:.3}), NOTIFY inside {inside:.0} ({:.3})",
        announced / none,
        inside / none
    );
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_micros() as u64
}

/// When each message arrived.
#[derive(Clone, Default)]
struct Arrivals(Arc<Mutex<HashMap<Uuid, u64>>>);

impl Sink for Arrivals {
    async fn publish(&self, _: LaneRef, batch: &[Message]) -> Result<Outcomes, SinkDown> {
        let at = now();
        let arrived = batch.iter().map(|message| (message.id().as_uuid(), at));
        self.0.lock().unwrap().extend(arrived);
        Ok(Outcomes::all_acked(batch.len()))
    }
}

/// The other process: a thousand commits a second, announced; then says when each had committed.
async fn produce(url: &str) {
    let pool = PgPoolOptions::new()
        .max_connections(8)
        .connect(url)
        .await
        .unwrap();
    let outbox = outbox();
    let _announcer = outbox.announce(pool.clone());
    let committed = Arc::new(Mutex::new(Vec::new()));
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    let mut tasks = tokio::task::JoinSet::new();
    for key in 0..span().as_millis() as u64 {
        ticks.tick().await;
        let (pool, outbox, committed) = (pool.clone(), outbox.clone(), Arc::clone(&committed));
        tasks.spawn(async move {
            let mut tx = pool.begin().await.unwrap();
            let id = outbox.enqueue(&mut tx, event(key)).await.unwrap();
            tx.commit().await.unwrap();
            let at = now();
            outbox.waker().notify_after_commit();
            committed.lock().unwrap().push((id, at));
        });
    }
    tasks.join_all().await;
    for (id, at) in committed.lock().unwrap().iter() {
        println!("{id} {at}");
    }
}

async fn latency(pool: &PgPool, url: &str) {
    let sink = Arrivals::default();
    let relay = Relay::builder(pool.clone())
        .listen()
        .sink("*", sink.clone());
    let relay = relay.build().await.unwrap().spawn(CancellationToken::new());
    let child = Command::new(std::env::current_exe().unwrap())
        .env(CHILD, url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap());
    let said = String::from_utf8(said.await.unwrap().stdout).unwrap();
    let commits: Vec<(Uuid, u64)> = said
        .lines()
        .map(|line| {
            let (id, at) = line.split_once(' ').unwrap();
            (id.parse().unwrap(), at.parse().unwrap())
        })
        .collect();
    while sink.0.lock().unwrap().len() < commits.len() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    relay.drain(Duration::from_secs(5)).await;
    let arrived = sink.0.lock().unwrap();
    // Published before the producer had its answer: no wait at all.
    let mut waits: Vec<u64> = commits
        .iter()
        .map(|(id, at)| arrived[id].saturating_sub(*at))
        .collect();
    waits.sort_unstable();
    let at = |part: f64| waits[((waits.len() - 1) as f64 * part) as usize] as f64 / 1e3;
    println!(
        "latency: {} commits of another process, to publish p50 {:.1} ms, p90 {:.1}, p99 {:.1}, most {:.1}",
        waits.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        if let Ok(url) = std::env::var(CHILD) {
            return produce(&url).await;
        }
        let words: Vec<String> = std::env::args()
            .skip(1)
            .filter(|word| !word.starts_with('-'))
            .collect();
        let wanted = |part: &str| words.is_empty() || words.iter().any(|word| word == part);
        let server =
            std::env::var("MAINSTAY_TEST_POSTGRES_URL").expect("MAINSTAY_TEST_POSTGRES_URL");
        let name = format!("bench_{}", Uuid::now_v7().simple());
        let mut admin = PgConnection::connect(&server).await.unwrap();
        let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(create).execute(&mut admin).await.unwrap();
        let options: PgConnectOptions = server.parse().unwrap();
        let options = options.database(&name);
        let pool = PgPoolOptions::new()
            .max_connections(WRITERS as u32 + 2)
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .unwrap();
        migrate(&pool).await.unwrap();
        if wanted("one") {
            one(&pool).await;
        }
        if wanted("many") {
            many(&pool).await;
        }
        if wanted("wake") {
            wake(&pool).await;
        }
        if wanted("latency") {
            sqlx::raw_sql("TRUNCATE mainstay_outbox_message")
                .execute(&pool)
                .await
                .unwrap();
            let (base, _) = server.rsplit_once('/').unwrap();
            latency(&pool, &format!("{base}/{name}")).await;
        }
        pool.close().await;
        let drop = AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
        sqlx::raw_sql(drop).execute(&mut admin).await.unwrap();
    });
}
