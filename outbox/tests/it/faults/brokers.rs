//! A broker that dies under two relays and comes back: what holds whichever it is.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use mainstay_outbox::{
    Admin, LaneRef, Message, Outcome, Outcomes, RelayStats, Sink, SinkDown,
    sink::cloudevents::Received,
};
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
    /// Why messages were charged an attempt. Finding the broker down is no reason.
    pub charged: Vec<String>,
    /// The most messages that were on the wire at once.
    pub window: u64,
}

/// Takes note of what the sink makes of messages that are to be tried again.
#[derive(Clone)]
struct Noting<S> {
    sink: S,
    charged: Arc<Mutex<Vec<String>>>,
}

impl<S: Sink> Sink for Noting<S> {
    async fn publish(&self, lane: LaneRef, batch: &[Message]) -> Result<Outcomes, SinkDown> {
        let outcomes = self.sink.publish(lane, batch).await?;
        for outcome in &outcomes {
            if let Outcome::Retry { reason, .. } = outcome {
                self.charged
                    .lock()
                    .unwrap()
                    .push(reason.as_str().to_owned());
            }
        }
        Ok(outcomes)
    }
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
    let sink = Noting {
        sink,
        charged: Arc::default(),
    };
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
    assert_eq!(sum(|of| of.fenced), 0, "no lane changed hands");
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
        charged: sink.charged.lock().unwrap().clone(),
        window: u64::from(BATCH) * u64::from(LANES),
    };
    println!("{outages:?}, {faults} faults; drained in {drained:?}");
    outages
}
