//! From the end of COMMIT to the sink, at a thousand messages a second and after a rest.

use std::future::pending;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mainstay_outbox::{Event, LaneRef, Message, Outbox, Outcome, Outcomes, Relay, Sink, SinkDown};
use results::Measure;
use sqlx::postgres::{PgConnectOptions, PgListener};
use sqlx::{Connection, PgPool};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_util::sync::CancellationToken;

use super::{Arrived, ours, raw};
use crate::servers::Postgres;
use crate::turns::median;

/// The first argument of the other process.
pub const CHILD: &str = "relay-for-parent";
const A_SECOND: u64 = 1_000;

pub async fn race(quick: bool) {
    let messages = A_SECOND * if quick { 3 } else { 10 };
    println!("latency at {A_SECOND} a second, ms");
    one_process(messages).await;
    two_processes(messages).await;
    println!();
    idle(if quick { 40 } else { 150 }).await;
}

fn micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_micros() as u64
}

/// Keeps when each message came, by its number.
#[derive(Clone, Default)]
struct Clock {
    came: Arc<Mutex<Vec<(u64, u64)>>>,
    arrived: Arrived,
}

impl Sink for Clock {
    async fn publish(&self, _: LaneRef, batch: &[Message]) -> Result<Outcomes, SinkDown> {
        let now = micros();
        {
            let mut came = self.came.lock().unwrap();
            for message in batch {
                let number: u64 = std::str::from_utf8(message.payload())
                    .unwrap()
                    .parse()
                    .unwrap();
                came.push((number, now));
            }
        }
        self.arrived.add(batch.len() as u64);
        Ok(batch.iter().map(|_| Outcome::Acked).collect())
    }
}

/// Commits so many, evenly, and returns when each had.
async fn produce(pool: &PgPool, outbox: &Outbox<sqlx::Postgres>, messages: u64) -> Vec<u64> {
    let start = tokio::time::Instant::now();
    let mut tasks = Vec::new();
    for number in 0..messages {
        tokio::time::sleep_until(start + Duration::from_secs(1) * number as u32 / A_SECOND as u32)
            .await;
        let (pool, outbox) = (pool.clone(), outbox.clone());
        tasks.push(tokio::spawn(async move {
            let mut tx = pool.begin().await.unwrap();
            let event = Event::new("order.placed")
                .topic("orders")
                .key(format!("order-{}", number % 1_000));
            outbox
                .enqueue(&mut tx, event.json(&number).unwrap())
                .await
                .unwrap();
            tx.commit().await.unwrap();
            let committed = micros();
            outbox.waker().notify_after_commit();
            committed
        }));
    }
    let mut committed = Vec::with_capacity(tasks.len());
    for task in tasks {
        committed.push(task.await.unwrap());
    }
    committed
}

/// A message may come before its producer is told that it has committed.
fn keep(name: &str, table: &str, committed: &[u64], came: &[(u64, u64)]) {
    let mut waits: Vec<f64> = came
        .iter()
        .map(|(number, at)| at.saturating_sub(committed[*number as usize]) as f64 / 1_000.0)
        .collect();
    waits.sort_by(f64::total_cmp);
    assert!(waits.len() >= committed.len(), "all have come");
    for percent in [10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 100.0] {
        let at = (waits.len() as f64 * percent / 100.0).ceil() as usize;
        let wait = waits[at.clamp(1, waits.len()) - 1];
        results::keep(Measure::new("latency percentiles", name, wait, "ms").at(percent));
        if percent == 50.0 || percent == 99.0 {
            println!("  {name:<40} p{percent:<5} {wait:>8.2}");
            results::keep(Measure::new(table, &format!("p{percent}"), wait, "ms"));
        }
    }
}

async fn one_process(messages: u64) {
    let database = Postgres::create().await.unwrap();
    let pool = database.pool(16).await;
    mainstay_outbox::migrate(&pool).await.unwrap();
    let (outbox, clock) = (ours::outbox(), Clock::default());
    let cancel = CancellationToken::new();
    let relay = Relay::builder(pool.clone())
        .outbox(&outbox)
        .sink("*", clock.clone());
    let relay = relay.build().await.unwrap().spawn(cancel.clone());
    // Statements are prepared, lanes taken.
    produce(&pool, &outbox, 200).await;
    assert!(clock.arrived.wait(200, Duration::from_secs(30)).await);
    clock.came.lock().unwrap().clear();

    let committed = produce(&pool, &outbox, messages).await;
    assert!(
        clock
            .arrived
            .wait(200 + messages, Duration::from_secs(60))
            .await
    );
    let came = clock.came.lock().unwrap().clone();
    keep(
        "mainstay, one process, woken",
        "latency, one process",
        &committed,
        &came,
    );
    relay.drain(Duration::from_secs(5)).await;
    pool.close().await;
    database.drop().await;
}

