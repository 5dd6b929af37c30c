//! Marks against a world of writers.

use std::{collections::BTreeMap, sync::OnceLock};

use proptest::prelude::*;
use tokio::time::Instant;

use super::{horizon::GRACE, *};
use crate::store::{Head, Heads, Look, Waiting};

fn heads(first_running: u64, running: Option<&[u64]>) -> Heads {
    Heads {
        ended_below: first_running,
        running: running.map(<[u64]>::to_vec),
        heads: Vec::new(),
        held: Vec::new(),
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

/// What a topic's sink is at, if it is not simply up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Down,
    /// It may have something now, and will be shut again.
    Returning,
}

/// The lane that all rows are in.
const LANE: i32 = 0;

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

/// A database as far as the mark is concerned. Three quarters of the ids are of topics whose sinks may be down.
#[derive(Debug, Default)]
struct World {
    next_writer: u64,
    next_id: i64,
    /// Writers at work and the ids they have drawn.
    open: BTreeMap<u64, Vec<i64>>,
    live: Vec<i64>,
    /// Those that wait for their retry, and until when.
    waiting: BTreeMap<i64, Instant>,
    /// Those that are not open.
    topics: BTreeMap<&'static str, Way>,
}

/// The database's clock.
fn micros(at: Instant) -> i64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    let epoch = *EPOCH.get_or_init(Instant::now);
    let since = |one: Instant, other: Instant| i64::try_from((one - other).as_micros()).unwrap();
    if at >= epoch {
        since(at, epoch)
    } else {
        -since(epoch, at)
    }
}

fn topic(id: i64) -> &'static str {
    ["a", "b", "c", "open"][id.unsigned_abs() as usize % 4]
}

impl World {
    fn begin(&mut self) -> u64 {
        self.next_writer += 1;
        self.next_writer
    }

    fn shut(&self, held: bool) -> Skips {
        let shut = self.topics.iter().filter(|(_, way)| **way == Way::Down);
        let topics = shut.map(|(topic, _)| (*topic).to_owned()).collect();
        Skips { held, topics }
    }

    fn closed(&self) -> Skips {
        let topics = self.topics.keys().map(|topic| (*topic).to_owned());
        Skips {
            held: true,
            topics: topics.collect(),
        }
    }

    /// Whether it waits for its retry, or behind one of its key: there are two, each of two topics.
    fn is_held(&self, id: i64, now: i64) -> bool {
        let mut waiting = self
            .waiting
            .iter()
            .filter(|(_, until)| micros(**until) > now);
        waiting.any(|(held, _)| *held <= id && *held % 2 == id % 2)
    }

    fn skips(&self, skips: &Skips, id: i64, now: i64) -> bool {
        let shut = skips.topics.iter().any(|skipped| skipped == topic(id));
        shut || skips.held && self.is_held(id, now)
    }

