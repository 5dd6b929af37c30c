//! From what is due to what is being published.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use tracing::warn;

use super::{Engine, Holds, POLL_MIN, SHUT_TOPICS_MAX, Slot};
use crate::{
    TARGET,
    gate::Pass,
    mark::{Skips, View},
    plan::{Cut, KeyPolicy, Permits, Way, cut},
    relay::{
        publish::{Part, publish},
        route::Routes,
    },
    sink::LaneRef,
    store::{Ask, Candidate, Held, InFlight, Look, OutboxDb, Settlement},
};

impl<Db: OutboxDb> Engine<Db> {
    /// Claims what is due in the lanes that have no batch under way, and starts publishing it.
    pub(super) async fn claim(&mut self) {
        let now = Instant::now();
        self.schedule_poll(now);
        if self.flight.solo && self.flight.messages > 0 {
            return;
        }
        let probed = self.shut.probed_last && self.routes.any_open(now);
        self.shut.held = if probed {
            Holds::Probes
        } else {
            Holds::Nothing
        };
        let Met { shut, closed } = self.topics_met(now);
        let shut = Skips {
            held: self.hints.held_back && self.hints.walks,
            topics: shut,
        };
        let closed = Skips {
            held: true,
            topics: closed,
        };
        self.marks.layers.expire(now);
        if self.marks.layers.turn(&shut, &closed) {
            // What waits there is passed first, and claimed past afterwards.
            self.clock.heads = now;
        }
        if !self.move_marks(now).await {
            return;
        }
        let view = self.marks.layers.view(self.lanes.keys().copied());
        let skip_topics = if view.holds {
            self.shut.held = Holds::Returning;
            closed.topics
        } else {
            shut.topics
        };
        if let Some(expires) = self.marks.layers.expires() {
            self.clock.poll = self.clock.poll.min(expires);
        }
        let room = (self.config.in_flight_max as usize).saturating_sub(self.flight.messages);
        let bytes = self
            .config
            .in_flight_bytes_max
            .saturating_sub(self.flight.bytes);
        let lanes = self.idle_lanes(now, view);
        if room == 0 || bytes == 0 || lanes.is_empty() {
            return;
        }
        if let Some(probe) = self.routes.all_shut_until(now) {
            self.clock.poll = probe;
            return;
        }
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        let ask = Ask {
            lanes,
            batch: self.config.batch.min(room),
            total: room,
            bytes,
            skip_topics,
            held_back: self.hints.held_back,
            large: self.hints.large,
        };
        let candidates = Db::candidates(self.connections.get(), ask);
        let asked = Instant::now();
        let due = self.ask("claim", candidates).await;
        // Rather than to look up for each of many rows, over and over, that it still waits.
        self.hints.walks |= self.hints.held_back && asked.elapsed() >= WALK_LONG;
        let Some(due) = due else {
            return;
        };
        let fair = bytes / u64::from(room.max(1));
        self.hints.large = due
            .iter()
            .any(|one| one.message.payload.len() as u64 > fair);
        let last = due.iter().map(|candidate| candidate.id).max();
        let (cuts, news) = self.cut(due, now);
        let cuts = self.apart(cuts);
        let probe = cuts.iter().find(|(_, cut)| cut.probes);
        self.shut.probed_last = probe.is_some();
        if let Some((Held { lane, .. }, _)) = probe {
            self.shut.probe_from = lane.saturating_add(1);
        }
        if self.start(cuts, last, now).await {
            let soon = Instant::now() + POLL_MIN;
            self.clock.poll = self.clock.poll.min(soon);
            self.clock.poll_delay = POLL_MIN * 2;
        }
        if news || self.shut.probed_last {
            // What stands behind the messages of a sink that is down shows once those are passed over.
            self.clock.poll = Instant::now();
        }
    }

