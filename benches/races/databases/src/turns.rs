//! Contestants in turn, each round another one first, so that a disturbance meets all of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use results::Measure;

pub type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The median and the distance of the quartiles as a share of it.
pub fn median(values: &mut [f64]) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |share: usize| values[(values.len() * share / 4).min(values.len() - 1)];
    (at(2), (at(3) - at(1)) / at(2))
}

/// Times what `each` does for a contestant, until there are enough rounds or, after some, no time left for it.
///
/// Medians in microseconds, and their spreads.
pub async fn timed<C, F: Future<Output = ()>>(
    contestants: &[C],
    rounds: usize,
    limit: Duration,
    mut each: impl FnMut(&C) -> F,
) -> Vec<(f64, f64)> {
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); contestants.len()];
    for round in 0..=rounds {
        for turn in 0..contestants.len() {
            let at = (turn + round) % contestants.len();
            let spent: f64 = times[at].iter().sum();
            if times[at].len() >= 9 && spent > limit.as_secs_f64() * 1e6 {
                continue;
            }
            // The first round warms up; and in each, the first call of a turn, which pays for what the neighbour has put out of the
            // caches: one that reads half a table would be paid for by the next.
            each(&contestants[at]).await;
            let start = Instant::now();
            each(&contestants[at]).await;
            if round > 0 {
                times[at].push(start.elapsed().as_secs_f64() * 1e6);
            }
        }
    }
    times.iter_mut().map(|times| median(times)).collect()
}

/// A contestant that many clients use at once: does one thing, given the number of it.
pub struct Client {
    pub name: &'static str,
    pub work: Arc<dyn Fn(u64) -> Work<()> + Send + Sync>,
}

impl Client {
    pub fn new<F>(name: &'static str, work: impl Fn(u64) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self {
            name,
            work: Arc::new(move |number| Box::pin(work(number))),
        }
    }
}

/// So many a second, by this many clients at once for so long, in each of some rounds.
pub async fn rates(
    title: &str,
    unit: &str,
    contestants: &[Client],
    clients: &[u32],
    length: Duration,
    rounds: usize,
) {
    println!("{title}, {unit}");
    let mut number = 0_u64;
    for &clients in clients {
        let mut rates: Vec<Vec<f64>> = vec![Vec::new(); contestants.len()];
        for round in 0..=rounds {
            for turn in 0..contestants.len() {
                let at = (turn + round) % contestants.len();
                // The first round warms up: statements are prepared once a connection.
                let length = if round == 0 { length / 4 } else { length };
                let (rate, used) = rate(&contestants[at], clients, length, number).await;
                number += used;
                if round > 0 {
                    rates[at].push(rate);
                }
            }
        }
        let medians: Vec<(f64, f64)> = rates.iter_mut().map(|rates| median(rates)).collect();
        for (contestant, (rate, spread)) in contestants.iter().zip(&medians) {
            println!(
                "  {clients:>3} clients {:<58} {rate:>10.0} {:>6.2} {:>6.0} %",
                contestant.name,
                rate / medians[0].0,
                spread * 100.0
            );
            results::keep(
                Measure::new(title, contestant.name, *rate, unit)
                    .at(f64::from(clients))
                    .spread(*spread),
            );
        }
    }
    println!();
}

/// Numbers from `first` on are given to the clients; how many were is returned as well.
async fn rate(contestant: &Client, clients: u32, length: Duration, first: u64) -> (f64, u64) {
    let next = Arc::new(std::sync::atomic::AtomicU64::new(first));
    let start = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (work, next) = (Arc::clone(&contestant.work), Arc::clone(&next));
            tokio::spawn(async move {
                while start.elapsed() < length {
                    work(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let used = next.load(std::sync::atomic::Ordering::Relaxed) - first;
    (used as f64 / start.elapsed().as_secs_f64(), used)
}