    fn heads(
        &mut self,
        above: i64,
        skips: &Skips,
        running: bool,
        newest: bool,
        now: Instant,
    ) -> Heads {
        let mut seen: Vec<i64> = self.live.iter().copied().filter(|id| *id > above).collect();
        seen.sort_unstable();
        let last = seen.last().copied().filter(|_| newest);
        let more = seen.len() >= WINDOW;
        seen.truncate(WINDOW);
        let row = seen
            .iter()
            .copied()
            .find(|id| !self.skips(skips, *id, micros(now)));
        let head = Head::new(row, seen.last().copied().filter(|_| more));
        let waiting = |id: &i64| {
            let until = *self.waiting.get(id)?;
            Some(Waiting {
                lane: LANE,
                id: *id,
                retry_at: micros(until),
                left: until - now,
            })
        };
        let held = seen.iter().filter(|_| skips.held).filter_map(waiting);
        let held = held.collect();
        let ended_below = self.open.keys().next().copied();
        Heads {
            ended_below: ended_below.unwrap_or(self.next_writer + 1),
            running: running.then(|| self.open.keys().copied().collect()),
            heads: vec![(0, head)],
            held,
            newest: last.map(|id| (id, self.begin())),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Begin,
    Draw(usize),
    End(usize, bool),
    /// So many, and for so many seconds the database does not come to it.
    Claim(usize, u32),
    /// What is claimed comes back, to wait for so many seconds.
    Fail(usize, u32, u32),
    /// Whether looks are long enough to pass what is held.
    Walk(bool),
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
        3 => (0..4usize, 0..3u32).prop_map(|(most, late)| Step::Claim(most, late)),
        2 => (1..3usize, 0..3u32, 1..4u32).prop_map(|(most, late, wait)| Step::Fail(most, late, wait)),
        1 => any::<bool>().prop_map(Step::Walk),
        3 => Just(Step::Heads),
        1 => Just(Step::Wait),
        2 => (
            prop_oneof![Just("a"), Just("b"), Just("c")],
            prop_oneof![
                1 => Just(None),
                2 => Just(Some(Way::Down)),
                2 => Just(Some(Way::Returning)),
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
    layers: Layers,
    walks: bool,
}

impl Relay {
    fn turn(&mut self, world: &World, now: Instant) {
        self.layers.expire(now);
        self.layers.turn(&world.shut(self.walks), &world.closed());
    }

    fn asks_heads(&mut self, world: &mut World, now: Instant) {
        self.turn(world, now);
        let passes = self.layers.passes();
        let heads = world.heads(
            self.layers.above(LANE),
            self.layers.skips(),
            self.horizon.asks_running(now),
            passes && self.horizon.seeks(),
            now,
        );
        let back = self.horizon.told(&heads, now);
        if let Some((id, stamp)) = heads.newest {
            self.horizon.saw(id, stamp, now);
        }
        if let Some(floor) = back {
            self.layers.fall(floor);
        } else {
            let held = heads.held.iter().map(|waiting| Held {
                at: waiting.retry_at,
                until: now + waiting.left,
                id: waiting.id,
            });
            let held: Vec<Held> = held.collect();
            let head = heads.heads[0].1;
            self.layers.rise(LANE, &self.horizon, head, &held, now);
        }
    }

    /// What a claim finds, in order, if the lane is looked at; and all that it would find from the beginning.
    fn looks(&mut self, world: &World, now: Instant) -> Option<(Vec<i64>, Vec<i64>)> {
        self.looks_late(world, now, now)
    }

    /// The same where the database comes to it later.
    fn looks_late(
        &mut self,
        world: &World,
        now: Instant,
        late: Instant,
    ) -> Option<(Vec<i64>, Vec<i64>)> {
        self.turn(world, now);
        let view = self.layers.view([LANE].into_iter());
        let Look { above, as_of, .. } = self.layers.begins(view, LANE)?;
        let skips = match view.holds {
            true => world.closed(),
            false => world.shut(true),
        };
        let mut all: Vec<i64> = world.live.clone();
        let time = micros(late).min(as_of.unwrap_or(i64::MAX));
        all.retain(|id| !world.skips(&skips, *id, time));
        all.sort_unstable();
        let found = all.iter().copied().filter(|id| *id > above).collect();
        Some((found, all))
    }

    fn finds(&mut self, world: &World, now: Instant) -> Vec<i64> {
        let looked = self.looks(world, now);
        looked.map(|(found, _)| found).unwrap_or_default()
    }

    /// Looks at the heads until the lane is claimed from.
    fn arrives(&mut self, world: &mut World, now: Instant) -> usize {
        for looks in 0..1_000 {
            self.turn(world, now);
            if !self.layers.travels([LANE].into_iter()) {
                return looks;
            }
            self.asks_heads(world, now);
        }
        panic!("it never arrives");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// Writers begin, draw, commit and roll back as they like, sinks go and come; the relay looks, delivers and moves its marks
    /// between.
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
                Step::Claim(most, late) | Step::Fail(most, late, _) => {
                    let then = now + GRACE * late;
                    let mut seen = relay.looks_late(&world, now, then).unwrap_or_default().0;
                    now = then;
                    seen.truncate(most);
                    for left in world.live.iter().filter(|id| !seen.contains(id)) {
                        let alike = |id: &&i64| topic(**id) == topic(*left);
                        let overtakes = seen.iter().filter(alike).any(|id| id > left);
                        prop_assert!(!overtakes || relay.horizon.has_stragglers(), "{seen:?} before {left}");
                    }
                    if let Some(last) = seen.last() {
                        let writer = world.begin();
                        relay.horizon.saw(*last, writer, now);
                    }
                    if let Step::Fail(.., wait) = step {
                        for id in &seen {
                            relay.layers.waits(LANE, *id);
                        }
                        world.waiting.extend(seen.iter().map(|id| (*id, now + GRACE * wait)));
                    } else {
                        world.live.retain(|id| !seen.contains(id));
                        world.waiting.retain(|id, _| !seen.contains(id));
                    }
                }
                Step::Walk(walks) => relay.walks = walks,
                Step::Heads => relay.asks_heads(&mut world, now),
                Step::Wait => now += GRACE,
                Step::Turn(topic, way) => {
                    match way {
                        Some(way) => world.topics.insert(topic, way),
                        None => world.topics.remove(topic),
                    };
                }
                Step::Restart => relay.layers.restart(LANE),
            }
            if let Some((found, all)) = relay.looks(&world, now) && !relay.horizon.has_stragglers() {
                prop_assert_eq!(found, all);
            }
            let marks = relay.layers.marks(LANE);
            for (above, skips) in &marks {
                for id in &world.live {
                    prop_assert!(
                        id > above || world.skips(skips, *id, micros(now)) || relay.horizon.has_stragglers(),
                        "{id} is behind {above} of {skips:?}"
                    );
                }
                for (writer, ids) in &world.open {
                    let passed = ids.iter().any(|id| id <= above);
                    prop_assert!(!passed || relay.horizon.stragglers.contains_key(writer), "{writer} was passed unnoticed");
                }
            }
            let topics = |at: usize| &marks[at].1.topics;
            prop_assert!(
                (1..marks.len()).all(|at| {
                    marks[at - 1].1 != marks[at].1 && topics(at - 1).iter().all(|topic| topics(at).contains(topic))
                }),
                "{marks:?} are not one within the other"
            );
            for (writer, floor) in &relay.horizon.stragglers {
                let known = world.open.get(writer).into_iter().flatten().all(|id| id > floor);
                prop_assert!(known, "{writer} writes below its floor");
            }
        }
        // Whoever is left ends, the sinks come back; one more look finds everything.
        for (_, ids) in std::mem::take(&mut world.open) {
            world.live.extend(ids);
        }
        world.topics.clear();
        now += 4 * GRACE;
        relay.walks = false;
        relay.asks_heads(&mut world, now);
        prop_assert_eq!(relay.finds(&world, now).len(), world.live.len());
    }
}

/// 333 rows of each topic.
fn backlog(topics: &[(&'static str, Way)]) -> World {
    World {
        next_writer: 1,
        next_id: 1_332,
        live: (1..=1_332).collect(),
        topics: topics.iter().copied().collect(),
        ..World::default()
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_sink_is_stepped_over_once() {
    let now = Instant::now();
    let mut world = backlog(&[]);
    world.live.retain(|id| topic(*id) == "a");
    let mut relay = Relay::default();
    relay.asks_heads(&mut world, now);
    world.topics.insert("a", Way::Down);
    assert!(relay.arrives(&mut world, now) > 333 / WINDOW);
    assert_eq!(relay.layers.above(LANE), 1_332);
    let late = 1_299;
    assert_eq!(topic(late), "open");
    world.live.push(late);
    relay.layers.fall(1_200);
    assert!(
        relay.finds(&world, now).is_empty(),
        "it would step over 33 rows"
    );
    relay.arrives(&mut world, now);
    assert_eq!(
        relay.layers.above(LANE),
        late - 1,
        "what came back is not passed"
    );
    assert_eq!(relay.finds(&world, now), [late]);
}

/// While `c` stays down, `a` comes and goes.
#[tokio::test(start_paused = true)]
async fn what_stays_shut_is_not_stepped_over_again_when_another_comes_and_goes() {
    let now = Instant::now();
    let mut world = backlog(&[("a", Way::Down), ("c", Way::Down)]);
    world
        .live
        .retain(|id| topic(*id) != "b" && (topic(*id) != "open" || *id > 1_328));
    let mut relay = Relay::default();
    relay.arrives(&mut world, now);
    assert_eq!(relay.finds(&world, now), [1_331], "behind all that waits");

    world.topics.insert("a", Way::Returning);
    assert_eq!(
        relay.finds(&world, now),
        [1_331],
        "not held up by who returns"
    );
    relay.arrives(&mut world, now);
    assert_eq!(relay.finds(&world, now)[0], 4, "its turn");
    world.topics.insert("a", Way::Down);
    assert_eq!(relay.arrives(&mut world, now), 0, "shut again, as it was");
    assert_eq!(relay.layers.above(LANE), 1_330);
    world.topics.insert("a", Way::Returning);
    assert_eq!(relay.arrives(&mut world, now), 0);
    world.topics.remove("a");
    assert_eq!(relay.arrives(&mut world, now), 0);
    assert_eq!(relay.finds(&world, now)[0], 4);
}

/// Of two lanes the second is not through yet, with any set: the first is looked at by what is shut.
#[tokio::test(start_paused = true)]
async fn who_returns_is_not_held_where_that_helps_nobody() {
    let now = Instant::now();
    let mut horizon = Horizon::default();
    horizon.saw(10, 100, now);
    horizon.told(&heads(100, None), now);
    let [c, both] = [["c"].as_slice(), &["a", "c"]].map(skips);
    let mut layers = Layers::default();
    layers.turn(&both, &both);
    layers.rise(0, &horizon, Head::Row(9), &[], now);
    layers.turn(&c, &both);
    layers.rise(0, &horizon, Head::Row(5), &[], now);
    let view = layers.view([0, 1].into_iter());
    assert!(!view.holds);
    assert_eq!(
        [0, 1].map(|lane| layers.begins(view, lane).map(|look| look.above)),
        [Some(4), None]
    );

    layers.turn(&both, &both);
    layers.rise(1, &horizon, Head::Row(7), &[], now);
    layers.turn(&c, &both);
    let view = layers.view([0, 1].into_iter());
    assert!(view.holds);
    assert_eq!(
        [0, 1].map(|lane| layers.begins(view, lane).map(|look| look.above)),
        [Some(8), Some(6)]
    );
}

/// What waits behind a retry is stepped over once for each attempt.
#[tokio::test(start_paused = true)]
async fn what_waits_behind_a_retry_is_passed_until_its_time() {
    let mut now = Instant::now();
    let mut world = backlog(&[]);
    world.live.retain(|id| id % 2 == 0);
    world.live.push(1_331);
    let mut relay = Relay {
        walks: true,
        ..Relay::default()
    };
    let again = now + 2 * GRACE;
    world.waiting.extend([(2, again), (500, again + GRACE)]);
    assert!(relay.arrives(&mut world, now) > 666 / WINDOW);
    assert_eq!(relay.layers.above(LANE), 1_330);
    assert_eq!(relay.finds(&world, now), [1_331]);
    assert_eq!(relay.layers.expires(), Some(again));

    now = again;
    assert_eq!(relay.finds(&world, now)[0], 2, "its turn");
    world.waiting.insert(2, again + GRACE);
    assert!(
        relay.arrives(&mut world, now) == 0,
        "a look finds what follows at once"
    );
    for _ in 0..=666 / WINDOW {
        relay.asks_heads(&mut world, now);
    }
    relay.arrives(&mut world, now);
    assert_eq!(relay.layers.above(LANE), 1_330);
    now = again + GRACE;
    assert_eq!(
        relay.finds(&world, now)[0],
        2,
        "of both that are due the first"
    );
}

/// A message that waits for its retry is passed, for its topic, before anybody asks what is held.
#[tokio::test(start_paused = true)]
async fn what_was_passed_for_its_topic_is_asked_what_it_holds() {
    let now = Instant::now();
    let mut world = backlog(&[("a", Way::Down)]);
    world.live = vec![4, 6, 7];
    let again = now + GRACE;
    world.waiting.insert(4, again);
    let mut relay = Relay::default();
    for _ in 0..3 {
        relay.asks_heads(&mut world, now);
    }
    assert_eq!(relay.layers.above(LANE), 5);
    relay.walks = true;
    relay.arrives(&mut world, now);
    relay.asks_heads(&mut world, now);
    assert_eq!(relay.layers.above(LANE), 6, "6 waits behind 4");
    assert_eq!(relay.finds(&world, now), [7]);
    assert_eq!(relay.finds(&world, again), [6, 7], "4 holds it no longer");
}

fn skips(topics: &[&str]) -> Skips {
    Skips {
        held: false,
        topics: topics.iter().map(ToString::to_string).collect(),
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_sets_those_are_kept_that_pass_the_most() {
    let now = Instant::now();
    let topics = ["t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "t8"];
    let all = skips(&topics);
    let mut layers = Layers::default();
    for most in 0..=9 {
        let shut = skips(&topics[..most]);
        assert_eq!(layers.turn(&shut, &all), most > 0);
        assert_eq!(layers.skips(), &shut);
        layers.rise(LANE, &Horizon::default(), Head::Nothing, &[], now);
    }
    let kept = |layers: &Layers| -> Vec<usize> {
        let marks = layers.marks(LANE).into_iter();
        marks.map(|(_, skips)| skips.topics.len()).collect()
    };
    assert_eq!(kept(&layers), [0, 6, 7, 8, 9]);
    assert!(!layers.turn(&skips(&topics[..7]), &all));
    assert!(
        layers.turn(&skips(&topics[..1]), &all),
        "and who is at work"
    );
    assert_eq!(kept(&layers), [0, 1, 7, 8, 9]);
    assert!(layers.turn(&skips(&topics[1..2]), &all));
    assert_eq!(layers.skips(), &skips(&topics[1..2]));
    layers.turn(&skips(&[]), &skips(&topics[..7]));
    assert_eq!(
        kept(&layers),
        [0, 1, 7],
        "without what passed one that is up"
    );
}
