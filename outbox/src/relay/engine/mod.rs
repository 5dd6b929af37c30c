//! The relay's loop: one task that alone talks to the database, one step at a time, while batches are published beside it.
//!
//! Its steps are lease, claim, settle and drain. Each is one atomic store operation whose repetition does no harm, so a step
//! that failed or whose outcome is unknown is simply done again after a wait; what is in memory stays until it is written.
//! This file is the loop itself; each step has a file of its own.

mod chores;
mod claim;
mod lanes;
mod marks;
mod settle;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use mainstay_retry::Backoff;
use sqlx::Pool;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::{Config, Drained, connections::Connections, publish::Published, route::Routes};
use crate::{
    TARGET,
    error::Error,
    mark::{Horizon, Layers},
    pattern::Pattern,
    sink::Lease,
    store::{Held, OutboxDb, Server, Settlement},
    telemetry::Tally,
};

/// The shortest wait between two looks: what a busy relay does without a wake.
const POLL_MIN: Duration = Duration::from_millis(5);

/// Topics remembered as shut; above it all are forgotten and learnt again.
const SHUT_TOPICS_MAX: usize = 10_000;

/// Waits between two tries while the database is away.
const DATABASE_BACKOFF: Backoff =
    Backoff::equal_jitter(Duration::from_millis(50), Duration::from_secs(5));

pub(super) struct Engine<Db: OutboxDb> {
    connections: Connections<Db>,
    relay: Uuid,
    config: Config,
    lanes_total: u16,
    routes: Routes,
    wake: Option<watch::Receiver<u64>>,
    tally: Arc<Tally>,
    lanes: BTreeMap<i32, Slot>,
    /// Where the last claim stopped, so that lanes are served in turn.
    cursor: i32,
    flight: Flight,
    shut: Shut,
    hints: Hints,
    marks: Marks,
    clock: Clock,
    database: Database,
    draining: Option<Instant>,
    handed_over: bool,
}

/// What sinks have, and what has come back from them.
#[derive(Default)]
struct Flight {
    publishing: JoinSet<Published>,
    /// The number of the batches that were recorded last.
    batch: i64,
    /// Messages in `publishing`.
    messages: usize,
    /// Their payloads' bytes.
    bytes: u64,
    /// What was begun last is to have nothing beside it until it has come back.
    solo: bool,
    /// Published and not yet written down.
    unsettled: Vec<Settlement>,
}

impl Flight {
    /// Messages whose outcome is not written down yet.
    fn open(&self) -> usize {
        self.messages + self.unsettled.iter().map(written).sum::<usize>()
    }
}

/// Which topics may not go.
#[derive(Default)]
struct Shut {
    /// Those whose sink was found down, or that are paused, as far as they have been met.
    met: BTreeSet<String>,
    /// Those that operators have paused.
    paused: Vec<Pattern>,
    /// Whether the last look sent a probe to a sink that was down.
    probed_last: bool,
    /// The lane after the one that the last probe was of.
    probe_from: i32,
    /// What this look gives nothing to, though it may have something.
    held: Holds,
}

/// What has to wait for another look, because it is the turn of what stands behind.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Holds {
    #[default]
    Nothing,
    Probes,
    /// Whatever is not simply up.
    Returning,
}

/// What the next look has to reckon with, and is cheaper without.
struct Hints {
    /// Whether anything may wait for its retry or be parked.
    held_back: bool,
    /// Whether, since something waits for its retry, a look took long: as for what waits behind that.
    walks: bool,
    /// Whether the last look found a payload larger than its share.
    large: bool,
    /// How many delayed events are let in at once: fewer after a time that took too long.
    promote: u32,
}

/// What moves the marks of the lanes.
struct Marks {
    /// Which ids can still appear.
    horizon: Horizon,
    layers: Layers,
    /// Whether a mark may go up without anything new: it was set back, or what held it down is gone.
    fell: bool,
    /// Whether ids are drawn in order, so that there can be marks.
    ids_in_order: bool,
    /// What the last survey said of rows put back.
    rewinds: Option<i64>,
    /// Which server the last survey that told it was of.
    server: Option<Server>,
    /// The lane that was last looked at from 0 as a matter of routine.
    swept: i32,
}

/// A lane this relay holds.
struct Slot {
    epoch: i64,
    lease: Arc<Lease>,
    /// How often rows had been put back in it, as far as this relay knows.
    rewinds: i64,
    /// Has a batch in `publishing` or `unsettled`.
    busy: bool,
    /// Not to be claimed before: its last batch got nowhere.
    rest_until: Option<Instant>,
}

/// When the periodic steps are due.
struct Clock {
    beat: Instant,
    survey: Instant,
    poll: Instant,
    poll_delay: Duration,
    heads: Instant,
    sweep: Instant,
    forget: Instant,
}

/// Whether the database answers.
struct Database {
    failures: u32,
    retry_at: Instant,
}

