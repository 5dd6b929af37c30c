//! Low-water marks: up to where a lane is known to be done with, so that claims need not step over what is gone. Pure.
//!
//! Deleted rows stay in a lane's index for as long as somebody's snapshot might want them, and each claim that begins at
//! the lane's head steps over them. A mark lets it begin behind them. What makes that more than `id > the last one seen`
//! are writers that have drawn a low id and not committed yet. Two facts bound them:
//!
//! - A writer gets its stamp before it draws an id (the enqueueing statement sees to that), and ids are drawn in order.
//!   So whoever holds an id up to one that was *seen* has a lower stamp than a transaction that began after that look.
//! - Once a snapshot says that all writers with lower stamps have ended, what they committed is in it. The head of a
//!   lane in that snapshot is then the lowest there will ever be up to the id that was seen.
//!
//! A writer that stays open must not stall the mark for ever: after [`GRACE`] it is remembered as a *straggler*, with the
//! id above which its rows can be, and the mark passes. When it has ended, all lanes are looked at from there once more.
//! Where there are too many to remember, the mark waits.
//!
//! While a sink is down, what waits for it stands at the heads, and a second mark per lane says up to where there is nothing
//! else. What holds for the first holds for it, of the rows of all other topics: so each row that waits is stepped over once
//! and not with every look. A look at the heads takes in so many rows and no more; a mark goes as far as that, and the lane is
//! claimed from when it has arrived. What is shut for a moment only, because its probe is out, is not passed. When a topic that
//! was passed may go, one look steps over all that waits for the sake of a probe; if it finds none, or the topic is given its
//! batches one by one, the second mark begins again without it.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

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
    safe: i64,
    pending: Option<Pending>,
    /// Writers that were passed, each with the id above which it may still write.
    stragglers: BTreeMap<u64, i64>,
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
    fn begins(&self, now: Instant) -> bool {
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
    fn mark(&self, above: i64, head: Head) -> i64 {
        let done = match head {
            Head::Row(id) => self.safe.min(id.saturating_sub(1)),
            Head::NothingUpTo(id) => self.safe.min(id),
            Head::Nothing => self.safe,
        };
        above.max(done)
    }
}

/// Up to where a lane is done with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Nothing up to here is left.
    done: i64,
    /// Nothing up to here is left but messages of the topics that are [`Passed`].
    passed: i64,
}

impl Mark {
    /// Where a look begins. `passing` says that it skips the topics that are passed.
    pub(crate) fn above(self, passing: bool) -> i64 {
        if passing {
            self.done.max(self.passed)
        } else {
            self.done
        }
    }

    /// Goes up to what a look that began here found at the head. Says whether it is on its way: it went as far as was looked,
    /// or will as soon as it may, and has more of the same before it.
    pub(crate) fn rise(
        &mut self,
        horizon: &Horizon,
        head: Head,
        passing: bool,
        now: Instant,
    ) -> bool {
        let to = horizon.mark(self.above(passing), head);
        if passing {
            self.passed = to;
        } else {
            self.done = to;
        }
        matches!(head, Head::NothingUpTo(id) if to == id || horizon.begins(now))
    }

    /// Whether it rises as soon as what stands above it is gone.
    pub(crate) fn may_rise(self, horizon: &Horizon) -> bool {
        self.done < horizon.safe
    }

    /// Something may have come to lie above this.
    pub(crate) fn fall(&mut self, floor: i64) {
        self.done = self.done.min(floor);
        self.passed = self.passed.min(floor);
    }

    fn forget_passed(&mut self) {
        self.passed = 0;
    }
}

/// The topics that marks have passed, over all lanes: those that were shut to stay so when that was last asked for.
#[derive(Debug, Default)]
pub(crate) struct Passed(HashSet<String>);

