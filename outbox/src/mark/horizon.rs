//! Which ids can still appear.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::store::{Head, Heads};

/// How long a mark waits for writers before it passes them.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// How long it may take until it is first known which ids can still appear.
const FIRST: Duration = Duration::from_secs(6);

/// The most writers that are remembered as passed.
const STRAGGLERS_MAX: usize = 64;

/// What is known of the ids that can still appear, over all lanes.
#[derive(Debug, Default)]
pub(crate) struct Horizon {
    /// How long an id is waited for at least, whatever its stamp says, on this process's clock.
    wait: Duration,
    /// No id up to here will appear any more, except of stragglers.
    pub(super) safe: i64,
    pending: Option<Pending>,
    /// Writers that were passed, each with the id above which it may still write.
    pub(super) stragglers: BTreeMap<u64, i64>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    id: i64,
    /// Whoever has drawn an id up to `id` has a lower one.
    stamp: u64,
    since: Instant,
}

impl Horizon {
    pub(crate) fn new(wait: Duration) -> Self {
        Self {
            wait,
            ..Self::default()
        }
    }

    /// A look saw `id`, and `stamp` is higher than that of whoever had drawn one by then.
    pub(crate) fn saw(&mut self, id: i64, stamp: u64, now: Instant) {
        if id > self.safe && self.pending.is_none() {
            self.pending = Some(Pending {
                id,
                stamp,
                since: now,
            });
        }
    }

    /// Whether a higher id is wanted to be known, so that marks may go further.
    pub(crate) fn seeks(&self) -> bool {
        self.pending.is_none()
    }

    /// Whether it will soon be known for the first time which ids can still appear.
    pub(super) fn begins(&self, now: Instant) -> bool {
        self.safe == 0 && self.pending.is_some_and(|p| now - p.since < FIRST)
    }

    /// Whether there is something that the lanes' heads would tell.
    pub(crate) fn asks(&self) -> bool {
        self.pending.is_some() || self.has_stragglers()
    }

    /// Whether a late commit may show anywhere, so that heads are to be asked for before each look.
    pub(crate) fn has_stragglers(&self) -> bool {
        !self.stragglers.is_empty()
    }

    /// Whether the stamps of all running writers are needed, and not only the lowest.
    pub(crate) fn asks_running(&self, now: Instant) -> bool {
        self.has_stragglers() || self.pending.is_some_and(|p| now - p.since >= GRACE)
    }

    /// Takes in who is running. Gives the id to go back to if a straggler has ended.
    pub(crate) fn told(&mut self, heads: &Heads, now: Instant) -> Option<i64> {
        let running = heads.running.as_deref();
        let mut back: Option<i64> = None;
        self.stragglers.retain(|writer, floor| {
            let ended = *writer < heads.ended_below
                || running.is_some_and(|running| !running.contains(writer));
            if ended {
                back = Some(back.map_or(*floor, |least| least.min(*floor)));
            }
            !ended
        });
        if let Some(pending) = self.pending
            && self.passes(pending, heads, now)
        {
            self.safe = pending.id;
            self.pending = None;
        }
        back
    }

    /// Whether nobody, or nobody but stragglers, can still write an id up to the pending one.
    fn passes(&mut self, pending: Pending, heads: &Heads, now: Instant) -> bool {
        if now - pending.since < self.wait {
            return false;
        }
        if heads.ended_below >= pending.stamp {
            return true;
        }
        let Some(running) = &heads.running else {
            return false;
        };
        let before = running.iter().filter(|writer| **writer < pending.stamp);
        let new: Vec<u64> = before
            .filter(|writer| !self.stragglers.contains_key(writer))
            .copied()
            .collect();
        let waited = now - pending.since >= GRACE;
        if !new.is_empty() && (!waited || self.stragglers.len() + new.len() > STRAGGLERS_MAX) {
            return false;
        }
        // It began after the last bound was passed, or it would be known: what it writes is above that.
        let floor = self.safe;
        self.stragglers
            .extend(new.into_iter().map(|writer| (writer, floor)));
        true
    }

    /// The mark of a lane that was `above` and has this head, in the snapshot that was last told.
    pub(super) fn mark(&self, above: i64, head: Head) -> i64 {
        let done = match head {
            Head::Row(id) => self.safe.min(id.saturating_sub(1)),
            Head::NothingUpTo(id) => self.safe.min(id),
            Head::Nothing => self.safe,
        };
        above.max(done)
    }
}