async fn two_processes(messages: u64) {
    let database = Postgres::create().await.unwrap();
    let pool = database.pool(16).await;
    mainstay_outbox::migrate(&pool).await.unwrap();
    let outbox = ours::outbox();
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([CHILD, &database.url])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    produce(&pool, &outbox, 200).await;
    for _ in 0..200 {
        lines.next_line().await.unwrap().unwrap();
    }
    let reading = tokio::spawn(async move {
        let mut came = Vec::new();
        while came.len() < messages as usize {
            let line = lines.next_line().await.unwrap().unwrap();
            let (number, at) = line.split_once(' ').unwrap();
            came.push((number.parse().unwrap(), at.parse().unwrap()));
        }
        came
    });
    let committed = produce(&pool, &outbox, messages).await;
    let came: Vec<(u64, u64)> = tokio::time::timeout(Duration::from_secs(60), reading)
        .await
        .unwrap()
        .unwrap();
    keep(
        "mainstay, two processes, polled",
        "latency, two processes",
        &committed,
        &came,
    );
    child.kill().await.unwrap();
    pool.close().await;
    database.drop().await;
}

/// The other process: a relay that is woken by nobody. Writes each message's number and when it came.
pub async fn child(args: &[String]) {
    let [url] = args else {
        panic!("a URL");
    };
    let options: PgConnectOptions = url.parse().unwrap();
    let pool = PgPool::connect_with(options).await.unwrap();
    let relay = Relay::builder(pool).sink("*", Tell).build().await.unwrap();
    let _relay = relay.spawn(CancellationToken::new());
    pending::<()>().await;
}

struct Tell;

impl Sink for Tell {
    async fn publish(&self, _: LaneRef, batch: &[Message]) -> Result<Outcomes, SinkDown> {
        let now = micros();
        for message in batch {
            println!("{} {now}", std::str::from_utf8(message.payload()).unwrap());
        }
        Ok(batch.iter().map(|_| Outcome::Acked).collect())
    }
}

/// One message at a time after a rest, beside a listener that is notified after the commit and deletes what it claims.
async fn idle(messages: u64) {
    println!("idle wake, ms");
    let database = Postgres::create().await.unwrap();
    let pool = database.pool(6).await;
    mainstay_outbox::migrate(&pool).await.unwrap();
    sqlx::raw_sql(raw::TABLE).execute(&pool).await.unwrap();
    let (outbox, clock) = (ours::outbox(), Clock::default());
    let relay = Relay::builder(pool.clone())
        .outbox(&outbox)
        .sink("*", clock.clone());
    let relay = relay.build().await.unwrap().spawn(CancellationToken::new());
    let by_hand = Clock::default();
    let listener = tokio::spawn(listen(database.options.clone(), by_hand.clone()));
    tokio::time::sleep(Duration::from_millis(300)).await;

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for number in 0..messages {
        // Long enough that a relay has stopped looking every few milliseconds, and never in step with it.
        tokio::time::sleep(Duration::from_millis(60 + number * 7 % 41)).await;
        let mut tx = pool.begin().await.unwrap();
        let event = Event::new("order.placed")
            .topic("orders")
            .json(&number)
            .unwrap();
        outbox.enqueue(&mut tx, event).await.unwrap();
        tx.commit().await.unwrap();
        let committed = Instant::now();
        outbox.waker().notify_after_commit();
        assert!(
            clock
                .arrived
                .wait(number + 1, Duration::from_secs(10))
                .await
        );
        ours.push(committed.elapsed().as_secs_f64() * 1_000.0);

        tokio::time::sleep(Duration::from_millis(10)).await;
        let mut conn = pool.acquire().await.unwrap();
        let mut tx = conn.begin().await.unwrap();
        let insert = sqlx::query("INSERT INTO outbox (topic, payload) VALUES ('orders', $1)");
        insert.bind(&b"7"[..]).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        let committed = Instant::now();
        sqlx::query("SELECT pg_notify('race', '')")
            .execute(&mut *conn)
            .await
            .unwrap();
        assert!(
            by_hand
                .arrived
                .wait(number + 1, Duration::from_secs(10))
                .await
        );
        theirs.push(committed.elapsed().as_secs_f64() * 1_000.0);
    }
    for (name, waits) in [("by hand: LISTEN", &mut theirs), ("mainstay", &mut ours)] {
        let (wait, spread) = median(waits);
        println!("  {name:<40} {wait:>8.3} {:>6.0} %", spread * 100.0);
        results::keep(Measure::new("idle wake", name, wait, "ms").spread(spread));
    }
    println!();
    listener.abort();
    relay.drain(Duration::from_secs(5)).await;
    pool.close().await;
    database.drop().await;
}

async fn listen(options: PgConnectOptions, clock: Clock) {
    let pool = PgPool::connect_with(options).await.unwrap();
    let mut listener = PgListener::connect_with(&pool).await.unwrap();
    listener.listen("race").await.unwrap();
    loop {
        listener.recv().await.unwrap();
        let claimed = sqlx::query("DELETE FROM outbox WHERE id IN (SELECT id FROM outbox ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED) RETURNING payload")
            .fetch_all(&pool)
            .await
            .unwrap();
        clock.arrived.add(claimed.len() as u64);
    }
}
