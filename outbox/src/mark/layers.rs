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
/// after it, and when a topic may go again those before it still stand: what has been shut for long is near the bottom, and
/// what comes and goes on top.
#[derive(Debug)]
pub(crate) struct Layers {
    layers: Vec<Layer>,
    /// The layer of what is shut now.
    current: usize,
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
    layer: usize,
    /// What is skipped is more than what is shut: all that is not simply up waits for this look.
    pub(crate) holds: bool,
}

impl Default for Layers {
    fn default() -> Self {
        Self {
            layers: vec![Layer::default()],
            current: 0,
        }
    }
}

impl Layers {
    /// From now on marks pass what is `shut`. Of what is not `closed` none is kept that passed it: `closed` is what is shut, and
    /// what may go only one by one and will be shut again. Says whether these were not passed together before.
    pub(crate) fn turn(&mut self, shut: &Skips, closed: &Skips) -> bool {
        let keeps =
            |skips: &Skips| (skips.within(shut) || shut.within(skips)) && skips.within(closed);
        self.layers.retain(|layer| keeps(&layer.skips));
        let after = |layer: &Layer| layer.skips.within(shut);
        self.current = self.layers.iter().rposition(after).unwrap_or(0);
        if self.layers[self.current].skips == *shut {
            return false;
        }
        // What is known without them is known with them, but for how far they go.
        let known = self.layers[self.current].lanes.iter();
        let lanes = known.map(|(&lane, mark)| {
            let arrived = false;
            (
                lane,
                Mark {
                    arrived,
                    ..mark.clone()
                },
            )
        });
        let layer = Layer {
            skips: shut.clone(),
            lanes: lanes.collect(),
        };
        self.current += 1;
        self.layers.insert(self.current, layer);
        if self.layers.len() > 1 + LAYERS_MAX {
            let least = 1 + usize::from(self.current == 1);
            self.layers.remove(least);
            self.current -= usize::from(least < self.current);
        }
        true
    }

    /// Whether anything is passed now.
    pub(crate) const fn passes(&self) -> bool {
        self.current > 0
    }

    /// What marks pass now.
    pub(crate) fn skips(&self) -> &Skips {
        &self.layers[self.current].skips
    }

    /// What was passed may go whose time has come: marks go back to before it.
    pub(crate) fn expire(&mut self, now: Instant) {
        let marks = self
            .layers
            .iter_mut()
            .flat_map(|layer| layer.lanes.values_mut());
        for mark in marks {
            let due = mark.held.iter().take_while(|held| held.until <= now);
            if let Some(id) = due.map(|held| held.id).min() {
                mark.above = mark.above.min(id - 1);
                mark.held.retain(|held| held.id < id);
                // It is the head, if it is still there.
                mark.arrived = true;
            }
        }
    }

    /// When there is more to [`expire`](Self::expire). That may be a little late: until then looks are of a time before.
    pub(crate) fn expires(&self) -> Option<Instant> {
        let marks = self.layers[self.current].lanes.values();
        marks
            .filter_map(|mark| mark.held.first())
            .map(|held| held.until)
            .min()
    }

    /// Where a look for the mark begins.
    pub(crate) fn above(&self, lane: i32) -> i64 {
        self.layers[self.current].above(lane)
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
        for (at, layer) in self.layers.iter_mut().enumerate().skip(self.current) {
            let mark = layer.lanes.entry(lane).or_default();
            let passed = held
                .iter()
                .filter(|held| mark.above < held.id && held.id <= above);
            mark.held.extend(passed);
            mark.above = mark.above.max(above);
            if at == self.current {
                mark.arrived = arrived;
            }
        }
        !arrived && above > before
    }

    /// Whether any of these lanes is still on its way through what is passed.
    pub(crate) fn travels(&self, mut lanes: impl Iterator<Item = i32>) -> bool {
        lanes.any(|lane| !self.arrived(self.current, lane))
    }

    /// How to look at these lanes. Where marks for what is shut are still on their way, and there are some that pass as well
    /// what may go one by one, that waits: what stands behind it all does not.
    pub(crate) fn view(&self, lanes: impl Iterator<Item = i32> + Clone) -> View {
        // Whether anything is held is known by a survey, and claims then look for it, or not.
        let held = self.layers[self.current].skips.held;
        let alike = |layer: &Layer| layer.skips.held == held;
        let top = self.layers.iter().rposition(alike).unwrap_or(self.current);
        let holds = self.travels(lanes.clone())
            && top > self.current
            && lanes.clone().all(|lane| self.arrived(top, lane));
        let layer = if holds { top } else { self.current };
        View { layer, holds }
    }

    /// Where a claim begins in a lane; `None` while its mark is on its way: then it is not looked at, or a claim would walk there
    /// as well.
    pub(crate) fn begins(&self, view: View, lane: i32) -> Option<Look> {
        if !self.arrived(view.layer, lane) {
            return None;
        }
        let Some(mark) = self.layers[view.layer].lanes.get(&lane) else {
            return Some(Look::new(lane, 0));
        };
        Some(Look {
            as_of: mark.held.first().map(|held| held.at - 1),
            ..Look::new(lane, mark.above)
        })
    }

    fn arrived(&self, layer: usize, lane: i32) -> bool {
        let mark = self.layers[layer].lanes.get(&lane);
        layer == 0 || mark.is_some_and(|mark| mark.arrived)
    }

    /// Whether a lane is done with only up to less than it could be, as what stands above that may have gone.
    pub(crate) fn may_rise(&self, lane: i32, horizon: &Horizon) -> bool {
        self.layers[0].above(lane) < horizon.safe
    }

    /// Something may have come to lie above this, in any lane.
    pub(crate) fn fall(&mut self, floor: i64) {
        let marks = self
            .layers
            .iter_mut()
            .flat_map(|layer| layer.lanes.values_mut());
        for mark in marks.filter(|mark| mark.above > floor) {
            mark.above = floor;
            mark.arrived = false;
            mark.held.retain(|held| held.id <= floor);
        }
    }

    /// A lane is looked at from its beginning.
    pub(crate) fn restart(&mut self, lane: i32) {
        for layer in &mut self.layers {
            layer.lanes.remove(&lane);
        }
    }

    /// A lane's marks, each with what it passes.
    #[cfg(test)]
    pub(crate) fn marks(&self, lane: i32) -> Vec<(i64, &Skips)> {
        let marks = self.layers.iter();
        marks
            .map(|layer| (layer.above(lane), &layer.skips))
            .collect()
    }

    /// All lanes are.
    pub(crate) fn restart_all(&mut self) {
        for layer in &mut self.layers {
            layer.lanes.clear();
        }
    }
}

impl Layer {
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
