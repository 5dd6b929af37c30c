//! Low-water marks: moving them, and giving them up when they can no longer be trusted.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::Engine;
use crate::{
    mark::{Held, Horizon},
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
    /// Before a look: moves the marks of what is shut if it is time, and always if a late commit may have to be found.
    ///
    /// While topics are skipped it is always worth asking, as what newly waits is best passed at once. Says whether the
    /// database answered.
    pub(super) async fn move_marks(&mut self, now: Instant) -> bool {
        self.sweep(now);
        let passes = self.marks.layers.passes();
        let late = self.marks.horizon.has_stragglers();
        let asks = self.marks.horizon.asks() || self.marks.fell || passes;
        if !late && (!asks || now < self.clock.heads) {
            return true;
        }
        self.clock.heads = now + HEADS_EVERY;
        let layers = &self.marks.layers;
        let looks = self
            .lanes
            .keys()
            .map(|&lane| Look::new(lane, layers.above(lane)));
        let window = (WINDOW / self.lanes.len().max(1)).max(WINDOW_MIN);
        let ask = AskHeads {
            lanes: looks.collect(),
            skip_topics: self.marks.layers.skips().topics.clone(),
            held: self.marks.layers.skips().held,
            window: u32::try_from(window).unwrap_or(u32::MAX),
            running: self.marks.horizon.asks_running(now),
            // It takes a transaction's number on Postgres, and steps over what was deleted last.
            newest: passes && self.marks.ids_in_order && self.marks.horizon.seeks(),
        };
        let heads = Db::heads(self.connections.get(), ask);
        let Some(heads) = self.ask("heads", heads).await else {
            return false;
        };
        let back = self.marks.horizon.told(&heads, now);
        if let Some((id, stamp)) = heads.newest {
            self.marks.horizon.saw(id, stamp, now);
        }
        self.marks.fell = back.is_some();
        if let Some(floor) = back {
            self.marks.layers.fall(floor);
            self.clock.heads = now;
        } else {
            // Rather too late than too early, when the database would still say no.
            let told = Instant::now();
            let mut held: HashMap<i32, Vec<Held>> = HashMap::new();
            for waiting in heads.held {
                let one = Held {
                    at: waiting.retry_at,
                    until: told + waiting.left,
                    id: waiting.id,
                };
                held.entry(waiting.lane).or_default().push(one);
            }
            for (lane, head) in heads.heads {
                let horizon = &self.marks.horizon;
                let held = held.get(&lane).map_or(&[][..], Vec::as_slice);
                if self.marks.layers.rise(lane, horizon, head, held, now) {
                    self.clock.heads = now;
                }
            }
        }
        if self.marks.layers.travels(self.lanes.keys().copied()) {
            self.clock.poll = self.clock.poll.min(self.clock.heads);
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
        self.marks.layers.restart(lane);
        self.marks.fell = true;
        self.clock.heads = now;
    }

    /// Every lane is looked at from its beginning once more. After the database was away it may be another one, or one
    /// that was set back.
    pub(super) fn forget_marks(&mut self) {
        self.marks.horizon = Horizon::new(Db::DRAWN_TO_WRITTEN);
        self.look_from_the_start();
    }

    /// The same where it is only known that rows were put back: which ids can still be drawn is as known as before.
    pub(super) fn look_from_the_start(&mut self) {
        self.marks.layers.restart_all();
        self.marks.fell = true;
        self.clock.heads = Instant::now();
    }
}
