//! From what came of a batch to what is written down.

use std::collections::HashSet;

use tokio::{task::JoinError, time::Instant};
use tracing::{debug, info, warn};

use super::Engine;
use crate::{
    TARGET,
    gate::Pass,
    plan::{Fate, Tried, fate},
    relay::{
        Retention,
        publish::{self, Published},
    },
    sink::Outcome,
    store::{Held, OutboxDb, Settlement},
    telemetry,
};

impl<Db: OutboxDb> Engine<Db> {
    /// Takes a batch back from its sinks and decides what becomes of each message.
    pub(super) fn collect(&mut self, joined: Result<Published, JoinError>) {
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
            batch: published.batch,
            acked: Vec::new(),
            failed: Vec::new(),
            dead: published.dead,
        };
        let mut untouched = 0;
        for result in published.results {
            self.judge(&result, now);
            self.flight.messages = self.flight.messages.saturating_sub(result.outcomes.len());
            self.flight.bytes = self.flight.bytes.saturating_sub(result.bytes);
            if let Some(route) = self.routes.get_mut(result.route) {
                route.in_flight = route.in_flight.saturating_sub(result.outcomes.len());
            }
            let under_way = now - result.looked;
            let topics = self.routes.topics(result.route);
            for (tried, outcome) in result.outcomes {
                if outcome == Outcome::Acked {
                    telemetry::delivered(topics, tried.age + under_way);
                }
                match fate(
                    &tried,
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
        self.flight.unsettled.push(settlement);
    }

    /// Opens or shuts the gate of a sink by what it said.
    pub(super) fn judge(&mut self, result: &publish::Result, now: Instant) {
        let Some(route) = self.routes.get_mut(result.route) else {
            return;
        };
        let topics = route.pattern.as_str();
        let acked = |(_, outcome): &(Tried, Outcome)| *outcome == Outcome::Acked;
        let outcomes = result.outcomes.iter().map(|(_, outcome)| outcome);
        telemetry::sent(topics, outcomes, result.down.is_some(), result.took);
        if !route.gate.is_current(result.stamp) {
            return;
        }
        let nothing = |(_, outcome): &(Tried, Outcome)| *outcome == Outcome::NotTried;
        let up = route.gate.pass(now) == Pass::Open;
        if result.crashed && result.suspect && up {
            // Others get their answers: it is the message, which hung or killed its publisher before, and not the sink.
        } else if let Some(down) = &result.down {
            if let Some(wait) = route.gate.down(now, &mut rand::rng()) {
                self.tally.sink_down(topics);
                warn!(target: TARGET, relay = %self.relay, topics, reason = %down.reason(), ?wait, "sink down");
            }
        } else if result.crashed || result.outcomes.iter().all(nothing) {
            // A panic says nothing about the sink: that a probe met one does not mean that the outage is over.
            route.gate.untried(now);
        } else if route.gate.answered(result.outcomes.iter().any(acked)) {
            self.tally.sink_up(topics);
            info!(target: TARGET, relay = %self.relay, topics, "sink up again");
        }
    }

    /// Writes down what became of the batches that have come back.
    pub(super) async fn settle(&mut self) -> bool {
        // A lane may have been lost and won again meanwhile: a call names it in one epoch only.
        let (current, stale): (Vec<_>, Vec<_>) = std::mem::take(&mut self.flight.unsettled)
            .into_iter()
            .partition(|settlement| {
                let slot = self.lanes.get(&settlement.held.lane);
                slot.is_some_and(|slot| slot.epoch == settlement.held.epoch)
            });
        for settlement in &stale {
            self.fenced(settlement);
        }
        self.flight.unsettled = current;
        // Until a survey has seen that nothing waits any more.
        let holds = |s: &Settlement| !s.failed.is_empty() || s.dead.iter().any(|one| one.park);
        self.hints.held_back |= self.flight.unsettled.iter().any(holds);
        let keep = matches!(self.config.retention, Retention::Keep(_));
        let settle = Db::settle(self.connections.get(), keep, self.flight.unsettled.clone());
        let Some(written) = self.ask("settle", settle).await else {
            return false;
        };
        let written: HashSet<i32> = written.into_iter().collect();
        for settlement in std::mem::take(&mut self.flight.unsettled) {
            let lane = settlement.held.lane;
            if !written.contains(&lane) {
                self.fenced(&settlement);
                continue;
            }
            if let Some(slot) = self.lanes.get_mut(&lane) {
                slot.busy = false;
                // What held it down may be gone, and in a lane that is idle from now on nothing else would ask.
                let gone = !settlement.acked.is_empty() || !settlement.dead.is_empty();
                self.marks.fell |= gone && self.marks.layers.may_rise(lane, &self.marks.horizon);
            }
            self.tally.settled(&settlement);
            for failed in &settlement.failed {
                if self.marks.layers.waits(lane, failed.id) {
                    self.marks.fell = true;
                    self.clock.heads = Instant::now();
                }
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
}
