//! Low-water marks: moving them, and giving them up when they can no longer be trusted.

use std::time::Duration;

use tokio::time::Instant;

use super::Engine;
use crate::{
    mark::{Horizon, Mark},
    store::{AskHeads, Look, OutboxDb},
};

/// How often a busy relay asks for the lanes' heads.
const HEADS_EVERY: Duration = Duration::from_millis(50);

/// How many rows are looked at for that, over all lanes: it takes some tens of milliseconds, and the next step has its turn.
/// In tests few, so that they come to its end.
const WINDOW: usize = if cfg!(test) { 256 } else { 16_384 };

/// The fewest of one lane.
const WINDOW_MIN: usize = 64;

impl<Db: OutboxDb> Engine<Db> {
    /// Before a look that skips these topics: moves the marks if it is time, and always if a late commit may have to be found.
    ///
    /// While topics are skipped it is always worth asking, as what newly waits is best passed at once. A look that sends a
    /// probe skips less than was passed, and moves the marks of what is done entirely.
    ///
    /// Says whether the look may begin behind what was passed; `None` if the database did not answer.
    pub(super) async fn move_marks(&mut self, now: Instant, skipped: &[String]) -> Option<bool> {
        self.sweep(now);
        let known = self.shut.passed.count();
        let passed = if self.shut.passed.within(skipped) {
            let stays = |topic: &str| {
                let paused = self.shut.paused.iter().any(|paused| paused.fits(topic));
                paused || self.routes.waits(topic, now)
            };
            self.shut.passed.grow(skipped, stays)
        } else {
            Vec::new()
        };
        let passing = !passed.is_empty();
        if self.shut.passed.count() > known {
            // The marks stop where such a topic begins: what waits there is passed first, and claimed past afterwards.
            self.lanes.values_mut().for_each(|slot| slot.behind = true);
            self.clock.heads = now;
        }
        let late = self.marks.horizon.has_stragglers();
        let asks = self.marks.horizon.asks() || self.marks.fell || passing;
        if !late && (!asks || now < self.clock.heads) {
            return Some(passing);
        }
        self.clock.heads = now + HEADS_EVERY;
        let looks = self.lanes.iter().map(|(&lane, slot)| Look {
            lane,
            above: slot.mark.above(passing),
        });
        let window = (WINDOW / self.lanes.len().max(1)).max(WINDOW_MIN);
        let ask = AskHeads {
            lanes: looks.collect(),
            skip_topics: passed,
            window: u32::try_from(window).unwrap_or(u32::MAX),
            running: self.marks.horizon.asks_running(now),
            // It takes a transaction's number on Postgres, and steps over what was deleted last.
            newest: passing && self.marks.ids_in_order && self.marks.horizon.seeks(),
        };
        let heads = Db::heads(self.connections.get(), ask);
        let heads = self.ask("heads", heads).await?;
        let back = self.marks.horizon.told(&heads, now);
        if let Some((id, stamp)) = heads.newest {
            self.marks.horizon.saw(id, stamp, now);
        }
        self.marks.fell = back.is_some();
        if let Some(floor) = back {
            for slot in self.lanes.values_mut() {
                slot.mark.fall(floor);
            }
            return Some(passing);
        }
        let mut rises = false;
        for (lane, head) in heads.heads {
            if let Some(slot) = self.lanes.get_mut(&lane) {
                let before = slot.mark;
                slot.behind = slot.mark.rise(&self.marks.horizon, head, passing, now);
                rises |= slot.behind && slot.mark != before;
            }
        }
        if rises {
            self.clock.heads = now;
        }
        if self.lanes.values().any(|slot| slot.behind) {
            self.clock.poll = self.clock.heads;
        }
        Some(passing)
    }

    /// Takes the next lane in turn from its beginning: for rows that came to lie below the marks in ways nobody told of.
    fn sweep(&mut self, now: Instant) {
        if now < self.clock.sweep {
            return;
        }
        let lanes = u32::try_from(self.lanes.len().max(1)).unwrap_or(u32::MAX);
        self.clock.sweep = now + self.config.sweep_interval / lanes;
        let after = self.marks.swept.saturating_add(1);
        let next = self
            .lanes
            .range(after..)
            .next()
            .or_else(|| self.lanes.iter().next());
        let Some(lane) = next.map(|(&lane, _)| lane) else {
            return;
        };
        self.marks.swept = lane;
        if let Some(slot) = self.lanes.get_mut(&lane) {
            slot.mark = Mark::default();
            self.marks.fell = true;
            self.clock.heads = now;
        }
    }

    /// Every lane is looked at from its beginning once more. After the database was away it may be another one, or one
    /// that was set back.
    pub(super) fn forget_marks(&mut self) {
        self.marks.horizon = Horizon::new(Db::DRAWN_TO_WRITTEN);
        self.look_from_the_start();
    }

    /// The same where it is only known that rows were put back: which ids can still be drawn is as known as before.
    pub(super) fn look_from_the_start(&mut self) {
        for slot in self.lanes.values_mut() {
            slot.mark = Mark::default();
        }
        self.marks.fell = true;
        self.clock.heads = Instant::now();
    }
}
