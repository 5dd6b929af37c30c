//! The relay's loop: one task that alone talks to the database, one step at a time, while batches are published beside it.
//!
//! Its steps are lease, claim, settle and drain. Each is one atomic store operation whose repetition does no harm, so a step
//! that failed or whose outcome is unknown is simply done again after a wait; what is in memory stays until it is written.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use mainstay_retry::Backoff;
use sqlx::Pool;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{
    Config, Drained,
    publish::{self, Part, Published, publish},
    route::Routes,
};
use crate::{
    TARGET,
    error::Error,
    gate::Pass,
    plan::{Cut, Fate, KeyPolicy, Tried, Way, cut, fate},
    sink::{LaneRef, Lease, Outcome},
    store::{Ask, Candidate, Held, InFlight, OutboxDb, Settlement},
    telemetry::{self, Tally},
};

/// The shortest wait between two looks: what a busy relay does without a wake.
const POLL_MIN: Duration = Duration::from_millis(5);

/// Topics remembered as belonging to a sink that is down; above it all are forgotten and learnt again.
const SHUT_TOPICS_MAX: usize = 10_000;

/// Waits between two tries while the database is away.
const DATABASE_BACKOFF: Backoff =
    Backoff::equal_jitter(Duration::from_millis(50), Duration::from_secs(5));

pub(super) struct Engine<Db: OutboxDb> {
    pool: Pool<Db>,
    relay: Uuid,
    config: Config,
    lanes_total: u16,
    routes: Routes,
    wake: Option<watch::Receiver<u64>>,
    tally: Arc<Tally>,
    lanes: BTreeMap<i32, Slot>,
    publishing: JoinSet<Published>,
    /// Published and not yet written down.
    unsettled: Vec<Settlement>,
    /// Messages in `publishing`.
    in_flight: usize,
    /// Their payloads' bytes.
    in_flight_bytes: u64,
    /// Topics whose sink was found down, as far as they have been met.
    shut_topics: HashSet<String>,
    /// Whether the last look sent a probe to a sink that was down.
    probed_last: bool,
    /// Whether this look sends none, because it is the turn of what stands behind.
    hold_probes: bool,
    /// Where the last claim stopped, so that lanes are served in turn.
    cursor: i32,
    clock: Clock,
    database: Database,
    draining: Option<Instant>,
    handed_over: bool,
}