impl Passed {
    /// Whether a look that skips these topics may begin behind what was passed. It may skip more, but not less: then what was
    /// passed is to be seen.
    pub(crate) fn within(&self, skipped: &[String]) -> bool {
        let skipped: HashSet<&str> = skipped.iter().map(String::as_str).collect();
        !skipped.is_empty() && self.0.iter().all(|topic| skipped.contains(topic.as_str()))
    }

    /// From now on marks pass, of those that are skipped, these: all that they have passed so far, and what is shut to stay so.
    /// What is shut only until something comes back that is under way is soon looked for again.
    pub(crate) fn grow(&mut self, skipped: &[String], stays: impl Fn(&str) -> bool) -> Vec<String> {
        let passes = |topic: &&String| self.0.contains(topic.as_str()) || stays(topic);
        let passed: Vec<String> = skipped.iter().filter(passes).cloned().collect();
        self.0 = passed.iter().cloned().collect();
        passed
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether one of them is like that.
    pub(crate) fn any(&self, which: impl Fn(&str) -> bool) -> bool {
        self.0.iter().any(|topic| which(topic))
    }

    /// Passes nothing any more.
    pub(crate) fn forget<'m>(&mut self, marks: impl Iterator<Item = &'m mut Mark>) {
        self.0.clear();
        marks.for_each(Mark::forget_passed);
    }

