//! Lanes: taking, keeping and giving them back.

use std::{collections::HashSet, sync::Arc};

use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Engine, Slot};
use crate::{
    TARGET,
    sink::Lease,
    store::{Held, OutboxDb, Survey},
    telemetry,
};

impl<Db: OutboxDb> Engine<Db> {
    /// Says that this relay lives and renews its lanes. A lane that was taken meanwhile is let go.
    pub(super) async fn beat(&mut self) -> bool {
        let lease = self.config.lease;
        if self.draining.is_none() {
            let alive = Db::heartbeat(self.connections.get(), self.relay, lease);
            if self.ask("heartbeat", alive).await.is_none() {
                return false;
            }
        }
        let held = self.held(|_| true);
        if !held.is_empty() {
            let asked = Instant::now();
            let renew = Db::renew(self.connections.get(), lease, held.clone());
            let Some(kept) = self.ask("renew", renew).await else {
                return false;
            };
            self.keep(&held, &kept, asked);
        }
        self.clock.beat = Instant::now() + lease / 3;
        true
    }

    /// Notes which of the lanes asked about are still held.
    pub(super) fn keep(&mut self, asked_about: &[Held], kept: &[i32], asked: Instant) {
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

    pub(super) fn lose(&mut self, lane: i32, epoch: i64) {
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
    pub(super) async fn rebalance(&mut self, survey: &Survey) -> bool {
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
        let acquire = Db::acquire(self.connections.get(), self.relay, self.config.lease, count);
        let Some(grants) = self.ask("acquire", acquire).await else {
            return false;
        };
        // What its last owner settled may be younger than the survey.
        self.hints.held_back |= !grants.is_empty();
        for grant in grants {
            if grant.charged > 0 {
                warn!(
                    target: TARGET, relay = %self.relay, lane = grant.lane, messages = grant.charged,
                    "lane taken over with messages in flight: they are charged an attempt"
                );
            }
            telemetry::acquired(1);
            telemetry::duplicates_possible(u64::from(grant.charged));
            let slot = Slot {
                epoch: grant.epoch,
                lease: Arc::new(Lease::new(asked, self.config.lease)),
                rewinds: grant.rewinds,
                busy: false,
                rest_until: None,
            };
            self.lanes.insert(grant.lane, slot);
            self.marks.layers.restart(grant.lane);
            self.clock.poll = Instant::now();
            self.clock.heads = Instant::now();
        }
        self.tally.holds(self.lanes.len());
        debug!(target: TARGET, relay = %self.relay, lanes = self.lanes.len(), share, "lanes acquired");
        true
    }

    /// What a drain begins with: this relay no longer counts, and what it is not busy with is free.
    pub(super) async fn hand_over(&mut self) -> bool {
        let retire = Db::retire(self.connections.get(), self.relay);
        if self.ask("retire", retire).await.is_none() {
            return false;
        }
        let idle = self.held(|slot| !slot.busy);
        self.give_back(idle).await
    }

    /// Gives lanes back in which nothing is under way, whatever is recorded there. They are not this relay's any more whatever
    /// the answer is: a release whose outcome is unknown may still come to pass, under a batch that was begun since. If it does
    /// not, their leases run out.
    ///
    /// A drain begins nothing, and may try again.
    pub(super) async fn give_back(&mut self, held: Vec<Held>) -> bool {
        let release = Db::release(self.connections.get(), held.clone(), false);
        let given = self.ask("release", release).await.is_some();
        if given || self.draining.is_none() {
            for Held { lane, .. } in held {
                self.lanes.remove(&lane);
            }
            self.tally.holds(self.lanes.len());
        }
        given
    }

    pub(super) fn held(&self, which: impl Fn(&Slot) -> bool) -> Vec<Held> {
        let held = self.lanes.iter().filter(|(_, slot)| which(slot));
        held.map(|(&lane, slot)| Held {
            lane,
            epoch: slot.epoch,
        })
        .collect()
    }
}