impl<Db: OutboxDb> Engine<Db> {
    pub(super) fn new(
        pool: Pool<Db>,
        relay: Uuid,
        config: Config,
        lanes_total: u16,
        routes: Routes,
        wake: Option<watch::Receiver<u64>>,
        tally: Arc<Tally>,
    ) -> Self {
        let now = Instant::now();
        Self {
            connections: Connections::new(
                pool,
                config.shared_connections,
                config.statement_limit(),
            ),
            relay,
            config,
            lanes_total,
            routes,
            wake,
            tally,
            lanes: BTreeMap::new(),
            cursor: 0,
            flight: Flight::default(),
            shut: Shut::default(),
            hints: Hints {
                held_back: true,
                walks: false,
                large: false,
                promote: chores::PROMOTE_MAX,
            },
            marks: Marks {
                horizon: Horizon::new(Db::DRAWN_TO_WRITTEN),
                layers: Layers::default(),
                fell: false,
                ids_in_order: false,
                rewinds: None,
                server: None,
                swept: -1,
            },
            clock: Clock {
                beat: now,
                survey: now,
                poll: now,
                poll_delay: POLL_MIN,
                heads: now,
                sweep: now,
                forget: now,
            },
            database: Database {
                failures: 0,
                retry_at: now,
            },
            draining: None,
            handed_over: false,
        }
    }

    pub(super) async fn run(
        mut self,
        cancel: CancellationToken,
        mut orders: watch::Receiver<Option<Instant>>,
    ) -> Drained {
        info!(target: TARGET, relay = %self.relay, "relay started");
        loop {
            let ordered = *orders.borrow_and_update();
            if ordered.is_some() {
                self.draining = ordered;
            } else if self.draining.is_none() && cancel.is_cancelled() {
                self.draining = Some(Instant::now() + self.config.drain_timeout);
            }
            if self.ends() {
                break;
            }
            self.step().await;
            self.tally.in_flight(self.flight.open());
            if self.ends() {
                break; // that step settled the last of it
            }
            let until = self.next_step();
            let draining = self.draining.is_some();
            tokio::select! {
                Some(joined) = self.flight.publishing.join_next() => self.collect(joined),
                () = sleep_until(until) => {}
                () = woken(&mut self.wake), if !draining => {
                    self.clock.poll = Instant::now();
                    self.clock.poll_delay = POLL_MIN;
                }
                () = cancel.cancelled(), if !draining => {}
                // The handle may be gone: then the token alone ends the relay.
                Ok(()) = orders.changed() => {}
            }
            // Whatever else has come back is settled in the same statement.
            while let Some(joined) = self.flight.publishing.try_join_next() {
                self.collect(joined);
            }
        }
        self.leave().await
    }

    /// Everything that is due, in the order of its urgency. Stops at the first sign that the database is away.
    async fn step(&mut self) {
        if Instant::now() < self.database.retry_at {
            return;
        }
        if Instant::now() >= self.clock.beat && !self.beat().await {
            return;
        }
        if !self.flight.unsettled.is_empty() && !self.settle().await {
            return;
        }
        if self.draining.is_some() {
            if !self.handed_over {
                self.handed_over = self.hand_over().await;
                return;
            }
            // Those whose batch has ended since.
            let idle = self.held(|slot| !slot.busy);
            if !idle.is_empty() {
                self.give_back(idle).await;
            }
            return;
        }
        if Instant::now() >= self.clock.survey && !self.survey().await {
            return;
        }
        if Instant::now() >= self.clock.forget && !self.forget().await {
            return;
        }
        if Instant::now() >= self.clock.poll {
            self.claim().await;
        }
    }

    /// When `step` has something to do again, if nothing else happens.
    fn next_step(&self) -> Instant {
        let mut next = self.clock.beat;
        if let Some(deadline) = self.draining {
            next = next.min(deadline);
        } else {
            next = next.min(self.clock.survey).min(self.clock.poll);
            next = next.min(self.clock.forget);
        }
        if !self.flight.unsettled.is_empty() {
            next = Instant::now();
        }
        let next = next.max(self.database.retry_at);
        self.draining.map_or(next, |deadline| next.min(deadline))
    }

    fn ends(&self) -> bool {
        self.draining.is_some_and(|deadline| {
            let idle = self.flight.publishing.is_empty() && self.flight.unsettled.is_empty();
            idle || Instant::now() >= deadline
        })
    }

    /// Runs a store operation. `None` means that it failed, or took too long and its outcome is unknown: do it again later.
    async fn ask<T>(
        &mut self,
        what: &'static str,
        operation: impl Future<Output = Result<T, Error>>,
    ) -> Option<T> {
        let mut late = false;
        let limit = Instant::now() + self.config.statement_limit();
        let beside = !OF_LANES.contains(&what);
        let error: Box<dyn std::error::Error + Send + Sync> =
            match timeout_at(limit, self.beating(beside, operation)).await {
                Ok(Ok(answer)) => {
                    if self.database.failures > 0 {
                        info!(target: TARGET, relay = %self.relay, "the database is back");
                    }
                    self.database.failures = 0;
                    return Some(answer);
                }
                Ok(Err(error)) => error.into(),
                Err(elapsed) => {
                    late = true;
                    elapsed.into()
                }
            };
        // One that steps over rows may take too long for their number alone, and without the marks the next takes longer. A
        // database that is gone does not answer the next one either. What is always short and late means that something else is
        // wrong: the database may be another one by now.
        let late_for_the_rows = late && WALKS.contains(&what);
        if !late_for_the_rows || self.database.failures > 0 {
            self.forget_marks();
        }
        self.connections.renew();
        let failures = self.database.failures.saturating_add(1);
        let wait = DATABASE_BACKOFF.delay(failures, Duration::ZERO, &mut rand::rng());
        self.database = Database {
            failures,
            retry_at: Instant::now() + wait,
        };
        let cause = error.source().map(ToString::to_string);
        warn!(target: TARGET, relay = %self.relay, operation = what, %error, cause, ?wait, "database operation failed");
        None
    }