    /// Gives up what was passed if a topic of it is not shut any more. Not when it is merely probed: what was passed is then
    /// looked at once, and is still nothing else.
    pub(crate) fn retain<'m>(
        &mut self,
        shut: impl Fn(&str) -> bool,
        marks: impl Iterator<Item = &'m mut Mark>,
    ) {
        if !self.0.iter().all(|topic| shut(topic)) {
            self.forget(marks);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn heads(first_running: u64, running: Option<&[u64]>) -> Heads {
        Heads {
            ended_below: first_running,
            running: running.map(<[u64]>::to_vec),
            heads: Vec::new(),
            newest: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_mark_waits_for_writers_and_not_for_ever() {
        let now = Instant::now();
        let mut horizon = Horizon::default();
        horizon.saw(10, 100, now);
        assert_eq!(horizon.told(&heads(90, Some(&[90])), now), None);
        assert_eq!(
            horizon.mark(0, Head::Row(8)),
            0,
            "90 may hold an id below 8"
        );
        let later = now + GRACE;
        assert!(horizon.asks_running(later));
        assert_eq!(horizon.told(&heads(90, Some(&[90, 120])), later), None);
        assert_eq!(horizon.mark(0, Head::Row(8)), 7);
        assert_eq!(
            horizon.mark(0, Head::Nothing),
            10,
            "nothing above what was seen"
        );

        horizon.saw(20, 200, later);
        assert_eq!(horizon.told(&heads(90, Some(&[90])), later), None);
        assert_eq!(
            horizon.mark(7, Head::Row(30)),
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
        assert_eq!(horizon.mark(0, Head::Nothing), 0);
        assert_eq!(horizon.told(&heads(2, Some(&many[1..])), later), None);
        assert_eq!(horizon.mark(0, Head::Nothing), 10);
    }

    /// How many rows a look at the head takes in.
    const WINDOW: usize = 5;

    /// What a topic's sink is at. Only when it is open all that was passed is forgotten.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Way {
        Down,
        Probe,
        Probing,
    }

    /// A clock that is set forward says that all have had their time.
    #[tokio::test(start_paused = true)]
    async fn stamps_that_are_times_do_not_pass_before_their_time() {
        let mut now = Instant::now();
        let mut horizon = Horizon::new(5 * GRACE);
        horizon.saw(10, 100, now);
        for passed in [0, 0, 0, 0, 0, 10] {
            assert_eq!(horizon.told(&heads(200, None), now), None);
            assert_eq!(horizon.mark(0, Head::Nothing), passed);
            now += GRACE;
        }
    }

    /// A database as far as the mark is concerned. Two thirds of the ids are of topics whose sinks may be down.
    #[derive(Debug, Default)]
    struct World {
        next_writer: u64,
        next_id: i64,
        /// Writers at work and the ids they have drawn.
        open: BTreeMap<u64, Vec<i64>>,
        live: Vec<i64>,
        /// Those that are not open.
        topics: BTreeMap<&'static str, Way>,
    }

    fn topic(id: i64) -> &'static str {
        ["a", "b", "open"][id.unsigned_abs() as usize % 3]
    }

    impl World {
        fn begin(&mut self) -> u64 {
            self.next_writer += 1;
            self.next_writer
        }

        fn skipped(&self) -> Vec<String> {
            let shut = self.topics.iter().filter(|(_, way)| **way != Way::Probe);
            shut.map(|(topic, _)| (*topic).to_owned()).collect()
        }

        fn goes(&self, id: i64) -> bool {
            !self.skipped().iter().any(|skipped| skipped == topic(id))
        }

        fn heads(&mut self, above: i64, skipped: &[String], running: bool, newest: bool) -> Heads {
            let mut seen: Vec<i64> = self.live.iter().copied().filter(|id| *id > above).collect();
            seen.sort_unstable();
            let last = seen.last().copied().filter(|_| newest);
            let more = seen.len() >= WINDOW;
            seen.truncate(WINDOW);
            let passes = |id: &i64| skipped.iter().any(|skipped| skipped == topic(*id));
            let row = seen.iter().copied().find(|id| !passes(id));
            let head = Head::new(row, seen.last().copied().filter(|_| more));
            let ended_below = self.open.keys().next().copied();
            Heads {
                ended_below: ended_below.unwrap_or(self.next_writer + 1),
                running: running.then(|| self.open.keys().copied().collect()),
                heads: vec![(0, head)],
                newest: last.map(|id| (id, self.begin())),
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
        Turn(&'static str, Option<Way>),
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::Begin),
            4 => any::<usize>().prop_map(Step::Draw),
            2 => (any::<usize>(), any::<bool>()).prop_map(|(at, commit)| Step::End(at, commit)),
            3 => (0..4usize).prop_map(Step::Claim),
            3 => Just(Step::Heads),
            1 => Just(Step::Wait),
            2 => (
                prop_oneof![Just("a"), Just("b")],
                prop_oneof![
                    Just(None),
                    Just(Some(Way::Down)),
                    Just(Some(Way::Probe)),
                    Just(Some(Way::Probing)),
                ],
            )
                .prop_map(|(topic, way)| Step::Turn(topic, way)),
            1 => Just(Step::Restart),
        ]
    }

    /// A relay as far as its marks are concerned.
    #[derive(Default)]
    struct Relay {
        horizon: Horizon,
        mark: Mark,
        passed: Passed,
    }

    impl Relay {
        fn asks_heads(&mut self, world: &mut World, now: Instant) {
            let skipped = world.skipped();
            let stays = |topic: &str| world.topics.get(topic) == Some(&Way::Down);
            let passed = match self.passed.within(&skipped) {
                true => self.passed.grow(&skipped, stays),
                false => Vec::new(),
            };
            let passing = !passed.is_empty();
            let above = self.mark.above(passing);
            let newest = passing && self.horizon.seeks();
            let heads = world.heads(above, &passed, self.horizon.asks_running(now), newest);
            let back = self.horizon.told(&heads, now);
            if let Some((id, stamp)) = heads.newest {
                self.horizon.saw(id, stamp, now);
            }
            if let Some(floor) = back {
                self.mark.fall(floor);
            } else {
                self.mark
                    .rise(&self.horizon, heads.heads[0].1, passing, now);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        /// Writers begin, draw, commit and roll back as they like, a sink goes and comes; the relay looks, delivers and moves
        /// its marks between.
        #[test]
        fn no_mark_passes_what_can_still_appear(steps in proptest::collection::vec(step(), 1..80)) {
            let mut now = Instant::now();
            let mut world = World::default();
            let mut relay = Relay::default();
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
                        let above = relay.mark.above(relay.passed.within(&world.skipped()));
                        let live = world.live.iter().copied();
                        let mut seen: Vec<i64> = live.filter(|id| *id > above && world.goes(*id)).collect();
                        seen.sort_unstable();
                        seen.truncate(most);
                        if let Some(last) = seen.last() {
                            let writer = world.begin();
                            relay.horizon.saw(*last, writer, now);
                            world.live.retain(|id| !seen.contains(id));
                        }
                    }
                    Step::Heads => relay.asks_heads(&mut world, now),
                    Step::Wait => now += GRACE,
                    Step::Turn(topic, way) => {
                        match way {
                            Some(way) => world.topics.insert(topic, way),
                            None => world.topics.remove(topic),
                        };
                        let shut = |topic: &str| world.topics.contains_key(topic);
                        relay.passed.retain(shut, std::iter::once(&mut relay.mark));
                    }
                    Step::Restart => relay.passed.forget(std::iter::once(&mut relay.mark)),
                }
                let passing = relay.passed.within(&world.skipped());
                let above = relay.mark.above(passing);
                for id in &world.live {
                    let passes = relay.passed.any(|passed| passed == topic(*id)) && !world.goes(*id);
                    let looked_for = *id > relay.mark.above(false) && (*id > above || passes);
                    prop_assert!(looked_for || relay.horizon.has_stragglers(), "{id} is behind {:?}", relay.mark);
                }
                for (writer, ids) in &world.open {
                    let passed = ids.iter().any(|id| *id <= above);
                    prop_assert!(!passed || relay.horizon.stragglers.contains_key(writer), "{writer} was passed unnoticed");
                }
                for (writer, floor) in &relay.horizon.stragglers {
                    let known = world.open.get(writer).into_iter().flatten().all(|id| id > floor);
                    prop_assert!(known, "{writer} writes below its floor");
                }
            }
            // Whoever is left ends, the sink comes back; one more look finds everything.
            for (_, ids) in std::mem::take(&mut world.open) {
                world.live.extend(ids);
            }
            world.topics.clear();
            relay.passed.retain(|_| false, std::iter::once(&mut relay.mark));
            relay.asks_heads(&mut world, now);
            prop_assert!(world.live.iter().all(|id| *id > relay.mark.above(false)));
        }
    }

    #[test]
    fn what_is_shut_for_a_moment_is_not_passed() {
        let skipped = ["down", "probing"].map(str::to_owned);
        let mut passed = Passed::default();
        let down = |topic: &str| topic == "down";
        assert_eq!(passed.grow(&skipped, down), ["down"]);
        assert!(passed.within(&skipped[..1]), "as its probe is out");
        assert_eq!(passed.grow(&skipped, |_| true), skipped);
        assert_eq!(passed.grow(&skipped, |_| false), skipped, "it was passed");
        assert!(!passed.within(&skipped[..1]), "it is to be looked for");
        passed.forget(std::iter::empty());
        assert_eq!(passed.grow(&skipped[..1], down), ["down"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_a_sink_is_stepped_over_once() {
        let now = Instant::now();
        let mut world = World {
            next_writer: 1,
            next_id: 999,
            live: (1..=333).map(|nth| nth * 3).collect(),
            topics: BTreeMap::from([("a", Way::Down)]),
            ..World::default()
        };
        let mut relay = Relay::default();
        for _ in 0..=333 / WINDOW + 2 {
            relay.asks_heads(&mut world, now);
        }
        assert_eq!((relay.mark.done, relay.mark.passed), (0, 999));
        world.live.push(998);
        relay.mark.fall(900);
        for _ in 0..=33 / WINDOW + 1 {
            relay.asks_heads(&mut world, now);
        }
        assert_eq!(relay.mark.passed, 997, "what came back is not passed");
    }
}
