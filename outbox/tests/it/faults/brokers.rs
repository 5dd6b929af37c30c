//! A broker that dies under two relays and comes back: what holds whichever it is.

use std::time::Duration;

use mainstay_outbox::{Admin, RelayStats, Sink, sink::cloudevents::Received};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    processes::{
        broker::Arrival,
        oracle::{Verdict, judge},
        writers::Writers,
    },
    support::{outbox, quick, sqlite, until},
};

const LANES: u16 = 8;
const BATCH: u32 = 10;
const SOON: Duration = Duration::from_secs(30);

/// How long a broker stays dead, if coming back does not take it long enough: many probes find it down.
#[cfg(any(feature = "nats", feature = "redis"))]
pub const AWAY: Duration = Duration::from_millis(200);

/// What came of an outage, or of many.
#[derive(Debug)]
pub struct Outages {
    pub verdict: Verdict,
    /// Failed attempts. Finding the broker down is none.
    pub charged: u64,
    /// The most messages that were on the wire at once.
    pub window: u64,
}

/// Writers write, two relays publish to `sink`, and `fault` happens `faults` times, each in the middle of things. In the end
/// `arrived` says what the broker has, in its order.
///
/// Asserts what holds whatever was killed: all that committed is there and nothing else, each key's first copies are in
/// order, nothing died, the writers noticed nothing.
#[expect(clippy::print_stdout, reason = "what kind of storm it was")]
pub async fn outages<S: Sink + Clone>(
    sink: S,
    faults: usize,
    mut fault: impl AsyncFnMut(usize),
    arrived: impl AsyncFnOnce() -> Vec<Received>,
) -> Outages {
    let database = sqlite().await;
    let pool = &database.pool;
    let outbox = outbox(pool, LANES).await;
    let mut relays = Vec::new();
    for _ in 0..2 {
        let relay = quick(pool, &outbox)
            .batch(BATCH)
            .lease(Duration::from_secs(60))
            .max_attempts(3)
            .sink("*", sink.clone());
        relays.push(relay.build().await.unwrap().spawn(CancellationToken::new()));
    }
    let sum =
        |of: fn(&RelayStats) -> u64| relays.iter().map(|relay| of(&relay.stats())).sum::<u64>();
    let writers = Writers::start(pool, &outbox);
    for round in 0..faults {
        let more = sum(|of| of.delivered) + 60 + round as u64 % 7 * 10;
        until("more is delivered", async || sum(|of| of.delivered) >= more).await;
        fault(round).await;
    }
    let more = sum(|of| of.delivered) + 60;
    until("it goes on", async || sum(|of| of.delivered) >= more).await;
    let committed = writers.stop().await;
    let admin = Admin::new(pool.clone());
    let stopped = Instant::now();
    until("all is delivered", async || {
        admin.lag().await.unwrap().pending == 0
    })
    .await;
    let drained = stopped.elapsed();
    let (charged, fenced) = (sum(|of| of.retried), sum(|of| of.fenced));
    assert_eq!(fenced, 0, "no lane changed hands");
    for relay in relays {
        assert_eq!(relay.drain(SOON).await.unsettled, 0);
    }
    assert_eq!(admin.verify().await.unwrap(), []);
    assert_eq!(admin.lag().await.unwrap().dead, 0);

    let arrivals: Vec<Arrival> = arrived()
        .await
        .iter()
        .map(|event| (event.id().to_owned(), event.subject().unwrap().to_owned()))
        .collect();
    let outages = Outages {
        verdict: judge(&committed, &arrivals, &std::collections::HashSet::new()),
        charged,
        window: u64::from(BATCH) * u64::from(LANES),
    };
    println!("{outages:?}, {faults} faults; drained in {drained:?}");
    outages
}
