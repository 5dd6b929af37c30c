//! The decisions of a relay as pure functions: what to publish of what is due, and what to write down afterwards.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use mainstay_retry::Backoff;
use rand::Rng;

use crate::{
    admin::DeadCause,
    gate::Pass,
    history::{lost_last, note},
    sink::Outcome,
    store::{Buried, Candidate, Failed},
};

/// What happens to a key's later messages while one of its messages waits for a retry, and when it is given up.
///
/// The failed message's topic decides. Messages that were enqueued unordered hold back nothing and are held back by nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyPolicy {
    /// They wait as well, so that a key's first deliveries stay in order. When the message is given up, they go on.
    #[default]
    Block,
    /// They wait as well, and when the message is given up, its key is *parked*: later messages of the same topic and key
    /// become dead letters with the cause [`Parked`](DeadCause::Parked), in order, until an operator redrives or
    /// discards them. For consumers that cannot make sense of what follows a message that is missing.
    Park,
    /// They overtake it: order is kept except for messages that fail.
    Skip,
}

/// What becomes of a message whose topic no sink of the relay takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unrouted {
    /// It keeps its place and waits, as for a sink that is down; the topic is logged once, and told by
    /// [`RelayHandle::topics_without_sink`](crate::RelayHandle::topics_without_sink). In a rolling deployment the relays of the
    /// old version meet topics of the new one: those of the new version deliver them once they have the lanes.
    #[default]
    Wait,
    /// It is a dead letter at once, with the cause [`NoSink`](DeadCause::NoSink).
    DeadLetter,
}

/// The longest wait of a message, whatever a schedule says: databases cannot add any number to their clocks.
const WAIT_MAX: Duration = Duration::from_secs(30 * 86_400);

/// How failures are answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) max_attempts: u32,
    pub(crate) backoff: Backoff,
    /// The longest wait a sink may ask for.
    pub(crate) retry_after_max: Duration,
    pub(crate) unrouted: Unrouted,
}

/// Where a topic goes, and whether it may go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    None,
    Route { route: usize, pass: Pass },
}

/// What sinks may still be given in one look, over all lanes.
#[derive(Debug, Default)]
pub(crate) struct Permits {
    /// Batches that were given to a sink that is not simply up.
    batches: HashMap<usize, u32>,
    /// How many more messages may be under way to a sink, where that is bounded.
    pub(crate) room: HashMap<usize, usize>,
}

impl Permits {
    /// Takes one of the `most` batches that this look may have for the route.
    fn take(&mut self, route: usize, most: u32) -> bool {
        let taken = self.batches.entry(route).or_default();
        let may = *taken < most;
        *taken += u32::from(may);
        may
    }

    /// Whether there is room for one message more. When there is none there will be none in this look: so none of a key goes
    /// after one that could not.
    fn fits(&self, route: usize) -> bool {
        self.room.get(&route).is_none_or(|room| *room > 0)
    }

    fn fill(&mut self, route: usize) {
        if let Some(room) = self.room.get_mut(&route) {
            *room = room.saturating_sub(1);
        }
    }
}

/// A lane's part of what is due.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    /// To be published, with the route of each and what its failure means for its key.
    pub(crate) publish: Vec<(usize, KeyPolicy, Candidate)>,
    /// To be given up without publishing.
    pub(crate) dead: Vec<Buried>,
    /// Topics of messages that may not go now: the next look can do without them.
    pub(crate) passed_over: Vec<String>,
    /// Whether it holds a message that probes a sink.
    pub(crate) probes: bool,
    /// Whether nothing is to be published beside it, in any lane: two relays in a row have died with what it holds.
    pub(crate) solo: bool,
}

