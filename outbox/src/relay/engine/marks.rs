//! Low-water marks: moving them, and giving them up when they can no longer be trusted.

use std::time::Duration;

use tokio::time::Instant;

use super::Engine;
use crate::{
    mark::Horizon,
    store::{Look, OutboxDb},
};

/// How often a busy relay asks for the lanes' heads.
const HEADS_EVERY: Duration = Duration::from_millis(50);

impl<Db: OutboxDb> Engine<Db> {
    /// Before a look: moves the marks if it is time, and always if a late commit may have to be found.
    pub(super) async fn move_marks(&mut self, now: Instant) -> bool {
        self.sweep(now);
        let late = self.horizon.has_stragglers();
        let asks = self.horizon.asks() || self.marks_fell;
        if !late && (!asks || now < self.clock.heads) {
            return true;
        }
        self.clock.heads = now + HEADS_EVERY;
        let looks = self.lanes.iter().map(|(&lane, slot)| Look {
            lane,
            above: slot.mark,
        });
        let heads = Db::heads(
            self.connections.get(),
            looks.collect(),
            self.horizon.asks_running(now),
        );
        let Some(answer) = self.ask("heads", heads).await else {
            return false;
        };
        let Some(heads) = answer else {
            self.horizon = Horizon::default();
            return true;
        };
        let back = self.horizon.told(&heads, now);
        self.marks_fell = back.is_some();
        if let Some(floor) = back {
            for slot in self.lanes.values_mut() {
                slot.mark = slot.mark.min(floor);
            }
            return true;
        }
        for (lane, head) in heads.heads {
            if let Some(slot) = self.lanes.get_mut(&lane) {
                slot.mark = self.horizon.mark(slot.mark, head);
            }
        }
        true
    }

    /// Takes the next lane in turn from its beginning: for rows that came to lie below the marks in ways nobody told of.
    fn sweep(&mut self, now: Instant) {
        if now < self.clock.sweep {
            return;
        }
        let lanes = u32::try_from(self.lanes.len().max(1)).unwrap_or(u32::MAX);
        self.clock.sweep = now + self.config.sweep_interval / lanes;
        let after = self.swept.saturating_add(1);
        let next = self
            .lanes
            .range(after..)
            .next()
            .or_else(|| self.lanes.iter().next());
        let Some(lane) = next.map(|(&lane, _)| lane) else {
            return;
        };
        self.swept = lane;
        if let Some(slot) = self.lanes.get_mut(&lane) {
            slot.mark = 0;
            self.marks_fell = true;
        }
    }

    /// Every lane is looked at from its beginning once more. After the database was away it may be another one, or one
    /// that was set back.
    pub(super) fn forget_marks(&mut self) {
        self.horizon = Horizon::default();
        self.look_from_the_start();
    }

    /// The same where it is only known that rows were put back: which ids can still be drawn is as known as before.
    pub(super) fn look_from_the_start(&mut self) {
        for slot in self.lanes.values_mut() {
            slot.mark = 0;
        }
        self.marks_fell = true;
    }
}
