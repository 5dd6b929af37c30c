//! How far each lane has come, for each set of messages that claims skip.

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;

use super::Horizon;
use crate::store::{Head, Look};

/// The most sets of which marks are kept, besides the one without anything: who goes and comes in turn.
const LAYERS_MAX: usize = 4;

/// What looks skip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Skips {
    /// What waits for its retry, and what waits behind that as it is of the same key.
    pub(crate) held: bool,
    /// Messages of these topics; in order.
    pub(crate) topics: Vec<String>,
}

/// The marks of all lanes: a layer of them for what is shut now, and for sets that were shut lately.
///
/// Each layer passes all that the one before it passes, and more; the first passes nothing. So what one knows holds for those
/// after it, if both know what is held, and when a topic may go again those before it still stand: what has been shut for long
/// is near the bottom, and what comes and goes on top.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    /// Those that pass less than what is shut now. There is none while nothing is.
    below: Vec<Layer>,
    current: Layer,
    /// Those that pass more.
    beyond: Vec<Layer>,
}

#[derive(Debug, Default)]
struct Layer {
    skips: Skips,
    /// None of a lane that begins at 0.
    lanes: HashMap<i32, Mark>,
}

/// Up to where nothing is left of a lane but what the layer skips.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Mark {
    above: i64,
    /// It is not on its way through more of the same.
    arrived: bool,
    /// What was passed as it waits for its retry.
    held: BTreeSet<Held>,
}

/// A message that waits for its retry: when that comes it may go, and what waits behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Held {
    /// On the database's clock.
    pub(crate) at: i64,
    /// About then, on this process's.
    pub(crate) until: Instant,
    pub(crate) id: i64,
}

/// What a claim looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// What is skipped is more than what is shut: all that is not simply up waits for this look.
    pub(crate) holds: bool,
}