/// Chooses of one lane's due messages, in order.
///
/// - Attempts used up (also because the maximum was lowered, or a crash spent the last one): given up here, so that no row
///   is ever too old to be claimed and yet not dead.
/// - A suspect is published alone in its lane, and once a second relay has died with it alone altogether, so that a message that
///   kills its relay does not take its neighbours along.
/// - After a message that is given up, later ones of its key wait until that is written down.
/// - What a parked key has is set aside, all of it at once.
/// - A sink that is probed gets one message of all lanes, one that is coming back a batch of some lanes.
pub(crate) fn cut(
    due: Vec<Candidate>,
    rules: &Rules,
    mut way: impl FnMut(&str) -> (Way, KeyPolicy),
    permits: &mut Permits,
) -> Cut {
    let mut cut = Cut::default();
    let mut stopped: HashSet<Vec<u8>> = HashSet::new();
    let mut paced: HashMap<usize, bool> = HashMap::new();
    let mut last: Option<(String, (Way, KeyPolicy))> = None;
    for candidate in due {
        let message = &candidate.message;
        let key = message.ordering_key();
        if !stopped.is_empty() && key.is_some_and(|key| stopped.contains(key)) {
            continue;
        }
        let (way, policy) = match &last {
            Some((topic, known)) if topic == message.topic() => *known,
            _ => {
                let found = way(message.topic());
                last = Some((message.topic().to_owned(), found));
                found
            }
        };
        let policy = if key.is_some() {
            policy
        } else {
            KeyPolicy::Skip
        };
        let verdict = match way {
            _ if candidate.parked => Some((
                DeadCause::Parked,
                "an earlier message of its key was given up",
            )),
            _ if candidate.attempts.unsigned_abs() >= rules.max_attempts => {
                Some((DeadCause::Exhausted, "its attempts are used up"))
            }
            Way::None if rules.unrouted == Unrouted::DeadLetter => {
                Some((DeadCause::NoSink, "no sink takes its topic"))
            }
            Way::None | Way::Route { .. } => None,
        };
        if let Some((cause, reason)) = verdict {
            if !candidate.parked {
                stopped.extend(key.map(<[u8]>::to_vec));
            }
            cut.dead.push(Buried {
                id: candidate.id,
                attempts: candidate.attempts,
                cause,
                park: policy == KeyPolicy::Park && !candidate.parked,
                reason: reason.to_owned(),
                note: None,
            });
            continue;
        }
        let Way::Route { route, pass } = way else {
            cut.passed_over.push(message.topic().to_owned());
            continue;
        };
        let alone = candidate.suspect;
        if alone && pass != Pass::Shut && !cut.publish.is_empty() {
            break;
        }
        let may = match pass {
            _ if !permits.fits(route) => false,
            Pass::Open => true,
            Pass::Shut => false,
            Pass::Probe => permits.take(route, 1),
            // Once for the whole lane: a key's later message must not go where its earlier one could not.
            Pass::Paced(most) => *paced
                .entry(route)
                .or_insert_with(|| permits.take(route, most)),
        };
        if !may {
            cut.passed_over.push(message.topic().to_owned());
            continue;
        }
        cut.probes |= pass == Pass::Probe;
        let lost = candidate.failures.as_deref().map_or(0, lost_last);
        cut.solo = alone && lost >= SOLO_FROM;
        permits.fill(route);
        cut.publish.push((route, policy, candidate));
        if alone {
            break;
        }
    }
    cut
}

/// As many attempts in a row as end with their relay until nothing goes beside a message. The first time hundreds may have been
/// under way with it, and the second time one of each lane.
const SOLO_FROM: usize = 2;

/// A row that was published: what is needed of it to write down the outcome.
#[derive(Clone, Debug)]
pub(crate) struct Tried {
    pub(crate) id: i64,
    /// Attempts spent before this one.
    pub(crate) attempts: i32,
    /// What its failure means for its key; [`KeyPolicy::Skip`] where it has none, or none that orders.
    pub(crate) policy: KeyPolicy,
    /// What it failed of before, as stored.
    pub(crate) failures: Option<String>,
    /// How long it had been waiting when it was read.
    pub(crate) age: Duration,
}

/// What an outcome means for the row.
#[derive(Debug)]
pub(crate) enum Fate {
    Delivered(i64),
    Later(Failed),
    Dead(Buried),
    /// Nothing is written: it is claimed again as it was.
    Untouched,
}

