//! Low-water marks: up to where a lane is known to be done with, so that claims need not step over what is gone. Pure.
//!
//! Deleted rows stay in a lane's index for as long as somebody's snapshot might want them, and each claim that begins at
//! the lane's head steps over them. A mark lets it begin behind them. What makes that more than `id > the last one seen`
//! are writers that have drawn a low id and not committed yet. Two facts bound them:
//!
//! - A writer gets its number before it draws an id (the enqueueing statement sees to that), and ids are drawn in order.
//!   So whoever holds an id up to one that was *seen* has a lower number than a transaction that began after that look.
//! - Once a snapshot says that all writers with lower numbers have ended, what they committed is in it. The head of a
//!   lane in that snapshot is then the lowest there will ever be up to the id that was seen.
//!
//! A writer that stays open must not stall the mark for ever: after [`GRACE`] it is remembered as a *straggler*, with the
//! id above which its rows can be, and the mark passes. When it has ended, all lanes are looked at from there once more.
//! Where there are too many to remember, the mark waits.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::store::Heads;

/// How long a mark waits for writers before it passes them.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// The most writers that are remembered as passed.
const STRAGGLERS_MAX: usize = 64;

/// What is known of the ids that can still appear, over all lanes.
#[derive(Debug, Default)]
pub(crate) struct Horizon {
    /// No id up to here will appear any more, except of stragglers.
    safe: i64,
    pending: Option<Pending>,
    /// Writers that were passed, each with the id above which it may still write.
    stragglers: BTreeMap<u64, i64>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    id: i64,
    /// Whoever has drawn an id up to `id` has a lower number.
    writer: u64,
    since: Instant,
}

impl Horizon {
    /// A look saw `id`, and the transaction `writer` began after it.
    pub(crate) fn saw(&mut self, id: i64, writer: u64, now: Instant) {
        if id > self.safe && self.pending.is_none() {
            self.pending = Some(Pending {
                id,
                writer,
                since: now,
            });
        }
    }

    /// Whether there is something that the lanes' heads would tell.
    pub(crate) fn asks(&self) -> bool {
        self.pending.is_some() || self.has_stragglers()
    }

    /// Whether a late commit may show anywhere, so that heads are to be asked for before each look.
    pub(crate) fn has_stragglers(&self) -> bool {
        !self.stragglers.is_empty()
    }

    /// Whether the numbers of all running writers are needed, and not only the lowest.
    pub(crate) fn asks_running(&self, now: Instant) -> bool {
        self.has_stragglers() || self.pending.is_some_and(|p| now - p.since >= GRACE)
    }