    /// Decides per lane what of it is published. Says as well whether the next look would pass over more than this one.
    ///
    /// `now` is when it was decided which topics to pass over: a gate whose wait has ended since then must stay shut, or
    /// a later message of a key would go because the earlier one, of another topic, was not looked for.
    pub(super) fn cut(&mut self, due: Vec<Candidate>, now: Instant) -> (Vec<(Held, Cut)>, bool) {
        let mut by_lane: BTreeMap<i32, Vec<Candidate>> = BTreeMap::new();
        for candidate in due {
            self.cursor = candidate.lane;
            by_lane.entry(candidate.lane).or_default().push(candidate);
        }
        let mut permits = Permits::default();
        if self.config.sink_in_flight_max < self.config.in_flight_max {
            permits.room = self.routes.room(self.config.sink_in_flight_max as usize);
        }
        let mut cuts = Vec::with_capacity(by_lane.len());
        // From where the last probe went on: the message that a sink cannot take must not be the probe each time.
        let first = by_lane.split_off(&self.shut.probe_from);
        for (lane, due) in first.into_iter().chain(by_lane) {
            let Some(slot) = self.lanes.get(&lane) else {
                continue;
            };
            let held = Held {
                lane,
                epoch: slot.epoch,
            };
            let way = |topic: &str| (self.way(topic, now), self.config.policies.of(topic));
            let cut = cut(due, &self.config.rules, way, &mut permits);
            cuts.push((held, cut));
        }
        let mut news = false;
        for topic in cuts
            .iter_mut()
            .flat_map(|(_, cut)| cut.passed_over.drain(..))
        {
            if self.shut.met.len() >= SHUT_TOPICS_MAX {
                self.shut.met.clear();
            } else if !self.shut.met.contains(&topic) {
                news = true;
                if self.way(&topic, now) == Way::None {
                    self.tally.unrouted(&topic);
                    warn!(target: TARGET, relay = %self.relay, topic, "no sink takes this topic: its messages wait");
                }
                self.shut.met.insert(topic);
            }
        }
        (cuts, news)
    }

    /// What may go now. A batch that nothing is to go beside waits until all that is under way has come back, and what would be
    /// begun meanwhile waits with it. That may take as long as a sink takes for a batch; then such a batch is one message.
    fn apart(&mut self, mut cuts: Vec<(Held, Cut)>) -> Vec<(Held, Cut)> {
        let solo = cuts.iter().position(|(_, cut)| cut.solo);
        self.flight.solo = solo.is_some() && self.flight.messages == 0;
        match solo {
            Some(at) if self.flight.solo => vec![cuts.swap_remove(at)],
            Some(at) => {
                // The next look begins with it, or there would always be something under way.
                let first = cuts.get(at).map(|(held, _)| held.lane - 1);
                self.cursor = first.unwrap_or(self.cursor);
                Vec::new()
            }
            None => cuts,
        }
    }

    /// Records the batches as in flight and publishes those whose lane is still held. Says whether anything came of it.
    ///
    /// `last` is the highest id that was seen, and the messages' ages are those at the time `looked`.
    async fn start(&mut self, cuts: Vec<(Held, Cut)>, last: Option<i64>, looked: Instant) -> bool {
        // One that was not recorded, as far as this relay was told, is never heard of again under this number.
        self.flight.batch += 1;
        let batch = self.flight.batch;
        let mut batches: Vec<InFlight> = cuts
            .iter()
            .filter(|(_, cut)| !cut.publish.is_empty() || !cut.dead.is_empty())
            .map(|(held, cut)| InFlight {
                held: *held,
                batch,
                rewinds: self.lanes.get(&held.lane).map_or(0, |slot| slot.rewinds),
                ids: cut
                    .publish
                    .iter()
                    .map(|(.., candidate)| candidate.id)
                    .collect(),
            })
            .collect();
        // In the order in which everybody locks lanes.
        batches.sort_unstable_by_key(|batch| batch.held.lane);
        let mut recorded: HashSet<i32> = HashSet::new();
        if !batches.is_empty() {
            let asked = Instant::now();
            let held: Vec<Held> = batches.iter().map(|batch| batch.held).collect();
            let record = Db::record(self.connections.get(), self.config.lease, batches);
            let Some(kept) = self.ask("record", record).await else {
                return false;
            };
            let lanes: Vec<i32> = kept.lanes.iter().map(|(lane, _)| *lane).collect();
            self.keep(&held, &lanes, asked);
            for (lane, rewinds) in kept.lanes {
                if let Some(slot) = self.lanes.get_mut(&lane) {
                    if slot.rewinds == rewinds {
                        recorded.insert(lane);
                    } else {
                        // Rows were put back since the look: they may have to go first.
                        slot.rewinds = rewinds;
                        self.marks.layers.restart(lane);
                        self.marks.fell = true;
                        self.clock.heads = asked;
                        self.clock.poll = asked;
                    }
                }
            }
            if let (true, Some(last), Some(stamp)) = (self.marks.ids_in_order, last, kept.stamp) {
                self.marks.horizon.saw(last, stamp, asked);
            }
        }
        let mut any = false;
        for (held, cut) in cuts {
            let Some(slot) = self.lanes.get_mut(&held.lane) else {
                continue;
            };
            if !recorded.contains(&held.lane) {
                continue;
            }
            slot.busy = true;
            any = true;
            if cut.publish.is_empty() {
                self.flight.unsettled.push(Settlement {
                    held,
                    batch,
                    acked: Vec::new(),
                    failed: Vec::new(),
                    dead: cut.dead,
                });
            } else {
                self.flight.messages += cut.publish.len();
                let lane = LaneRef::new(held.lane, held.epoch, Arc::clone(&slot.lease));
                let mut parts = parts(&self.routes, cut.publish, looked);
                self.flight.bytes += parts.iter().map(Part::bytes).sum::<u64>();
                for part in &mut parts {
                    if let Some(route) = self.routes.get_mut(part.route) {
                        part.stamp = route.gate.sent();
                        route.in_flight += part.len();
                    }
                }
                self.flight.publishing.spawn(publish(
                    lane,
                    batch,
                    parts,
                    cut.dead,
                    self.config.publish_timeout,
                ));
            }
        }
        any
    }