/// Decides a message's fate. `crashed` says that the publisher died with it: it will be published alone.
pub(crate) fn fate<R: Rng + ?Sized>(
    tried: &Tried,
    outcome: Outcome,
    crashed: bool,
    rules: &Rules,
    rng: &mut R,
) -> Fate {
    let spent = tried.attempts.saturating_add(1);
    let noted = |reason: &str| note(tried.failures.as_deref(), spent.unsigned_abs(), reason);
    let park = tried.policy == KeyPolicy::Park;
    match outcome {
        Outcome::Acked => Fate::Delivered(tried.id),
        Outcome::NotTried => Fate::Untouched,
        Outcome::Reject { reason } => Fate::Dead(Buried {
            id: tried.id,
            attempts: spent,
            cause: DeadCause::Rejected,
            park,
            reason: reason.as_str().to_owned(),
            note: Some(noted(reason.as_str())),
        }),
        Outcome::Retry { reason, .. } if spent.unsigned_abs() >= rules.max_attempts => {
            Fate::Dead(Buried {
                id: tried.id,
                attempts: spent,
                cause: DeadCause::Exhausted,
                park,
                reason: reason.as_str().to_owned(),
                note: Some(noted(reason.as_str())),
            })
        }
        Outcome::Retry { after, reason } => {
            let ours = wait(&rules.backoff, spent.unsigned_abs(), rng);
            let asked = after.unwrap_or_default().min(rules.retry_after_max);
            Fate::Later(Failed {
                id: tried.id,
                attempts: tried.attempts,
                delay: ours.max(asked).min(WAIT_MAX),
                suspect: crashed,
                holds: tried.policy != KeyPolicy::Skip,
                reason: reason.as_str().to_owned(),
                note: noted(reason.as_str()),
            })
        }
    }
}

/// How long to wait after so many attempts.
///
/// How long was waited before is not stored. Where the next wait is drawn from that, as with decorrelated jitter, the walk is
/// made anew: it is as likely as the one that was made.
fn wait<R: Rng + ?Sized>(backoff: &Backoff, spent: u32, rng: &mut R) -> Duration {
    let before = spent.saturating_sub(WALK_MAX);
    (before + 1..=spent).fold(Duration::ZERO, |before, attempt| {
        backoff.delay(attempt, before, rng)
    })
}

