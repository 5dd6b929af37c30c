//! The decisions of a relay as pure functions: what to publish of what is due, and what to write down afterwards.

use std::{collections::HashSet, time::Duration};

use mainstay_retry::Backoff;
use rand::Rng;

use crate::{
    admin::DeadCause,
    gate::Pass,
    sink::Outcome,
    store::{Buried, Candidate, Failed},
};

/// What happens to a key's later messages while one of its messages waits for a retry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyPolicy {
    /// They wait as well, so that a key's first deliveries stay in order. When the message is given up, they go on.
    #[default]
    Block,
    /// They overtake it: order is kept except for messages that fail.
    Skip,
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
}

/// Where a topic goes, and whether it may go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    None,
    Route { route: usize, pass: Pass },
}

/// A lane's part of what is due.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    /// To be published, with the route of each.
    pub(crate) publish: Vec<(usize, Candidate)>,
    /// To be given up without publishing.
    pub(crate) dead: Vec<Buried>,
    /// Topics of messages that may not go now: the next look can do without them.
    pub(crate) passed_over: Vec<String>,
}

/// Chooses of one lane's due messages, in order.
///
/// - Attempts used up (also because the maximum was lowered, or a crash spent the last one): given up here, so that no row
///   is ever too old to be claimed and yet not dead.
/// - A suspect is published alone, so that a message that kills its relay does not take its neighbours along.
/// - After a message that is given up, later ones of its key wait until that is written down.
pub(crate) fn cut(
    due: Vec<Candidate>,
    rules: &Rules,
    mut way: impl FnMut(&str) -> Way,
    probed: &mut HashSet<usize>,
) -> Cut {
    let mut cut = Cut::default();
    let mut stopped: HashSet<Vec<u8>> = HashSet::new();
    for candidate in due {
        let message = &candidate.message;
        if message.key().is_some_and(|key| stopped.contains(key)) {
            continue;
        }
        let verdict = if candidate.attempts.unsigned_abs() >= rules.max_attempts {
            Some((DeadCause::Exhausted, "its attempts are used up"))
        } else {
            None
        };
        let way = way(message.topic());
        let verdict = match (verdict, way) {
            (None, Way::None) => Some((DeadCause::NoSink, "no sink takes its topic")),
            (verdict, _) => verdict,
        };
        if let Some((cause, reason)) = verdict {
            stopped.extend(message.key().map(<[u8]>::to_vec));
            cut.dead.push(Buried {
                id: candidate.id,
                attempts: candidate.attempts,
                cause,
                reason: reason.to_owned(),
            });
            continue;
        }
        let Way::Route { route, pass } = way else {
            continue;
        };
        let may = pass == Pass::Open || (pass == Pass::Probe && !probed.contains(&route));
        if !may {
            cut.passed_over.push(message.topic().to_owned());
            continue;
        }
        let alone = candidate.suspect;
        if alone && !cut.publish.is_empty() {
            break;
        }
        if pass == Pass::Probe {
            probed.insert(route);
        }
        cut.publish.push((route, candidate));
        if alone {
            break;
        }
    }
    cut
}

/// A row that was published: what is needed of it to write down the outcome.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tried {
    pub(crate) id: i64,
    /// Attempts spent before this one.
    pub(crate) attempts: i32,
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
    tried: Tried,
    outcome: Outcome,
    crashed: bool,
    rules: &Rules,
    rng: &mut R,
) -> Fate {
    let spent = tried.attempts.saturating_add(1);
    match outcome {
        Outcome::Acked => Fate::Delivered(tried.id),
        Outcome::NotTried => Fate::Untouched,
        Outcome::Reject { reason } => Fate::Dead(Buried {
            id: tried.id,
            attempts: spent,
            cause: DeadCause::Rejected,
            reason: reason.as_str().to_owned(),
        }),
        Outcome::Retry { reason, .. } if spent.unsigned_abs() >= rules.max_attempts => {
            Fate::Dead(Buried {
                id: tried.id,
                attempts: spent,
                cause: DeadCause::Exhausted,
                reason: reason.as_str().to_owned(),
            })
        }
        Outcome::Retry { after, reason } => {
            let ours = rules
                .backoff
                .delay(spent.unsigned_abs(), Duration::ZERO, rng);
            let asked = after.unwrap_or_default().min(rules.retry_after_max);
            Fate::Later(Failed {
                id: tried.id,
                attempts: tried.attempts,
                delay: ours.max(asked).min(WAIT_MAX),
                suspect: crashed,
                reason: reason.as_str().to_owned(),
            })
        }
    }
}

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
    };

    const OPEN: Way = Way::Route {
        route: 0,
        pass: Pass::Open,
    };

    fn candidate(id: i64, key: &str, attempts: i32, suspect: bool) -> Candidate {
        let event = Event::new("t").key(key);
        Candidate {
            lane: 0,
            id,
            attempts,
            suspect,
            message: Message::from_event(event, "/s", UNIX_EPOCH),
        }
    }

    fn published(cut: &Cut) -> Vec<i64> {
        cut.publish
            .iter()
            .map(|(_, candidate)| candidate.id)
            .collect()
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
        let first = cut(due(), &RULES, |_| OPEN, &mut HashSet::new());
        assert_eq!(published(&first), [1]);
        let then = cut(due().split_off(1), &RULES, |_| OPEN, &mut HashSet::new());
        assert_eq!(published(&then), [2]);
    }

    #[test]
    fn used_up_attempts_are_given_up_and_their_key_waits_for_that() {
        let due = vec![
            candidate(1, "a", 3, true),
            candidate(2, "a", 0, false),
            candidate(3, "b", 0, false),
        ];
        let cut = cut(due, &RULES, |_| OPEN, &mut HashSet::new());
        assert_eq!(published(&cut), [3]);
        assert_eq!(cut.dead.len(), 1);
        assert_eq!(cut.dead[0].cause, DeadCause::Exhausted);
    }

    #[test]
    fn a_sink_that_is_probed_gets_one_message_of_all_lanes() {
        let probe = |_: &str| Way::Route {
            route: 0,
            pass: Pass::Probe,
        };
        let mut probed = HashSet::new();
        let due = || vec![candidate(1, "a", 0, false), candidate(2, "b", 0, false)];
        assert_eq!(published(&cut(due(), &RULES, probe, &mut probed)), [1]);
        assert!(published(&cut(due(), &RULES, probe, &mut probed)).is_empty());
    }

    #[test]
    fn a_topic_without_a_sink_is_not_lost_but_dead() {
        let cut = cut(
            vec![candidate(1, "a", 0, false)],
            &RULES,
            |_| Way::None,
            &mut HashSet::new(),
        );
        assert_eq!(cut.dead[0].cause, DeadCause::NoSink);
    }

    #[test]
    fn the_last_attempt_is_the_last() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut fate_of =
            |attempts, outcome| fate(Tried { id: 1, attempts }, outcome, false, &RULES, &mut rng);
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
        let tried = Tried { id: 1, attempts: 0 };
        let mut rng = StdRng::seed_from_u64(1);
        let fate = fate(tried, Outcome::retry("no"), false, &rules, &mut rng);
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
            match fate(
                Tried { id: 1, attempts: 0 },
                outcome,
                false,
                &RULES,
                &mut rng,
            ) {
                Fate::Later(failed) => failed.delay.as_secs(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!([wait(0), wait(30), wait(u64::MAX)], [1, 30, 60]);
    }
}
