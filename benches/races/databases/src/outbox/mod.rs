//! The outbox on Postgres: what is waiting is drained into a sink that does nothing, and what is enqueued in a business
//! transaction is beside that transaction alone.

mod enqueue;
mod latency;
mod ours;
mod peers;
mod raw;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use results::Measure;
use tokio::sync::Notify;

use crate::servers::Postgres;
use crate::turns::{Work, median};

pub use latency::{CHILD, child};

/// As a small event is.
pub const PAYLOAD_BYTES: usize = 120;

pub fn payload(number: u64) -> serde_json::Value {
    serde_json::json!({ "n": number, "pad": "x".repeat(PAYLOAD_BYTES - 20) })
}

/// What has arrived, and a wait for so many.
#[derive(Clone, Default)]
pub struct Arrived(Arc<(AtomicU64, AtomicU64, Notify)>);

impl Arrived {
    pub fn add(&self, count: u64) {
        let now = self.0.0.fetch_add(count, Ordering::Relaxed) + count;
        if now >= self.0.1.load(Ordering::Relaxed) {
            self.0.2.notify_one();
        }
    }

    fn so_far(&self) -> u64 {
        self.0.0.load(Ordering::Relaxed)
    }

    /// Waits for so many; false where they do not come within the time.
    pub async fn wait(&self, count: u64, most: Duration) -> bool {
        self.0.1.store(count, Ordering::Relaxed);
        let all = async {
            while self.so_far() < count {
                self.0.2.notified().await;
            }
        };
        tokio::time::timeout(most, all).await.is_ok()
    }
}

/// Fills a new database with so many messages, and runs until so many have arrived.
pub struct Drain {
    pub name: &'static str,
    /// Slow ones are given fewer.
    pub messages: u64,
    pub fill: fn(&Postgres, u64) -> Work<()>,
    pub run: fn(&Postgres, Arrived) -> Work<()>,
}

impl Drain {
    /// Messages a second: the first `of` of `messages` that wait.
    async fn rate(&self, messages: u64, of: u64) -> Option<f64> {
        let database = Postgres::create().await?;
        (self.fill)(&database, messages).await;
        let rate = self.drain(&database, of, Duration::ZERO).await;
        database.drop().await;
        Some(rate)
    }

    /// What has arrived is not settled yet: the worker has this long for that, which does not count.
    async fn drain(&self, database: &Postgres, of: u64, settling: Duration) -> f64 {
        let arrived = Arrived::default();
        let worker = tokio::spawn((self.run)(database, arrived.clone()));
        let start = Instant::now();
        let all = arrived.wait(of, Duration::from_secs(60)).await;
        let rate = arrived.so_far().min(of) as f64 / start.elapsed().as_secs_f64();
        if !all {
            println!(
                "  {}: only {} of {of} in a minute",
                self.name,
                arrived.so_far()
            );
        }
        tokio::time::sleep(settling).await;
        worker.abort();
        let _ = worker.await;
        rate
    }
}

const SETTLING: Duration = Duration::from_secs(1);

pub async fn race(quick: bool) {
    match Postgres::create().await {
        Some(database) => database.drop().await,
        None => return,
    }
    let rounds = if quick { 3 } else { 5 };
    let contestants = [
        raw::SELECT_DELETE_1000,
        raw::SELECT_DELETE_100,
        raw::LEASE_DELETE_1000,
        ours::BATCH_1000,
        ours::BATCH_100,
        peers::graphile::BATCHED,
        peers::outbox_postgres::BATCH_1000,
        peers::outbox_postgres::BATCH_100,
        peers::apalis::README,
        peers::sqlxmq::README,
    ];
    println!("drain, messages/s");
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); contestants.len()];
    for round in 0..rounds {
        for turn in 0..contestants.len() {
            let at = (turn + round) % contestants.len();
            let contestant = &contestants[at];
            if let Some(rate) = contestant
                .rate(contestant.messages, contestant.messages)
                .await
            {
                rates[at].push(rate);
            }
        }
    }
    for (contestant, rates) in contestants.iter().zip(&mut rates) {
        let (rate, spread) = median(rates);
        println!(
            "  {:<58} {rate:>10.0} {:>6.0} %",
            contestant.name,
            spread * 100.0
        );
        results::keep(Measure::new("drain", contestant.name, rate, "messages/s").spread(spread));
    }
    println!();
    backlog(quick).await;
    disturbed(quick, rounds).await;
    enqueue::race(quick).await;
    latency::race(quick).await;
}

