//! Relays and writers over one database, while something happens to it again and again.

use std::{collections::HashSet, time::Duration};

use mainstay_outbox::{Admin, Filter, LaneRef, MemorySink, Message, Outcomes, Sink, SinkDown};
use sqlx::Pool;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::writers::{Ledger, Writers};
use crate::{
    processes::oracle::judge,
    support::{outbox, quick, until},
};

const RELAYS: usize = 3;
const LANES: u16 = 8;
const BATCH: u32 = 10;
const SOON: Duration = Duration::from_secs(30);

/// What is to hold of deliveries that are repeated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// Longer than the database is ever away: no lane changes hands, so nothing comes twice and no attempt is spent.
    Outlasts,
    /// Shorter: whoever comes back first takes the lanes, and what was in flight in them is charged and comes again.
    RunsOut,
}

impl Lease {
    pub const fn lasts(self) -> Duration {
        match self {
            Self::Outlasts => Duration::from_secs(60),
            Self::RunsOut => Duration::from_secs(1),
        }
    }
}

/// Takes its time, so that most lanes have a batch under way at any moment.
struct Slow(MemorySink);

impl Sink for Slow {
    async fn publish(&self, lane: LaneRef, batch: &[Message]) -> Result<Outcomes, SinkDown> {
        sleep(Duration::from_millis(15)).await;
        self.0.publish(lane, batch).await
    }
}

/// O1 to O5 and O12: whatever `fault` does, each time in the middle of things, what commits is delivered in the order of its
/// keys and nothing else is, nothing dies, and in the end all is settled and every lane is looked after.
#[expect(clippy::print_stdout, reason = "what kind of storm it was")]
pub async fn storm<Db: Ledger>(
    pool: &Pool<Db>,
    lease: Lease,
    faults: usize,
    mut fault: impl AsyncFnMut(usize),
) {
    let outbox = outbox(pool, LANES).await;
    Db::create(pool).await;
    let sink = MemorySink::new();
    let mut relays = Vec::new();
    for _ in 0..RELAYS {
        let relay = quick(pool, &outbox)
            .batch(BATCH)
            .lease(lease.lasts())
            .max_attempts(2 + u32::try_from(faults).unwrap())
            .sink("*", Slow(sink.clone()));
        relays.push(relay.build().await.unwrap().spawn(CancellationToken::new()));
    }
    let writers = Writers::start(pool, &outbox);
    for round in 0..faults {
        let more = sink.messages().len() + 60 + round % 7 * 10;
        let delivered = timeout(SOON, sink.wait_for(more)).await;
        assert!(delivered.is_ok(), "it stands still after {round} faults");
        fault(round).await;
    }
    let more = sink.messages().len() + 60;
    timeout(SOON, sink.wait_for(more))
        .await
        .expect("it goes on");
    let known = writers.stop().await.complete(pool).await;
    let admin = Admin::new(pool.clone());
    until("all is delivered", async || {
        admin.lag().await.is_ok_and(|lag| lag.pending == 0)
    })
    .await;
    until("every lane has a relay", async || {
        relays.iter().map(|relay| relay.stats().lanes).sum::<u64>() == u64::from(LANES)
    })
    .await;
    assert_eq!(admin.verify().await.unwrap(), []);
    assert!(admin.dead(Filter::all(), 1).await.unwrap().is_empty());
    for relay in relays {
        assert_eq!(relay.drain(SOON).await.unsettled, 0);
    }

    let messages = sink.messages();
    let arrivals: Vec<_> = messages
        .iter()
        .map(|of| (of.id().to_string(), of.subject().unwrap().to_owned()))
        .collect();
    let verdict = judge(&known.committed, &arrivals, &HashSet::new());
    let attempts = messages.iter().map(Message::attempt).max().unwrap_or(0);
    let [asked, came_to_pass] = known.unknown;
    println!(
        "{}: {verdict:?}, {faults} faults; {} failed, {} rolled back, {asked} commits unknown of which {came_to_pass} came \
         to pass; the most attempts were {attempts}",
        Db::NAME,
        known.failed,
        known.rolled_back
    );
    assert!(known.failed + asked > 0, "no writer noticed anything");
    match lease {
        Lease::Outlasts => assert_eq!((verdict.repeated, attempts), (0, 1)),
        Lease::RunsOut => {
            let window = BATCH as usize * usize::from(LANES);
            assert!(verdict.repeated <= faults * window, "{verdict:?}");
            assert!(attempts as usize <= 1 + faults);
        }
    }
}