/// A lane this relay holds.
struct Slot {
    epoch: i64,
    lease: Arc<Lease>,
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
            pool,
            relay,
            config,
            lanes_total,
            routes,
            wake,
            tally,
            lanes: BTreeMap::new(),
            publishing: JoinSet::new(),
            unsettled: Vec::new(),
            in_flight: 0,
            in_flight_bytes: 0,
            shut_topics: HashSet::new(),
            probed_last: false,
            hold_probes: false,
            cursor: 0,
            clock: Clock {
                beat: now,
                survey: now,
                poll: now,
                poll_delay: POLL_MIN,
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
            if self.ends() {
                break; // that step settled the last of it
            }
            let until = self.next_step();
            let draining = self.draining.is_some();
            tokio::select! {
                Some(joined) = self.publishing.join_next() => self.collect(joined),
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
            while let Some(joined) = self.publishing.try_join_next() {
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
        if !self.unsettled.is_empty() && !self.settle().await {
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
        if Instant::now() >= self.clock.survey && !self.rebalance().await {
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
        }
        if !self.unsettled.is_empty() {
            next = Instant::now();
        }
        let next = next.max(self.database.retry_at);
        self.draining.map_or(next, |deadline| next.min(deadline))
    }

    fn ends(&self) -> bool {
        self.draining.is_some_and(|deadline| {
            let idle = self.publishing.is_empty() && self.unsettled.is_empty();
            idle || Instant::now() >= deadline
        })
    }

    /// Runs a store operation. `None` means that it failed, or took too long and its outcome is unknown: do it again later.
    async fn ask<T>(
        &mut self,
        what: &'static str,
        operation: impl Future<Output = Result<T, Error>>,
    ) -> Option<T> {
        let limit = self.config.lease.max(Duration::from_secs(5));
        let error: Box<dyn std::error::Error + Send + Sync> =
            match tokio::time::timeout(limit, operation).await {
                Ok(Ok(answer)) => {
                    if self.database.failures > 0 {
                        info!(target: TARGET, relay = %self.relay, "the database is back");
                    }
                    self.database.failures = 0;
                    return Some(answer);
                }
                Ok(Err(error)) => error.into(),
                Err(elapsed) => elapsed.into(),
            };
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

    /// Says that this relay lives and renews its lanes. A lane that was taken meanwhile is let go.
    async fn beat(&mut self) -> bool {
        let lease = self.config.lease;
        if self.draining.is_none() {
            let alive = Db::heartbeat(self.pool.clone(), self.relay, lease);
            if self.ask("heartbeat", alive).await.is_none() {
                return false;
            }
        }
        let held = self.held(|_| true);
        if !held.is_empty() {
            let asked = Instant::now();
            let renew = Db::renew(self.pool.clone(), lease, held.clone());
            let Some(kept) = self.ask("renew", renew).await else {
                return false;
            };
            self.keep(&held, &kept, asked);
        }
        self.clock.beat = Instant::now() + lease / 3;
        true
    }

    /// Notes which of the lanes asked about are still held.
    fn keep(&mut self, asked_about: &[Held], kept: &[i32], asked: Instant) {
        let kept: HashSet<i32> = kept.iter().copied().collect();
        for Held { lane, epoch } in asked_about {
            if kept.contains(lane) {
                if let Some(slot) = self.lanes.get(lane) {
                    slot.lease.extend(asked, self.config.lease);
                }
            } else {
                self.lose(*lane, *epoch);
            }
        }
    }

    fn lose(&mut self, lane: i32, epoch: i64) {
        if self
            .lanes
            .get(&lane)
            .is_some_and(|slot| slot.epoch == epoch)
        {
            if let Some(slot) = self.lanes.remove(&lane) {
                slot.lease.lose();
            }
            warn!(target: TARGET, relay = %self.relay, lane, epoch, "lane lost to another relay");
            self.tally.holds(self.lanes.len());
        }
    }

    /// Moves towards an equal share of the lanes: takes what is free, gives back what is too much.
    async fn rebalance(&mut self) -> bool {
        let Some(survey) = self.ask("survey", Db::survey(self.pool.clone())).await else {
            return false;
        };
        self.clock.survey = Instant::now() + self.config.poll_interval;
        let share = usize::from(self.lanes_total).div_ceil(usize::from(survey.relays.max(1)));
        let held = self.lanes.len();
        if held > share {
            let idle = self.held(|slot| !slot.busy);
            let give: Vec<Held> = idle.into_iter().rev().take(held - share).collect();
            return self.give_back(give).await;
        }
        let wanted = (share - held).min(usize::from(survey.free));
        if wanted == 0 {
            return true;
        }
        let asked = Instant::now();
        let count = u16::try_from(wanted).unwrap_or(u16::MAX);
        let acquire = Db::acquire(self.pool.clone(), self.relay, self.config.lease, count);
        let Some(grants) = self.ask("acquire", acquire).await else {
            return false;
        };
        for grant in grants {
            if grant.charged > 0 {
                warn!(
                    target: TARGET, relay = %self.relay, lane = grant.lane, messages = grant.charged,
                    "lane taken over with messages in flight: they are charged an attempt"
                );
            }
            telemetry::acquired(1);
            let slot = Slot {
                epoch: grant.epoch,
                lease: Arc::new(Lease::new(asked, self.config.lease)),
                busy: false,
                rest_until: None,
            };
            self.lanes.insert(grant.lane, slot);
            self.clock.poll = Instant::now();
        }
        self.tally.holds(self.lanes.len());
        debug!(target: TARGET, relay = %self.relay, lanes = self.lanes.len(), share, "lanes acquired");
        true
    }

    /// What a drain begins with: this relay no longer counts, and what it is not busy with is free.
    async fn hand_over(&mut self) -> bool {
        let retire = Db::retire(self.pool.clone(), self.relay);
        if self.ask("retire", retire).await.is_none() {
            return false;
        }
        let idle = self.held(|slot| !slot.busy);
        self.give_back(idle).await
    }

    async fn give_back(&mut self, held: Vec<Held>) -> bool {
        let release = Db::release(self.pool.clone(), held.clone());
        if self.ask("release", release).await.is_none() {
            return false;
        }
        for Held { lane, .. } in held {
            self.lanes.remove(&lane);
        }
        self.tally.holds(self.lanes.len());
        true
    }

    /// Claims what is due in the lanes that have no batch under way, and starts publishing it.
    async fn claim(&mut self) {
        let now = Instant::now();
        self.schedule_poll(now, false);
        let room = (self.config.in_flight_max as usize).saturating_sub(self.in_flight);
        let bytes = self
            .config
            .in_flight_bytes_max
            .saturating_sub(self.in_flight_bytes);
        let lanes = self.idle_lanes(now);
        if room == 0 || bytes == 0 || lanes.is_empty() {
            return;
        }
        if let Some(probe) = self.routes.all_shut_until(now) {
            self.clock.poll = probe;
            return;
        }
        self.hold_probes = self.probed_last && self.routes.any_open(now);
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        let ask = Ask {
            lanes,
            batch: self.config.batch.min(room),
            total: room,
            bytes,
            skip_topics: self.topics_shut(now),
            block_keys: self.config.key_policy == KeyPolicy::Block,
        };
        let candidates = Db::candidates(self.pool.clone(), ask);
        let Some(due) = self.ask("claim", candidates).await else {
            return;
        };
        let (cuts, news) = self.cut(due, now);
        if self.start(cuts).await {
            self.schedule_poll(Instant::now(), true);
        }
        if news {
            // What stands behind the messages of a sink that is down shows once those are passed over.
            self.clock.poll = Instant::now();
        }
    }

    /// Decides per lane what of it is published. Says as well whether the next look would pass over more than this one.
    ///
    /// `now` is when it was decided which topics to pass over: a gate whose wait has ended since then must stay shut, or
    /// a later message of a key would go because the earlier one, of another topic, was not looked for.
    fn cut(&mut self, due: Vec<Candidate>, now: Instant) -> (Vec<(Held, Cut)>, bool) {
        let mut by_lane: BTreeMap<i32, Vec<Candidate>> = BTreeMap::new();
        for candidate in due {
            self.cursor = candidate.lane;
            by_lane.entry(candidate.lane).or_default().push(candidate);
        }
        let mut probed = HashSet::new();
        let mut cuts = Vec::with_capacity(by_lane.len());
        for (lane, due) in by_lane {
            let Some(slot) = self.lanes.get(&lane) else {
                continue;
            };
            let held = Held {
                lane,
                epoch: slot.epoch,
            };
            let way = |topic: &str| self.way(topic, now);
            let cut = cut(due, &self.config.rules, way, &mut probed);
            cuts.push((held, cut));
        }
        self.probed_last = !probed.is_empty();
        let mut news = self.probed_last;
        for topic in cuts
            .iter_mut()
            .flat_map(|(_, cut)| cut.passed_over.drain(..))
        {
            if self.shut_topics.len() < SHUT_TOPICS_MAX {
                news |= self.shut_topics.insert(topic);
            } else {
                self.shut_topics.clear();
            }
        }
        (cuts, news)
    }

    /// Records the batches as in flight and publishes those whose lane is still held. Says whether anything came of it.
    async fn start(&mut self, cuts: Vec<(Held, Cut)>) -> bool {
        let batches: Vec<InFlight> = cuts
            .iter()
            .filter(|(_, cut)| !cut.publish.is_empty())
            .map(|(held, cut)| InFlight {
                held: *held,
                ids: cut
                    .publish
                    .iter()
                    .map(|(_, candidate)| candidate.id)
                    .collect(),
            })
            .collect();
        let mut recorded: HashSet<i32> = HashSet::new();
        if !batches.is_empty() {
            let asked = Instant::now();
            let held: Vec<Held> = batches.iter().map(|batch| batch.held).collect();
            let record = Db::record(self.pool.clone(), self.config.lease, batches);
            let Some(kept) = self.ask("record", record).await else {
                return false;
            };
            self.keep(&held, &kept, asked);
            recorded.extend(kept);
        }
        let mut any = false;
        for (held, cut) in cuts {
            let Some(slot) = self.lanes.get_mut(&held.lane) else {
                continue;
            };
            if recorded.contains(&held.lane) && !cut.publish.is_empty() {
                slot.busy = true;
                any = true;
                self.in_flight += cut.publish.len();
                let lane = LaneRef::new(held.lane, held.epoch, Arc::clone(&slot.lease));
                let parts = parts(&self.routes, cut.publish);
                self.in_flight_bytes += parts.iter().map(Part::bytes).sum::<u64>();
                for part in &parts {
                    if let Some(route) = self.routes.get_mut(part.route) {
                        route.gate.probe();
                    }
                }
                self.publishing
                    .spawn(publish(lane, parts, cut.dead, self.config.publish_timeout));
            } else if cut.publish.is_empty() && !cut.dead.is_empty() {
                slot.busy = true;
                any = true;
                self.unsettled.push(Settlement {
                    held,
                    acked: Vec::new(),
                    failed: Vec::new(),
                    dead: cut.dead,
                });
            }
        }
        any
    }

    /// Takes a batch back from its sinks and decides what becomes of each message.
    fn collect(&mut self, joined: Result<Published, tokio::task::JoinError>) {
        let published = match joined {
            Ok(published) => published,
            // Panics are caught inside, so this is the runtime going down: the next owner is told by the record.
            Err(error) => {
                warn!(target: TARGET, relay = %self.relay, %error, "a batch was torn down");
                return;
            }
        };
        let now = Instant::now();
        let mut settlement = Settlement {
            held: published.held,
            acked: Vec::new(),
            failed: Vec::new(),
            dead: published.dead,
        };
        let mut untouched = 0;
        for result in published.results {
            self.judge(&result, now);
            self.in_flight = self.in_flight.saturating_sub(result.outcomes.len());
            self.in_flight_bytes = self.in_flight_bytes.saturating_sub(result.bytes);
            for (tried, outcome) in result.outcomes {
                match fate(
                    tried,
                    outcome,
                    result.crashed,
                    &self.config.rules,
                    &mut rand::rng(),
                ) {
                    Fate::Delivered(id) => settlement.acked.push(id),
                    Fate::Later(failed) => settlement.failed.push(failed),
                    Fate::Dead(buried) => settlement.dead.push(buried),
                    Fate::Untouched => untouched += 1,
                }
            }
        }
        let moved = settlement.acked.len() + settlement.failed.len() + settlement.dead.len();
        let Held { lane, epoch } = settlement.held;
        if let Some(slot) = self.lanes.get_mut(&lane).filter(|slot| slot.epoch == epoch) {
            // A sink that tries nothing and says nothing must not spin the loop.
            let stuck = untouched > 0 && moved == 0;
            slot.rest_until = stuck.then(|| now + self.config.poll_interval);
        }
        self.unsettled.push(settlement);
    }

    /// Opens or shuts the gate of a sink by what it said.
    fn judge(&mut self, result: &publish::Result, now: Instant) {
        let Some(route) = self.routes.get_mut(result.route) else {
            return;
        };
        let topics = route.pattern.as_str();
        let nothing = |(_, outcome): &(Tried, Outcome)| *outcome == Outcome::NotTried;
        let up = route.gate.pass(now) == Pass::Open;
        if result.crashed && result.suspect && up {
            // Others get their answers: it is the message, which hung or killed its publisher before, and not the sink.
        } else if let Some(down) = &result.down {
            if let Some(wait) = route.gate.down(now, &mut rand::rng()) {
                telemetry::sink_down(1);
                warn!(target: TARGET, relay = %self.relay, topics, reason = %down.reason(), ?wait, "sink down");
            }
        } else if result.crashed || result.outcomes.iter().all(nothing) {
            // A panic says nothing about the sink: that a probe met one does not mean that the outage is over.
            route.gate.untried(now);
        } else if route.gate.answered() {
            info!(target: TARGET, relay = %self.relay, topics, "sink up again");
        }
    }

    /// Writes down what became of the batches that have come back.
    async fn settle(&mut self) -> bool {
        // A lane may have been lost and won again meanwhile: a call names it in one epoch only.
        let (current, stale): (Vec<_>, Vec<_>) = std::mem::take(&mut self.unsettled)
            .into_iter()
            .partition(|settlement| {
                let slot = self.lanes.get(&settlement.held.lane);
                slot.is_some_and(|slot| slot.epoch == settlement.held.epoch)
            });
        for settlement in &stale {
            self.fenced(settlement);
        }
        self.unsettled = current;
        let settle = Db::settle(self.pool.clone(), self.unsettled.clone());
        let Some(written) = self.ask("settle", settle).await else {
            return false;
        };
        let written: HashSet<i32> = written.into_iter().collect();
        for settlement in std::mem::take(&mut self.unsettled) {
            let lane = settlement.held.lane;
            if !written.contains(&lane) {
                self.fenced(&settlement);
                continue;
            }
            if let Some(slot) = self.lanes.get_mut(&lane) {
                slot.busy = false;
            }
            self.tally.settled(
                settlement.acked.len(),
                settlement.failed.len(),
                settlement.dead.len(),
            );
            for failed in &settlement.failed {
                debug!(
                    target: TARGET, lane, message = failed.id, attempt = failed.attempts + 1, delay = ?failed.delay,
                    reason = %failed.reason, "message failed and will be tried again"
                );
            }
            for buried in &settlement.dead {
                warn!(
                    target: TARGET, lane, message = buried.id, attempts = buried.attempts,
                    cause = buried.cause.as_str(), reason = %buried.reason, "message given up"
                );
            }
        }
        self.clock.poll = Instant::now();
        true
    }

    /// A settlement that came too late. The lane's new owner delivers these messages again.
    fn fenced(&mut self, settlement: &Settlement) {
        let Held { lane, epoch } = settlement.held;
        self.tally.fenced();
        warn!(
            target: TARGET, relay = %self.relay, lane, epoch, acked = settlement.acked.len(),
            "late acks fenced: the lane has changed hands and these messages may be delivered twice"
        );
        self.lose(lane, epoch);
    }

    /// Gives everything back. What was cut off stays recorded in flight, for the next owner to charge.
    async fn leave(mut self) -> Drained {
        let written = |s: &Settlement| s.acked.len() + s.failed.len() + s.dead.len();
        let cut_off = self.in_flight + self.unsettled.iter().map(written).sum::<usize>();
        for slot in self.lanes.values() {
            slot.lease.lose();
        }
        // Nothing may still be publishing when the next owner begins; a sink that blocks its thread is not waited for.
        let cut = self.publishing.shutdown();
        let _ = tokio::time::timeout(Duration::from_secs(1), cut).await;
        let held = self.held(|_| true);
        // A few tries: if the database is away, the leases run out by themselves.
        for _ in 0..3 {
            let gone = self.handed_over || self.hand_over().await;
            let release = Db::release(self.pool.clone(), held.clone());
            if gone && self.ask("release", release).await.is_some() {
                break;
            }
            sleep_until(
                self.database
                    .retry_at
                    .min(Instant::now() + Duration::from_millis(200)),
            )
            .await;
        }
        self.tally.holds(0);
        info!(target: TARGET, relay = %self.relay, unsettled = cut_off, "relay stopped");
        Drained {
            unsettled: cut_off as u64,
        }
    }

    fn held(&self, which: impl Fn(&Slot) -> bool) -> Vec<Held> {
        let held = self.lanes.iter().filter(|(_, slot)| which(slot));
        held.map(|(&lane, slot)| Held {
            lane,
            epoch: slot.epoch,
        })
        .collect()
    }

    /// Lanes without a batch under way, beginning after the one that was served last.
    fn idle_lanes(&self, now: Instant) -> Vec<i32> {
        let idle = |(&lane, slot): (&i32, &Slot)| {
            let rested = slot.rest_until.is_none_or(|until| now >= until);
            (!slot.busy && rested).then_some(lane)
        };
        let after = self
            .lanes
            .range(self.cursor.saturating_add(1)..)
            .filter_map(idle);
        let before = self.lanes.range(..=self.cursor).filter_map(idle);
        after.chain(before).collect()
    }

    /// The way of a topic. While other sinks are up, no two looks in a row probe: what stands behind has its turn.
    fn way(&self, topic: &str, now: Instant) -> Way {
        match self.routes.way(topic, now) {
            Way::Route {
                route,
                pass: Pass::Probe,
            } if self.hold_probes => Way::Route {
                route,
                pass: Pass::Shut,
            },
            way => way,
        }
    }

    /// The topics to pass over now. Those whose sink is up again are forgotten.
    fn topics_shut(&mut self, now: Instant) -> Vec<String> {
        let pass = |topic: &str| match self.way(topic, now) {
            Way::Route { pass, .. } => pass,
            Way::None => Pass::Open,
        };
        let mut kept = self.shut_topics.clone();
        kept.retain(|topic| pass(topic) != Pass::Open);
        let shut = kept
            .iter()
            .filter(|topic| pass(topic) == Pass::Shut)
            .cloned()
            .collect();
        self.shut_topics = kept;
        shut
    }

    /// Looks again soon after something was found, and ever later while nothing is.
    fn schedule_poll(&mut self, now: Instant, found: bool) {
        let delay = if found {
            POLL_MIN
        } else {
            self.clock.poll_delay
        };
        self.clock.poll = now + delay;
        self.clock.poll_delay = (delay * 2).min(self.config.poll_interval);
    }
}

/// A batch by sink, each part in order.
fn parts(routes: &Routes, publish: Vec<(usize, Candidate)>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (route, candidate) in publish {
        if let Some(part) = parts.iter_mut().find(|part| part.route == route) {
            part.push(candidate);
        } else if let Some(sink) = routes.sink(route) {
            let mut part = Part::new(route, sink);
            part.push(candidate);
            parts.push(part);
        }
    }
    parts
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

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use sqlx::{Sqlite, SqlitePool};
    use tokio::time::advance;

    use super::*;
    use crate::{
        event::Event,
        message::Message,
        relay::Relay,
        sink::{MemorySink, SinkDown},
    };

    /// An engine that holds lane 0 of a database that it is never to ask.
    fn engine() -> Engine<Sqlite> {
        let pool = SqlitePool::connect_lazy("sqlite::memory:").unwrap();
        let second = Duration::from_secs(1);
        let built = Relay::builder(pool.clone())
            .sink("*", MemorySink::new())
            .sink_backoff(Backoff::constant(second));
        let (relay, tally) = (Uuid::now_v7(), Arc::default());
        let mut engine = Engine::new(pool, relay, built.config, 1, built.routes, None, tally);
        let slot = Slot {
            epoch: 1,
            lease: Arc::new(Lease::new(Instant::now(), second)),
            busy: false,
            rest_until: None,
        };
        engine.lanes.insert(0, slot);
        engine
    }

    fn candidate(id: i64, topic: &str) -> Candidate {
        let event = Event::new("t").topic(topic).key("k");
        Candidate {
            lane: 0,
            id,
            attempts: 0,
            suspect: false,
            message: Message::from_event(event, "/s", UNIX_EPOCH),
        }
    }

    fn result(crashed: bool, suspect: bool, down: Option<SinkDown>) -> publish::Result {
        let tried = Tried { id: 1, attempts: 0 };
        publish::Result {
            route: 0,
            outcomes: vec![(tried, Outcome::retry("crashed"))],
            bytes: 0,
            crashed,
            suspect,
            down,
        }
    }

    fn pass(engine: &Engine<Sqlite>) -> Pass {
        match engine.routes.way("any", Instant::now()) {
            Way::Route { pass, .. } => pass,
            Way::None => panic!("there is a sink for all"),
        }
    }

    /// The earlier message of the key was passed over in the database, by its topic; the later one's was not known yet.
    #[tokio::test(start_paused = true)]
    async fn a_gate_that_opens_during_a_look_stays_shut_for_that_look() {
        let mut engine = engine();
        let down = result(false, false, Some(SinkDown::new("gone")));
        engine.judge(&down, Instant::now());
        engine.shut_topics.insert("earlier".to_owned());
        let looked = Instant::now();
        assert_eq!(engine.topics_shut(looked), ["earlier"]);
        advance(Duration::from_secs(2)).await;
        assert_eq!(pass(&engine), Pass::Probe);

        let (cuts, _) = engine.cut(vec![candidate(2, "later")], looked);
        assert!(cuts.iter().all(|(_, cut)| cut.publish.is_empty()));
        assert!(engine.topics_shut(Instant::now()).is_empty());
        let due = vec![candidate(1, "earlier"), candidate(2, "later")];
        let (cuts, _) = engine.cut(due, Instant::now());
        assert_eq!(cuts[0].1.publish[0].1.id, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sink_that_never_answers_counts_as_down_unless_a_suspect_hung_it() {
        let hung = |suspect| result(true, suspect, Some(SinkDown::new("no answer")));
        let mut engine = engine();
        engine.judge(&hung(true), Instant::now());
        assert_eq!(pass(&engine), Pass::Open);
        engine.judge(&hung(false), Instant::now());
        assert_eq!(pass(&engine), Pass::Shut);
        advance(Duration::from_secs(1)).await;
        assert_eq!(pass(&engine), Pass::Probe);
        engine.routes.get_mut(0).unwrap().gate.probe();
        engine.judge(&hung(true), Instant::now());
        assert_eq!(pass(&engine), Pass::Shut, "a probe that hangs is no answer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_panics_does_not_end_an_outage() {
        let mut engine = engine();
        let down = result(false, false, Some(SinkDown::new("gone")));
        engine.judge(&down, Instant::now());
        advance(Duration::from_secs(1)).await;
        engine.routes.get_mut(0).unwrap().gate.probe();
        engine.judge(&result(true, false, None), Instant::now());
        assert_eq!(pass(&engine), Pass::Shut);
    }
}