    /// Takes in who is running. Gives the id to go back to if a straggler has ended.
    pub(crate) fn told(&mut self, heads: &Heads, now: Instant) -> Option<i64> {
        let running = heads.running.as_deref();
        let mut back: Option<i64> = None;
        self.stragglers.retain(|writer, floor| {
            let ended = *writer < heads.first_running
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
        if heads.first_running >= pending.writer {
            return true;
        }
        let Some(running) = &heads.running else {
            return false;
        };
        let before = running.iter().filter(|writer| **writer < pending.writer);
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

    /// Whether a lane's mark may rise as soon as what stands above it is gone.
    pub(crate) fn lifts(&self, mark: i64) -> bool {
        mark < self.safe
    }

    /// The mark of a lane that was `above` and has its lowest row at `head`, in the snapshot that was last told.
    pub(crate) fn mark(&self, above: i64, head: Option<i64>) -> i64 {
        let done = head.map_or(self.safe, |head| self.safe.min(head.saturating_sub(1)));
        above.max(done)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn heads(first_running: u64, running: Option<&[u64]>) -> Heads {
        Heads {
            first_running,
            running: running.map(<[u64]>::to_vec),
            heads: Vec::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_mark_waits_for_writers_and_not_for_ever() {
        let now = Instant::now();
        let mut horizon = Horizon::default();
        horizon.saw(10, 100, now);
        assert_eq!(horizon.told(&heads(90, Some(&[90])), now), None);
        assert_eq!(horizon.mark(0, Some(8)), 0, "90 may hold an id below 8");
        let later = now + GRACE;
        assert!(horizon.asks_running(later));
        assert_eq!(horizon.told(&heads(90, Some(&[90, 120])), later), None);
        assert_eq!(horizon.mark(0, Some(8)), 7);
        assert_eq!(horizon.mark(0, None), 10, "nothing above what was seen");

        horizon.saw(20, 200, later);
        assert_eq!(horizon.told(&heads(90, Some(&[90])), later), None);
        assert_eq!(
            horizon.mark(7, Some(30)),
            20,
            "a known straggler is no news"
        );
        assert_eq!(horizon.told(&heads(205, Some(&[205])), later), Some(0));
        assert!(!horizon.asks());
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_stragglers_are_waited_for() {
        let now = Instant::now();
        let many: Vec<u64> = (1..=65).collect();
        let mut horizon = Horizon::default();
        horizon.saw(10, 100, now);
        let later = now + GRACE;
        assert_eq!(horizon.told(&heads(1, Some(&many)), later), None);
        assert_eq!(horizon.mark(0, None), 0);
        assert_eq!(horizon.told(&heads(2, Some(&many[1..])), later), None);
        assert_eq!(horizon.mark(0, None), 10);
    }

    /// A database as far as the mark is concerned.
    #[derive(Debug, Default)]
    struct World {
        next_writer: u64,
        next_id: i64,
        /// Writers at work and the ids they have drawn.
        open: BTreeMap<u64, Vec<i64>>,
        live: Vec<i64>,
    }

    impl World {
        fn begin(&mut self) -> u64 {
            self.next_writer += 1;
            self.next_writer
        }

        fn heads(&self, above: i64, running: bool) -> Heads {
            let head = self.live.iter().copied().filter(|id| *id > above).min();
            Heads {
                first_running: self
                    .open
                    .keys()
                    .next()
                    .copied()
                    .unwrap_or(self.next_writer + 1),
                running: running.then(|| self.open.keys().copied().collect()),
                heads: vec![(0, head)],
            }
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Begin,
        Draw(usize),
        End(usize, bool),
        Claim(usize),
        Heads,
        Wait,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::Begin),
            4 => any::<usize>().prop_map(Step::Draw),
            2 => (any::<usize>(), any::<bool>()).prop_map(|(at, commit)| Step::End(at, commit)),
            3 => (0..4usize).prop_map(Step::Claim),
            3 => Just(Step::Heads),
            1 => Just(Step::Wait),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Writers begin, draw, commit and roll back as they like; the relay looks, delivers and moves its mark between.
        #[test]
        fn no_mark_passes_what_can_still_appear(steps in proptest::collection::vec(step(), 1..80)) {
            let mut now = Instant::now();
            let mut world = World::default();
            let mut horizon = Horizon::default();
            let mut mark = 0;
            for step in steps {
                let pick = |at: usize| world.open.keys().nth(at % world.open.len().max(1)).copied();
                match step {
                    Step::Begin => {
                        let writer = world.begin();
                        world.open.insert(writer, Vec::new());
                    }
                    Step::Draw(at) => if let Some(writer) = pick(at) {
                        world.next_id += 1;
                        let id = world.next_id;
                        world.open.entry(writer).or_default().push(id);
                    },
                    Step::End(at, commit) => if let Some(writer) = pick(at) {
                        let ids = world.open.remove(&writer).unwrap();
                        if commit { world.live.extend(ids); }
                    },
                    Step::Claim(most) => {
                        let mut seen: Vec<i64> = world.live.iter().copied().filter(|id| *id > mark).collect();
                        seen.sort_unstable();
                        seen.truncate(most);
                        if let Some(last) = seen.last() {
                            let writer = world.begin();
                            horizon.saw(*last, writer, now);
                            world.live.retain(|id| !seen.contains(id));
                        }
                    }
                    Step::Heads => {
                        let heads = world.heads(mark, horizon.asks_running(now));
                        let back = horizon.told(&heads, now);
                        mark = match back {
                            Some(floor) => mark.min(floor),
                            None => horizon.mark(mark, heads.heads[0].1),
                        };
                    }
                    Step::Wait => now += GRACE,
                }
                for id in &world.live {
                    let hidden_by_straggler = horizon.has_stragglers();
                    prop_assert!(*id > mark || hidden_by_straggler, "{id} is behind the mark {mark}");
                }
                for (writer, ids) in &world.open {
                    let passed = ids.iter().any(|id| *id <= mark);
                    prop_assert!(!passed || horizon.stragglers.contains_key(writer), "{writer} was passed unnoticed");
                }
                for (writer, floor) in &horizon.stragglers {
                    let known = world.open.get(writer).into_iter().flatten().all(|id| id > floor);
                    prop_assert!(known, "{writer} writes below its floor");
                }
            }
            // Whoever is left ends; one more look finds everything.
            for (_, ids) in std::mem::take(&mut world.open) {
                world.live.extend(ids);
            }
            let heads = world.heads(mark, horizon.asks_running(now));
            if let Some(floor) = horizon.told(&heads, now) { mark = mark.min(floor); }
            prop_assert!(world.live.iter().all(|id| *id > mark));
        }
    }
}