/// The first ten thousand of what waits, by how much that is.
async fn backlog(quick: bool) {
    println!("drain by backlog, messages/s");
    let backlogs: &[u64] = if quick {
        &[10_000, 100_000]
    } else {
        &[10_000, 100_000, 1_000_000, 10_000_000]
    };
    let contestants = [
        ("raw SELECT + DELETE", raw::SELECT_DELETE_1000),
        ("mainstay", ours::BATCH_1000),
        ("outbox-postgres", peers::outbox_postgres::BATCH_1000),
    ];
    for &waiting in backlogs {
        // To fill is what takes long: the largest is measured once.
        let rounds = if waiting > 1_000_000 { 1 } else { 3 };
        for (name, contestant) in &contestants {
            if waiting > 1_000_000 && *name == "outbox-postgres" {
                continue;
            }
            let mut rates = Vec::new();
            for _ in 0..rounds {
                rates.extend(contestant.rate(waiting, 10_000).await);
            }
            let (rate, spread) = median(&mut rates);
            println!(
                "  {waiting:>9} waiting  {name:<40} {rate:>10.0} {:>6.0} %",
                spread * 100.0
            );
            let measure = Measure::new("drain by backlog", name, rate, "messages/s");
            results::keep(measure.at(waiting as f64).spread(spread));
        }
    }
    println!();
}

/// What a relay does while nothing disturbs it, under a snapshot that is held, and beside a writer that does not end;
/// with the statements it sends and what it adds to the log.
async fn disturbed(quick: bool, rounds: usize) {
    let messages = if quick { 50_000 } else { 200_000 };
    println!("relay of {messages} messages");
    let mut rates: Vec<(&str, Vec<f64>)> = Vec::new();
    for _ in 0..rounds.min(3) {
        for (name, contestant, disturbance) in [
            ("undisturbed", ours::BATCH_1000, None),
            (
                "under a held snapshot",
                ours::BATCH_1000,
                Some(raw::SNAPSHOT),
            ),
            (
                "beside a stray writer",
                ours::BATCH_1000,
                Some(raw::STRAY_WRITER),
            ),
            (
                "raw SELECT + DELETE, undisturbed",
                raw::SELECT_DELETE_1000,
                None,
            ),
            (
                "raw SELECT + DELETE, under a held snapshot",
                raw::SELECT_DELETE_1000,
                Some(raw::SNAPSHOT),
            ),
        ] {
            let database = Postgres::create().await.unwrap();
            (contestant.fill)(&database, messages).await;
            let held = match disturbance {
                Some(disturbance) => Some(raw::hold(&database, disturbance).await),
                None => None,
            };
            let before = database.log().await;
            let rate = contestant.drain(&database, messages, SETTLING).await;
            let log = (database.log().await - before) / messages as f64;
            drop(held);
            database.drop().await;
            match rates.iter_mut().find(|(known, _)| *known == name) {
                Some((_, rates)) => rates.push(rate),
                None => rates.push((name, vec![rate])),
            }
            let logs = match name {
                "undisturbed" => "log",
                "raw SELECT + DELETE, undisturbed" => "log, raw SELECT + DELETE",
                _ => continue,
            };
            if rates
                .iter()
                .any(|(known, rates)| *known == name && rates.len() == 1)
            {
                println!("  {name}: {log:.0} bytes of log a message");
                results::keep(Measure::new("relay", logs, log, "bytes/message"));
            }
        }
    }
    for (name, rates) in &mut rates {
        let (rate, spread) = median(rates);
        println!("  {name:<58} {rate:>10.0} {:>6.0} %", spread * 100.0);
        results::keep(Measure::new("relay", name, rate, "messages/s").spread(spread));
    }
    wire::count(messages).await;
    println!();
}
