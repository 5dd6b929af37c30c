//! Whether failures that may be a message's or the sink's are an outage: told by what else fails, and what does not.

use std::collections::HashMap;

use crate::event::EventId;

/// So many different messages that fail one after the other, and no other answer between them, are an outage. One that is to
/// blame itself does not come to that: others succeed in between, or there are no others and nobody else suffers.
pub(crate) const OUTAGE: usize = 3;

/// How often a message may meet an outage before it is charged for once.
const CHARGE_FIRST: u32 = 8;

/// How often at the most from then on.
const CHARGE_EVERY: u32 = 256;

/// Messages whose failures are counted.
const REMEMBERED_MAX: usize = 1_000;

/// Failures in a row, of whichever message, since the sink last gave any other answer.
///
/// Who probes a sink that is down is the relay's choice, and it may be the same message each time. If that one fails whatever
/// the sink does, an outage that was real would never end. So a message is charged in an outage as well, when it has failed
/// for the 8th, 16th, 32nd .. 256th time and then for every 256th: that lets others have their try. An outage that is waited
/// out for hours costs few attempts so, and a message cannot hold up the others for more than some twenty minutes after an
/// outage, with a probe every 5 s as is the relay's default.
///
/// Pure; a sink shares it between its lanes.
#[derive(Debug, Default)]
pub(crate) struct Streak {
    /// How often each has failed.
    failed: HashMap<EventId, u32>,
    outage: bool,
}

/// Whose failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// It is charged an attempt.
    Message,
    /// The sink is down.
    Sink,
}

impl Streak {
    /// The sink has answered something else: whatever failed before was no outage, or that is over.
    pub(crate) fn answered(&mut self) {
        // Most sinks answer most of the time: nothing is given back then.
        if self.outage || !self.failed.is_empty() {
            *self = Self::default();
        }
    }

    /// The message failed, and that alone does not tell whose failure it is.
    #[cfg(feature = "http")]
    pub(crate) fn failed(&mut self, id: EventId) -> Blame {
        self.note(id);
        self.blame(id)
    }

    /// Counts a failure. Of those that come together all are counted before anybody is blamed.
    pub(crate) fn note(&mut self, id: EventId) {
        if self.failed.len() == REMEMBERED_MAX && !self.failed.contains_key(&id) {
            self.failed.clear();
        }
        let times = self.failed.entry(id).or_default();
        *times = times.saturating_add(1);
        self.outage |= self.failed.len() >= OUTAGE;
    }

    /// Whose the failure was that was counted last.
    pub(crate) fn blame(&self, id: EventId) -> Blame {
        match self.outage {
            true => self.blame_in_an_outage(id),
            false => Blame::Message,
        }
    }

    /// The same of a failure that looks like an outage by itself, without any company.
    pub(crate) fn blame_in_an_outage(&self, id: EventId) -> Blame {
        charged(self.failed.get(&id).copied().unwrap_or_default())
    }
}

/// Whose failure it is that a message has met an outage so often.
const fn charged(times: u32) -> Blame {
    let due = match times {
        0..CHARGE_FIRST => false,
        CHARGE_FIRST..CHARGE_EVERY => times.is_power_of_two(),
        CHARGE_EVERY.. => times.is_multiple_of(CHARGE_EVERY),
    };
    match due {
        true => Blame::Message,
        false => Blame::Sink,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::sink::streak::Blame::{Message, Sink};

    fn id(n: u128) -> EventId {
        Uuid::from_u128(n).into()
    }

    fn failed(streak: &mut Streak, n: u128) -> Blame {
        streak.note(id(n));
        streak.blame(id(n))
    }

    fn failing(streak: &mut Streak, ids: &[u128]) -> Vec<Blame> {
        ids.iter().map(|n| failed(streak, *n)).collect()
    }

    #[test]
    fn the_third_message_in_a_row_makes_it_an_outage() {
        let mut streak = Streak::default();
        let blamed = failing(&mut streak, &[1, 2, 3, 4, 1, 2, 3]);
        assert_eq!(blamed, [Message, Message, Sink, Sink, Sink, Sink, Sink]);
    }

    #[test]
    fn one_or_two_that_fail_again_and_again_are_no_outage() {
        let mut streak = Streak::default();
        for _ in 0..1_000 {
            assert_eq!(failed(&mut streak, 1), Message);
        }
        for _ in 0..1_000 {
            assert_eq!(failing(&mut streak, &[2, 1]), [Message, Message]);
        }
        assert_eq!(failed(&mut streak, 3), Sink);
    }

    #[test]
    fn any_other_answer_ends_it_and_the_count_begins_anew() {
        let mut streak = Streak::default();
        for _ in 0..10 {
            assert_eq!(failing(&mut streak, &[1, 2]), [Message, Message]);
            streak.answered();
        }
        assert_eq!(failing(&mut streak, &[1, 2, 3]), [Message, Message, Sink]);
        streak.answered();
        assert_eq!(failing(&mut streak, &[1, 2, 3]), [Message, Message, Sink]);
    }

    #[test]
    fn a_message_that_fails_alone_cannot_pass_for_an_outage_for_ever() {
        let mut streak = Streak::default();
        failing(&mut streak, &[2, 3]);
        let blamed: Vec<Blame> = (0..2_000).map(|_| failed(&mut streak, 1)).collect();
        let charged: Vec<usize> = (1..)
            .zip(&blamed)
            .filter_map(|(n, blame)| (*blame == Message).then_some(n))
            .collect();
        let expected = [8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 1792];
        assert_eq!(charged, expected);
    }

    #[test]
    fn of_failures_that_come_together_none_is_blamed_for_being_counted_first() {
        let mut streak = Streak::default();
        for n in 1..=3 {
            streak.note(id(n));
        }
        for n in 1..=3 {
            assert_eq!(streak.blame(id(n)), Sink);
        }
    }

    #[test]
    fn what_looks_like_an_outage_by_itself_is_one_at_once_and_not_for_ever() {
        let mut streak = Streak::default();
        let mut lost = |n| {
            streak.note(id(n));
            streak.blame_in_an_outage(id(n))
        };
        for times in 1..=7 {
            assert_eq!(lost(1), Sink, "{times}");
        }
        assert_eq!(lost(1), Message);
        assert_eq!(lost(2), Sink);
        assert_eq!(streak.blame(id(2)), Message, "two are no outage");
        assert_eq!(failing(&mut streak, &[3, 2]), [Sink, Sink], "three are one");
    }

    #[test]
    fn what_it_remembers_is_bounded() {
        let mut streak = Streak::default();
        for n in 0..10_000 {
            failed(&mut streak, n);
            assert!(streak.failed.len() <= REMEMBERED_MAX);
        }
        assert_eq!(failed(&mut streak, 10_000), Sink, "it is still an outage");
    }

    proptest! {
        /// Whatever comes in whatever order: before the third message in a row all are charged, and from then on few.
        #[test]
        fn an_outage_is_three_messages_in_a_row(events in prop::collection::vec(0..6_u128, 0..200)) {
            let mut streak = Streak::default();
            let mut since: Vec<u128> = Vec::new();
            for event in events {
                if event == 0 {
                    streak.answered();
                    since.clear();
                    continue;
                }
                since.push(event);
                let times = since.iter().filter(|n| **n == event).count();
                let different = since.iter().collect::<std::collections::BTreeSet<_>>().len();
                let charged = different < 3 || [8, 16, 32, 64, 128].contains(&times);
                let blame = failed(&mut streak, event);
                prop_assert_eq!(blame, if charged { Message } else { Sink });
            }
        }
    }
}