    /// Waits for an operation, and renews the lanes beside it when that is due: what steps over many rows may take as long as a
    /// lease. Over connections that are shared this waits for a second one.
    async fn beating<T>(&mut self, beside: bool, operation: impl Future<Output = T>) -> T {
        let mut operation = pin!(operation);
        if !beside {
            return operation.await;
        }
        loop {
            tokio::select! {
                biased;
                done = &mut operation => return done,
                () = sleep_until(self.clock.beat) => {}
            }
            let asked = Instant::now();
            let held = self.held(|_| true);
            let (connections, lease) = (self.connections.get(), self.config.lease);
            let (relay, counts) = (self.relay, self.draining.is_none());
            let beat = async {
                if counts {
                    Db::heartbeat(connections.clone(), relay, lease).await?;
                }
                if held.is_empty() {
                    return Ok(Vec::new());
                }
                Db::renew(connections, lease, held.clone()).await
            };
            let kept = tokio::select! {
                done = &mut operation => return done, // the beat is due as it was
                kept = beat => kept,
            };
            match kept {
                Ok(kept) => {
                    self.clock.beat = Instant::now() + lease / 3;
                    self.keep(&held, &kept, asked);
                }
                Err(error) => {
                    self.clock.beat = Instant::now() + (lease / 10).min(BEAT_AGAIN);
                    warn!(target: TARGET, relay = %self.relay, %error, "lanes are not renewed yet");
                }
            }
        }
    }

    /// A batch of which its sinks tried nothing is nobody's attempt: its lane is idle. A lane that was lost and won again
    /// since may have another batch under way.
    fn free_untried(&mut self) {
        let untried = self.flight.unsettled.iter().filter(|s| written(s) == 0);
        for Held { lane, epoch } in untried.map(|s| s.held) {
            let slot = self.lanes.get_mut(&lane);
            if let Some(slot) = slot.filter(|slot| slot.epoch == epoch) {
                slot.busy = false;
            }
        }
    }

    /// Gives everything back. What was cut off stays recorded in flight, for the next owner to charge.
    async fn leave(mut self) -> Drained {
        let cut_off = self.flight.open();
        for slot in self.lanes.values() {
            slot.lease.lose();
        }
        // Nothing may still be publishing when the next owner begins; a sink that blocks its thread is not waited for.
        let cut = self.flight.publishing.shutdown();
        let _ = tokio::time::timeout(Duration::from_secs(1), cut).await;
        self.free_untried();
        // A few tries: if the database is away, the leases run out by themselves.
        for _ in 0..3 {
            let gone = self.handed_over || self.hand_over().await;
            let idle = self.held(|slot| !slot.busy);
            let cut_off = self.held(|slot| slot.busy);
            if gone && self.give_back(idle).await {
                let release = Db::release(self.connections.get(), cut_off, true);
                if self.ask("release", release).await.is_some() {
                    break;
                }
            }
            sleep_until(
                self.database
                    .retry_at
                    .min(Instant::now() + Duration::from_millis(200)),
            )
            .await;
        }
        self.connections.close().await;
        self.tally.holds(0);
        info!(target: TARGET, relay = %self.relay, unsettled = cut_off, "relay stopped");
        Drained {
            unsettled: cut_off as u64,
        }
    }
}

/// Operations that step over rows that are not theirs.
const WALKS: [&str; 2] = ["claim", "heads"];

/// Operations that write to the rows of lanes, and are short: beside them none is renewed.
const OF_LANES: [&str; 7] = [
    "heartbeat",
    "renew",
    "acquire",
    "release",
    "retire",
    "record",
    "settle",
];

/// How soon lanes are renewed again after that failed, at the latest.
const BEAT_AGAIN: Duration = Duration::from_millis(500);

/// Messages of which something is to be written down.
fn written(settlement: &Settlement) -> usize {
    settlement.acked.len() + settlement.failed.len() + settlement.dead.len()
}

/// Waits for a commit; for ever when nobody can tell.
async fn woken(wake: &mut Option<watch::Receiver<u64>>) {
    let told = match wake {
        Some(commits) => commits.changed().await.is_ok(),
        None => false,
    };
    if !told {
        // Every outbox is gone: from here on only polls find something.
        *wake = None;
        std::future::pending::<()>().await;
    }
}