/// After so many steps a walk has long come to where it stays.
const WALK_MAX: u32 = 32;

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::{event::Event, message::Message};

    const RULES: Rules = Rules {
        max_attempts: 3,
        backoff: Backoff::constant(Duration::from_secs(1)),
        retry_after_max: Duration::from_secs(60),
        unrouted: Unrouted::DeadLetter,
    };

    const fn through(pass: Pass) -> (Way, KeyPolicy) {
        (Way::Route { route: 0, pass }, KeyPolicy::Block)
    }

    const OPEN: (Way, KeyPolicy) = through(Pass::Open);

    fn candidate(id: i64, key: &str, attempts: i32, suspect: bool) -> Candidate {
        let event = Event::new("t").key(key);
        Candidate {
            lane: 0,
            id,
            attempts,
            suspect,
            parked: false,
            failures: None,
            age: Duration::ZERO,
            message: Message::from_event(event, "/s", UNIX_EPOCH),
        }
    }

    fn tried(attempts: i32) -> Tried {
        Tried {
            id: 1,
            attempts,
            policy: KeyPolicy::Block,
            failures: None,
            age: Duration::ZERO,
        }
    }

    fn published(cut: &Cut) -> Vec<i64> {
        cut.publish
            .iter()
            .map(|(.., candidate)| candidate.id)
            .collect()
    }

    #[test]
    fn waits_that_are_drawn_from_the_last_one_grow_and_are_spread() {
        let (least, most) = (Duration::from_millis(200), Duration::from_secs(300));
        let rules = Rules {
            max_attempts: 1_000,
            backoff: Backoff::decorrelated(least, most),
            ..RULES
        };
        let mut rng = StdRng::seed_from_u64(7);
        let mut median = |attempts| {
            let mut delays: Vec<Duration> = (0..201)
                .map(|_| {
                    match fate(
                        &tried(attempts),
                        Outcome::retry("no"),
                        false,
                        &rules,
                        &mut rng,
                    ) {
                        Fate::Later(failed) => failed.delay,
                        other => panic!("{other:?}"),
                    }
                })
                .collect();
            delays.sort_unstable();
            assert!(delays[0] >= least && delays[200] <= most);
            assert!(
                attempts == 0 || delays[150] > delays[50],
                "all relays at once"
            );
            delays[100]
        };
        let medians = [0, 1, 5, 11, 100].map(&mut median);
        assert_eq!(medians[0], least);
        assert!(medians.is_sorted(), "{medians:?}");
        assert!(medians[3] > least * 10, "{medians:?}");
    }

    #[test]
    fn a_suspect_goes_alone_and_in_its_turn() {
        let due = || {
            vec![
                candidate(1, "a", 0, false),
                candidate(2, "b", 1, true),
                candidate(3, "c", 0, false),
            ]
        };
        let first = cut(due(), &RULES, |_| OPEN, &mut Permits::default());
        assert_eq!(published(&first), [1]);
        let then = cut(
            due().split_off(1),
            &RULES,
            |_| OPEN,
            &mut Permits::default(),
        );
        assert_eq!(published(&then), [2]);
    }

    #[test]
    fn nothing_goes_beside_what_two_relays_in_a_row_have_died_with() {
        let [no, lost] = ["no", crate::history::LOST];
        for (suspect, failures, solo) in [
            (true, &[lost][..], false),
            (true, &[lost, lost], true),
            (false, &[lost, lost], false),
            (true, &[lost, no, lost], false),
            (true, &[no, no, no, lost, lost], true),
        ] {
            let mut due = candidate(1, "a", 5, suspect);
            let noted: Vec<_> = failures.iter().map(|reason| (1, 7, reason)).collect();
            due.failures = Some(serde_json::to_string(&noted).unwrap());
            let rules = Rules {
                max_attempts: 9,
                ..RULES
            };
            let cut = cut(vec![due], &rules, |_| OPEN, &mut Permits::default());
            assert_eq!((cut.publish.len(), cut.solo), (1, solo), "{failures:?}");
        }
    }

    #[test]
    fn a_sink_is_given_no_more_than_it_has_room_for() {
        let mut permits = Permits::default();
        permits.room.insert(0, 3);
        let lane = |first: i64| (first..first + 2).map(|id| candidate(id, "a", 0, false));
        let cuts = [1, 11, 21].map(|first| {
            let cut = cut(lane(first).collect(), &RULES, |_| OPEN, &mut permits);
            (cut.publish.len(), cut.passed_over.len())
        });
        assert_eq!(cuts, [(2, 0), (1, 1), (0, 2)]);
    }

    #[test]
    fn a_message_that_no_sink_takes_waits_unless_it_is_to_be_given_up() {
        for (unrouted, dead, over) in [(Unrouted::Wait, 0, 1), (Unrouted::DeadLetter, 1, 0)] {
            let rules = Rules { unrouted, ..RULES };
            let nowhere = |_: &str| (Way::None, KeyPolicy::Block);
            let due = vec![candidate(1, "a", 0, false)];
            let cut = cut(due, &rules, nowhere, &mut Permits::default());
            assert_eq!((cut.dead.len(), cut.passed_over.len()), (dead, over));
        }
    }

    #[test]
    fn used_up_attempts_are_given_up_and_their_key_waits_for_that() {
        let due = vec![
            candidate(1, "a", 3, true),
            candidate(2, "a", 0, false),
            candidate(3, "b", 0, false),
        ];
        let cut = cut(due, &RULES, |_| OPEN, &mut Permits::default());
        assert_eq!(published(&cut), [3]);
        assert_eq!(cut.dead.len(), 1);
        assert_eq!(cut.dead[0].cause, DeadCause::Exhausted);
    }

    #[test]
    fn a_sink_that_is_probed_gets_one_message_of_all_lanes() {
        let probe = |_: &str| through(Pass::Probe);
        let mut permits = Permits::default();
        let due = || vec![candidate(1, "a", 0, false), candidate(2, "b", 0, false)];
        assert_eq!(published(&cut(due(), &RULES, probe, &mut permits)), [1]);
        assert!(published(&cut(due(), &RULES, probe, &mut permits)).is_empty());
    }

    #[test]
    fn a_sink_that_comes_back_gets_batches_of_as_many_lanes_as_it_may() {
        let paced = |_: &str| through(Pass::Paced(2));
        let mut permits = Permits::default();
        let due = || vec![candidate(1, "a", 0, false), candidate(2, "a", 0, false)];
        for _ in 0..2 {
            assert_eq!(published(&cut(due(), &RULES, paced, &mut permits)), [1, 2]);
        }
        let third = cut(due(), &RULES, paced, &mut permits);
        assert!(published(&third).is_empty() && third.passed_over.len() == 2);
    }

    #[test]
    fn a_parked_key_is_set_aside_whole_and_parks_nothing_itself() {
        let parked = |id| Candidate {
            parked: true,
            ..candidate(id, "a", 0, false)
        };
        let due = vec![parked(1), parked(2), candidate(3, "b", 0, false)];
        let park = |_: &str| (OPEN.0, KeyPolicy::Park);
        let cut = cut(due, &RULES, park, &mut Permits::default());
        assert_eq!(published(&cut), [3]);
        let dead: Vec<_> = cut
            .dead
            .iter()
            .map(|one| (one.id, one.cause, one.park))
            .collect();
        assert_eq!(
            dead,
            [(1, DeadCause::Parked, false), (2, DeadCause::Parked, false)]
        );
    }

    #[test]
    fn what_a_failure_means_for_the_key_is_its_topics_policy() {
        let mut rng = StdRng::seed_from_u64(1);
        for (policy, holds, parks) in [
            (KeyPolicy::Block, true, false),
            (KeyPolicy::Park, true, true),
            (KeyPolicy::Skip, false, false),
        ] {
            let of = |attempts| Tried {
                policy,
                ..tried(attempts)
            };
            let later = fate(&of(0), Outcome::retry("no"), false, &RULES, &mut rng);
            assert!(matches!(later, Fate::Later(failed) if failed.holds == holds));
            let dead = fate(&of(0), Outcome::reject("no"), false, &RULES, &mut rng);
            assert!(matches!(dead, Fate::Dead(buried) if buried.park == parks));
        }
    }

    #[test]
    fn the_key_of_an_unordered_message_holds_nothing() {
        let mut unordered = candidate(1, "a", 3, false);
        unordered.message.ordered = false;
        let park = |_: &str| (OPEN.0, KeyPolicy::Park);
        let due = vec![unordered, candidate(2, "a", 0, false)];
        let cut = cut(due, &RULES, park, &mut Permits::default());
        assert_eq!(published(&cut), [2]);
        assert!(!cut.dead[0].park);
    }

    #[test]
    fn a_topic_without_a_sink_is_not_lost_but_dead() {
        let cut = cut(
            vec![candidate(1, "a", 0, false)],
            &RULES,
            |_| (Way::None, KeyPolicy::Block),
            &mut Permits::default(),
        );
        assert_eq!(cut.dead[0].cause, DeadCause::NoSink);
    }

    #[test]
    fn the_last_attempt_is_the_last() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut fate_of =
            |attempts, outcome| fate(&tried(attempts), outcome, false, &RULES, &mut rng);
        assert!(matches!(
            fate_of(1, Outcome::retry("no")),
            Fate::Later(Failed { attempts: 1, .. })
        ));
        assert!(matches!(
            fate_of(2, Outcome::retry("no")),
            Fate::Dead(Buried {
                attempts: 3,
                cause: DeadCause::Exhausted,
                ..
            })
        ));
        assert!(matches!(fate_of(2, Outcome::NotTried), Fate::Untouched));
    }

    #[test]
    fn no_schedule_leaves_the_databases_calendar() {
        let rules = Rules {
            backoff: Backoff::constant(Duration::MAX),
            ..RULES
        };
        let mut rng = StdRng::seed_from_u64(1);
        let fate = fate(&tried(0), Outcome::retry("no"), false, &rules, &mut rng);
        assert!(matches!(fate, Fate::Later(Failed { delay, .. }) if delay == WAIT_MAX));
    }

    #[test]
    fn a_wait_the_sink_asks_for_is_honoured_up_to_a_cap() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut wait = |secs| {
            let outcome = Outcome::Retry {
                after: Some(Duration::from_secs(secs)),
                reason: "busy".into(),
            };
            match fate(&tried(0), outcome, false, &RULES, &mut rng) {
                Fate::Later(failed) => failed.delay.as_secs(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!([wait(0), wait(30), wait(u64::MAX)], [1, 30, 60]);
    }
}