    /// Lanes without a batch under way, beginning after the one that was served last.
    fn idle_lanes(&self, now: Instant, view: View) -> Vec<Look> {
        let idle = |(&lane, slot): (&i32, &Slot)| {
            let rested = slot.rest_until.is_none_or(|until| now >= until);
            let look = self.marks.layers.begins(view, lane)?;
            (!slot.busy && rested).then_some(look)
        };
        let after = self
            .lanes
            .range(self.cursor.saturating_add(1)..)
            .filter_map(idle);
        let before = self.lanes.range(..=self.cursor).filter_map(idle);
        after.chain(before).collect()
    }

    /// The way of a topic, which is shut while it is paused. While other sinks are up, no two looks in a row probe: what
    /// stands behind has its turn.
    pub(super) fn way(&self, topic: &str, now: Instant) -> Way {
        let most = self.config.sink_in_flight_max as usize;
        match self.routes.way(topic, most, now) {
            Way::Route { route, pass } if self.is_paused(topic) || self.waits(pass) => Way::Route {
                route,
                pass: Pass::Shut,
            },
            way => way,
        }
    }

    fn is_paused(&self, topic: &str) -> bool {
        self.shut.paused.iter().any(|paused| paused.fits(topic))
    }

    fn waits(&self, pass: Pass) -> bool {
        match pass {
            Pass::Probe => self.shut.held != Holds::Nothing,
            Pass::Paced(_) => self.shut.held == Holds::Returning,
            Pass::Open | Pass::Shut => false,
        }
    }

    /// The topics that were found shut, as they are now. Those whose sink is up again are forgotten.
    pub(super) fn topics_met(&mut self, now: Instant) -> Met {
        let mut met = Met::default();
        for topic in std::mem::take(&mut self.shut.met) {
            let pass = match self.way(&topic, now) {
                Way::Route { pass, .. } => pass,
                Way::None => Pass::Shut,
            };
            if pass == Pass::Shut {
                met.shut.push(topic.clone());
            }
            if pass != Pass::Open {
                met.closed.push(topic);
            }
        }
        self.shut.met = met.closed.iter().cloned().collect();
        met
    }

    /// Looks again ever later, while nothing is found.
    fn schedule_poll(&mut self, now: Instant) {
        let delay = self.clock.poll_delay;
        self.clock.poll = now + delay;
        self.clock.poll_delay = (delay * 2).min(self.config.poll_interval);
    }
}

/// A look that takes longer has many rows to step over, or the database has much to do.
const WALK_LONG: Duration = Duration::from_millis(20);

/// Topics that were found shut, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Met {
    /// Those to pass over now.
    pub(super) shut: Vec<String>,
    /// Those as well that may have something now, a probe or so many batches, and will be shut again.
    pub(super) closed: Vec<String>,
}

/// A batch by sink, each part in order.
fn parts(
    routes: &Routes,
    publish: Vec<(usize, KeyPolicy, Candidate)>,
    looked: Instant,
) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (route, policy, candidate) in publish {
        if let Some(part) = parts.iter_mut().find(|part| part.route == route) {
            part.push(policy, candidate);
        } else if let Some(sink) = routes.sink(route) {
            let mut part = Part::new(route, sink, looked);
            part.push(policy, candidate);
            parts.push(part);
        }
    }
    parts
}