impl Layers {
    fn all(&self) -> impl Iterator<Item = &Layer> {
        self.below.iter().chain([&self.current]).chain(&self.beyond)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Layer> {
        self.below
            .iter_mut()
            .chain([&mut self.current])
            .chain(&mut self.beyond)
    }

    /// From now on marks pass what is `shut`. Of what is not `closed` none is kept that passed it: `closed` is what is shut, and
    /// what may go only one by one and will be shut again. Says whether these were not passed together before.
    pub(crate) fn turn(&mut self, shut: &Skips, closed: &Skips) -> bool {
        let current = std::mem::take(&mut self.current);
        let all = self
            .below
            .drain(..)
            .chain([current])
            .chain(self.beyond.drain(..));
        let (mut below, beyond): (Vec<Layer>, Vec<Layer>) = all
            .filter(|layer| layer.skips.within(shut) || shut.within(&layer.skips))
            .filter(|layer| layer.skips.within(closed))
            .partition(|layer| layer.skips.within(shut));
        // The one that passes nothing is always there.
        let last = below.pop().unwrap_or_default();
        self.beyond = beyond;
        if last.skips == *shut {
            (self.below, self.current) = (below, last);
            return false;
        }
        // What is known without them is known with them, but for how far they go. What is held is known of rows that were passed
        // as held only: of those passed for their topic nobody has asked.
        let known = [Some(&last), below.first()].into_iter().flatten();
        let known = known.filter(|layer| layer.tells(shut)).take(1);
        let lanes = known.flat_map(|layer| &layer.lanes).map(|(&lane, mark)| {
            let arrived = false;
            (
                lane,
                Mark {
                    arrived,
                    ..mark.clone()
                },
            )
        });
        self.current = Layer {
            skips: shut.clone(),
            lanes: lanes.collect(),
        };
        below.push(last);
        self.below = below;
        if self.all().count() > 1 + LAYERS_MAX {
            // The one that passes the least, but for that which passes nothing.
            match self.below.len() {
                1 => self.beyond.remove(0),
                _ => self.below.remove(1),
            };
        }
        true
    }

    /// Whether anything is passed now.
    pub(crate) const fn passes(&self) -> bool {
        !self.below.is_empty()
    }

    /// What marks pass now.
    pub(crate) fn skips(&self) -> &Skips {
        &self.current.skips
    }

    /// What was passed may go whose time has come: marks go back to before it.
    pub(crate) fn expire(&mut self, now: Instant) {
        for mark in self.all_mut().flat_map(|layer| layer.lanes.values_mut()) {
            let due = mark.held.iter().take_while(|held| held.until <= now);
            if let Some(id) = due.map(|held| held.id).min() {
                mark.fall(id - 1);
                // It is the head, if it is still there.
                mark.arrived = true;
            }
        }
    }

    /// When there is more to [`expire`](Self::expire). That may be a little late: until then looks are of a time before.
    pub(crate) fn expires(&self) -> Option<Instant> {
        let marks = self.current.lanes.values();
        marks
            .filter_map(|mark| mark.held.first())
            .map(|held| held.until)
            .min()
    }

    /// Where a look for the mark begins.
    pub(crate) fn above(&self, lane: i32) -> i64 {
        self.current.above(lane)
    }

    /// A lane's mark goes up to what a look that began there found at the head, past what was `held` until those times. Says
    /// whether it went up and is still on its way: it went as far as was looked, or will as soon as it may, and has more of the
    /// same before it.
    pub(crate) fn rise(
        &mut self,
        lane: i32,
        horizon: &Horizon,
        head: Head,
        held: &[Held],
        now: Instant,
    ) -> bool {
        let before = self.above(lane);
        let above = horizon.mark(before, head);
        let arrived = !matches!(head, Head::NothingUpTo(id) if above == id || horizon.begins(now));
        let mark = self.current.lanes.entry(lane).or_default();
        let passed = held
            .iter()
            .filter(|held| before < held.id && held.id <= above);
        mark.held.extend(passed);
        mark.above = above;
        mark.arrived = arrived;
        let known = &self.current;
        for layer in &mut self.beyond {
            let mark = layer.lanes.entry(lane).or_default();
            if mark.above < above && known.tells(&layer.skips) {
                let known = known.lanes.get(&lane).map(|known| &known.held);
                let passed = known
                    .into_iter()
                    .flatten()
                    .filter(|held| mark.above < held.id);
                mark.held.extend(passed);
                mark.above = above;
            }
        }
        !arrived && above > before
    }

    /// Whether any of these lanes is still on its way through what is passed.
    pub(crate) fn travels(&self, mut lanes: impl Iterator<Item = i32>) -> bool {
        lanes.any(|lane| !self.current.has_arrived(lane))
    }

    /// How to look at these lanes. Where marks for what is shut are still on their way, and there are some that pass as well
    /// what may go one by one, that waits: what stands behind it all does not.
    pub(crate) fn view(&self, mut lanes: impl Iterator<Item = i32> + Clone) -> View {
        let holds = self.travels(lanes.clone())
            && self
                .top()
                .is_some_and(|top| lanes.all(|lane| top.has_arrived(lane)));
        View { holds }
    }

    /// That which passes the most. Whether anything is held is known by a survey, and claims look for it then, or not: so that
    /// is alike.
    fn top(&self) -> Option<&Layer> {
        let held = self.current.skips.held;
        self.beyond.iter().rfind(|layer| layer.skips.held == held)
    }

    /// Where a claim begins in a lane; `None` while its mark is on its way: then it is not looked at, or a claim would walk there
    /// as well.
    pub(crate) fn begins(&self, view: View, lane: i32) -> Option<Look> {
        let top = self.top().filter(|_| view.holds);
        let layer = top.unwrap_or(&self.current);
        if !layer.has_arrived(lane) {
            return None;
        }
        let Some(mark) = layer.lanes.get(&lane) else {
            return Some(Look::new(lane, 0));
        };
        Some(Look {
            as_of: mark.held.first().map(|held| held.at - 1),
            ..Look::new(lane, mark.above)
        })
    }

    /// Whether a lane is done with only up to less than it could be, as what stands above that may have gone.
    pub(crate) fn may_rise(&self, lane: i32, horizon: &Horizon) -> bool {
        let done = self.below.first().unwrap_or(&self.current);
        done.above(lane) < horizon.safe
    }

    /// A message has failed and waits for its retry. Marks that have passed it, as those may that are not the current ones, do not
    /// know until when. Says whether there are any.
    pub(crate) fn waits(&mut self, lane: i32, id: i64) -> bool {
        let held = self.all_mut().filter(|layer| layer.skips.held);
        let marks = held.filter_map(|layer| layer.lanes.get_mut(&lane));
        let mut any = false;
        for mark in marks.filter(|mark| mark.above >= id) {
            mark.fall(id - 1);
            any = true;
        }
        any
    }

    /// Something may have come to lie above this, in any lane.
    pub(crate) fn fall(&mut self, floor: i64) {
        let marks = self.all_mut().flat_map(|layer| layer.lanes.values_mut());
        for mark in marks.filter(|mark| mark.above > floor) {
            mark.fall(floor);
        }
    }

    /// A lane is looked at from its beginning.
    pub(crate) fn restart(&mut self, lane: i32) {
        for layer in self.all_mut() {
            layer.lanes.remove(&lane);
        }
    }

    /// All lanes are.
    pub(crate) fn restart_all(&mut self) {
        for layer in self.all_mut() {
            layer.lanes.clear();
        }
    }

    /// A lane's marks, each with what it passes.
    #[cfg(test)]
    pub(crate) fn marks(&self, lane: i32) -> Vec<(i64, &Skips)> {
        self.all()
            .map(|layer| (layer.above(lane), &layer.skips))
            .collect()
    }
}

impl Mark {
    /// Goes back to this, if it is above it, and has its way before it again.
    fn fall(&mut self, floor: i64) {
        self.above = self.above.min(floor);
        self.arrived = false;
        self.held.retain(|held| held.id <= floor);
    }
}

impl Layer {
    /// Whether what its marks know holds for those that skip this: all that, and what is held, was looked for, or it passes nothing.
    fn tells(&self, skips: &Skips) -> bool {
        self.skips.held == skips.held || self.skips == Skips::default()
    }

    fn has_arrived(&self, lane: i32) -> bool {
        let mark = self.lanes.get(&lane);
        self.skips == Skips::default() || mark.is_some_and(|mark| mark.arrived)
    }

    fn above(&self, lane: i32) -> i64 {
        self.lanes.get(&lane).map_or(0, |mark| mark.above)
    }
}

impl Skips {
    fn within(&self, other: &Self) -> bool {
        self.held <= other.held && within(&self.topics, &other.topics)
    }
}

/// Whether all of these are among those. Both are in order.
fn within(these: &[String], those: &[String]) -> bool {
    if these.len() > those.len() {
        return false;
    }
    let mut those = those.iter();
    these
        .iter()
        .all(|this| those.by_ref().find(|that| *that >= this) == Some(this))
}
