//! Which messages of a batch go out together, and what has become of each: the plan of sinks that publish many at once.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use super::{
    LaneRef, Outcome, Outcomes, Reason, SinkDown,
    streak::{Blame, Streak},
};
use crate::message::Message;

/// What may be under way to a broker at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pipeline {
    /// One message of each key, as many keys as there are. A key's next message waits for the ack of the one before it, so
    /// that first deliveries keep their order whatever the broker does.
    #[default]
    AcrossKeys,
    /// Everything at once, sent in order. Many times faster for few keys. After a failure the key stops being counted at
    /// its first message that is not acked, but later ones that were under way may have arrived: the failed one's first
    /// delivery then comes after theirs, and theirs come twice. For brokers that fail as a whole, or streams of one writer.
    WithinKeys,
}

/// A batch on its way, round by round.
///
/// Pure: [`next`](Self::next) says what to send now, [`settle`](Self::settle) and [`down`](Self::down) take the answers.
#[derive(Debug)]
pub(crate) struct Rounds<'a> {
    batch: &'a [Message],
    pipeline: Pipeline,
    width: usize,
    /// Each message's key, as a number; those that are in no order have one of their own.
    keys: Vec<usize>,
    outcomes: Vec<Option<Outcome>>,
    sent: Vec<bool>,
    /// By key: stopped at a message that was not acked.
    stopped: Vec<bool>,
    /// By key: the round it was last sent in.
    turn: Vec<usize>,
    round: usize,
    /// Whether the sink has answered anything of this round.
    answered: bool,
    /// Whether it has answered anything at all.
    heard: bool,
    /// No further round is sent: the sink is down, or a message of this one met what an outage looks like.
    last: bool,
    down: Option<SinkDown>,
    /// By message: it failed, and whose failure it is the others tell.
    doubts: Vec<Option<Doubt>>,
}

#[derive(Clone, Debug)]
struct Doubt {
    kind: Kind,
    reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Silent,
    Refused,
    Lost,
}

impl<'a> Rounds<'a> {
    /// At most `width` messages a round.
    pub(crate) fn new(batch: &'a [Message], pipeline: Pipeline, width: usize) -> Self {
        let mut known: HashMap<&[u8], usize> = HashMap::new();
        let mut count = 0;
        let keys = batch
            .iter()
            .map(|message| {
                let fresh = count;
                let key = message
                    .ordering_key()
                    .map_or(fresh, |key| *known.entry(key).or_insert(fresh));
                count += usize::from(key == fresh);
                key
            })
            .collect();
        Self {
            batch,
            pipeline,
            width: width.max(1),
            keys,
            outcomes: vec![None; batch.len()],
            sent: vec![false; batch.len()],
            stopped: vec![false; count],
            turn: vec![0; count],
            round: 0,
            answered: false,
            heard: false,
            last: false,
            down: None,
            doubts: vec![None; batch.len()],
        }
    }

    /// What to send now, in this order, with the place of each in the batch. Empty when there is nothing more to do: all is
    /// sent, the sink is down or silent, or the lane is held no longer.
    pub(crate) fn next(&mut self, lane: &LaneRef) -> Vec<(usize, &'a Message)> {
        let mut round = Vec::new();
        if self.last || !lane.is_held() {
            return round;
        }
        self.round += 1;
        self.answered = false;
        for (at, message) in self.batch.iter().enumerate() {
            if round.len() == self.width {
                break;
            }
            let (Some(&key), Some(sent)) = (self.keys.get(at), self.sent.get_mut(at)) else {
                break;
            };
            let (Some(stopped), Some(turn)) = (self.stopped.get(key), self.turn.get_mut(key))
            else {
                break;
            };
            let waits = self.pipeline == Pipeline::AcrossKeys && *turn == self.round;
            if *sent || *stopped || waits {
                continue;
            }
            *sent = true;
            *turn = self.round;
            round.push((at, message));
        }
        round
    }

    /// What the sink has made of the message at this place. What is never told counts as not tried, and stops its key.
    pub(crate) fn settle(&mut self, at: usize, outcome: Outcome) {
        self.answered = true;
        self.heard = true;
        self.tell(at, outcome);
    }

    /// What became of the message at this place without its having been sent: it says nothing of the sink.
    pub(crate) fn unsent(&mut self, at: usize, outcome: Outcome) {
        self.tell(at, outcome);
    }

    fn tell(&mut self, at: usize, outcome: Outcome) {
        if outcome != Outcome::Acked {
            self.stop(at);
        }
        if let Some(slot) = self.outcomes.get_mut(at) {
            *slot = Some(outcome);
        }
    }

    /// The message at this place met the sink down, which no message can bring about.
    pub(crate) fn down(&mut self, at: usize, down: SinkDown) {
        self.stop(at);
        self.last = true;
        // Several may meet the outage at once: one report of it is enough.
        self.down.get_or_insert(down);
    }

    /// The message at this place was sent and not answered in time: it may have arrived.
    ///
    /// Beside answers to others of the round silence is the message's. When nothing of the round was answered, whatever rounds
    /// before it were (an outage may begin between two), it is the sink's if that answers nothing else either; see
    /// [`mute`](Self::mute). If it does, the streak of such messages tells.
    pub(crate) fn silent(&mut self, at: usize, reason: impl Into<Reason>) {
        self.doubt(at, Kind::Silent, reason.into());
    }

    /// The connection was lost with the message at this place on it. That is an outage; but one that is lost again and again
    /// may be why.
    pub(crate) fn lost(&mut self, at: usize, reason: impl Into<Reason>) {
        self.doubt(at, Kind::Lost, reason.into());
    }

    /// The sink refused the message at this place, and may mean it alone or everything that is sent.
    ///
    /// Beside any other answer it is meant alone; the streak of such messages tells otherwise.
    #[cfg(any(feature = "rabbitmq", feature = "redis"))]
    pub(crate) fn refused(&mut self, at: usize, reason: impl Into<Reason>) {
        self.doubt(at, Kind::Refused, reason.into());
    }

    fn doubt(&mut self, at: usize, kind: Kind, reason: Reason) {
        self.stop(at);
        // A refusal costs no time: others may still be sent, and tell.
        self.last |= kind != Kind::Refused;
        if let Some(slot) = self.doubts.get_mut(at) {
            *slot = Some(Doubt { kind, reason });
        }
    }

    /// The message that the sink was silent about, when nothing else tells that it lives: then it is to be asked something
    /// that it answers if it can.
    pub(crate) fn mute(&self) -> Option<&'a Message> {
        let silent =
            |doubt: &Option<Doubt>| doubt.as_ref().is_some_and(|of| of.kind == Kind::Silent);
        let at = self.doubts.iter().position(silent);
        at.filter(|_| !self.answered)
            .and_then(|at| self.batch.get(at))
    }

    /// Whether the key of the message at this place has stopped since the round was planned: then it must not be sent.
    pub(crate) fn has_stopped(&self, at: usize) -> bool {
        let key = self.keys.get(at);
        key.and_then(|key| self.stopped.get(*key)) == Some(&true)
    }

    /// Whether the sink has answered anything.
    #[cfg(feature = "rabbitmq")]
    pub(crate) const fn is_heard(&self) -> bool {
        self.heard
    }

    /// Sends no further round, for what this one leaves open.
    #[cfg(feature = "rabbitmq")]
    pub(crate) const fn end(&mut self) {
        self.last = true;
    }

    /// Whether the message at this place comes after the other one of the same key.
    #[cfg(feature = "redis")]
    pub(crate) fn is_behind(&self, at: usize, other: usize) -> bool {
        other < at && self.keys.get(other) == self.keys.get(at)
    }

    fn stop(&mut self, at: usize) {
        let key = self.keys.get(at).copied();
        if let Some(stopped) = key.and_then(|key| self.stopped.get_mut(key)) {
            *stopped = true;
        }
    }

    /// One outcome per message; a key's messages count up to its first that is not acked. `lives` says that a sink that
    /// was [`mute`](Self::mute) has answered when it was asked something else.
    ///
    /// # Errors
    /// [`SinkDown`] when it was met and nothing else is known of any message.
    pub(crate) fn finish(
        mut self,
        lives: bool,
        streak: &Mutex<Streak>,
    ) -> Result<Outcomes, SinkDown> {
        self.resolve(lives, streak);
        let mut cut = vec![false; self.stopped.len()];
        let mut any = false;
        let outcomes: Vec<Outcome> = self
            .outcomes
            .into_iter()
            .zip(&self.keys)
            .map(|(outcome, &key)| {
                let Some(cut) = cut.get_mut(key) else {
                    return Outcome::NotTried;
                };
                let outcome = outcome.filter(|_| !*cut).unwrap_or(Outcome::NotTried);
                *cut |= outcome != Outcome::Acked;
                any |= outcome != Outcome::NotTried;
                outcome
            })
            .collect();
        match self.down {
            Some(down) if !any => Err(down),
            _ => Ok(outcomes.into_iter().collect()),
        }
    }

    /// Says of each doubt whose failure it was.
    fn resolve(&mut self, lives: bool, streak: &Mutex<Streak>) {
        let doubts = std::mem::take(&mut self.doubts);
        let mut streak = streak.lock().unwrap_or_else(PoisonError::into_inner);
        if self.heard {
            streak.answered();
        }
        // What comes behind a failure of its key is no evidence of its own.
        let mut cut = vec![false; self.stopped.len()];
        let mut heads = Vec::new();
        for (at, doubt) in doubts.into_iter().enumerate() {
            let key = self.keys.get(at).and_then(|key| cut.get_mut(*key));
            let (Some(cut), Some(message)) = (key, self.batch.get(at)) else {
                break;
            };
            if *cut {
                continue;
            }
            *cut = self.outcomes.get(at) != Some(&Some(Outcome::Acked));
            if let Some(doubt) = doubt {
                let beside = match doubt.kind {
                    Kind::Silent => self.answered,
                    Kind::Refused => self.heard,
                    Kind::Lost => false,
                };
                if !beside {
                    streak.note(message.id());
                }
                heads.push((at, message.id(), doubt, beside));
            }
        }
        for (at, id, doubt, beside) in heads {
            let blame = match doubt.kind {
                _ if beside => Blame::Message,
                Kind::Refused => streak.blame(id),
                Kind::Silent if lives => streak.blame(id),
                Kind::Silent | Kind::Lost => streak.blame_in_an_outage(id),
            };
            match blame {
                Blame::Message => self.tell(at, Outcome::retry(doubt.reason)),
                Blame::Sink => self.down(at, SinkDown::new(doubt.reason)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;
    use crate::event::Event;

    /// One message a letter, which is its key; a dot has none. A capital has the same key and is in no order.
    fn batch(keys: &str) -> Vec<Message> {
        let message = |key: char| {
            let event = Event::new("t");
            let event = match key {
                '.' => event,
                key => event.key(key.to_ascii_lowercase().to_string()),
            };
            let mut message = Message::from_event(event, "/s", UNIX_EPOCH);
            message.ordered = !key.is_ascii_uppercase();
            message
        };
        keys.chars().map(message).collect()
    }

    /// With a sink that answers nothing else either, and nothing known of other batches.
    fn finish(rounds: Rounds<'_>) -> Result<Outcomes, SinkDown> {
        rounds.finish(false, &Mutex::default())
    }

    fn places(round: &[(usize, &Message)]) -> Vec<usize> {
        round.iter().map(|(at, _)| *at).collect()
    }

    #[test]
    fn a_round_takes_one_message_of_each_key_and_all_that_have_none() {
        let batch = batch("aab..b");
        let lane = LaneRef::detached();
        let mut rounds = Rounds::new(&batch, Pipeline::AcrossKeys, 10);
        let first = rounds.next(&lane);
        assert_eq!(places(&first), [0, 2, 3, 4]);
        for (at, _) in first {
            let outcome = if at == 2 {
                Outcome::retry("no")
            } else {
                Outcome::Acked
            };
            rounds.settle(at, outcome);
        }
        let second = rounds.next(&lane);
        assert_eq!(places(&second), [1], "b has stopped");
        rounds.settle(1, Outcome::Acked);
        assert!(rounds.next(&lane).is_empty());
        let outcomes: Vec<_> = finish(rounds).unwrap().into_iter().collect();
        let retry = Outcome::retry("no");
        let (ack, not) = (Outcome::Acked, Outcome::NotTried);
        assert_eq!(
            outcomes,
            [ack.clone(), ack.clone(), retry, ack.clone(), ack, not]
        );
    }

    #[test]
    fn within_keys_everything_goes_at_once_and_counts_up_to_the_first_failure() {
        let batch = batch("aaab");
        let lane = LaneRef::detached();
        let mut rounds = Rounds::new(&batch, Pipeline::WithinKeys, 10);
        assert_eq!(places(&rounds.next(&lane)), [0, 1, 2, 3]);
        for at in [3, 2, 0] {
            rounds.settle(at, Outcome::Acked);
        }
        rounds.settle(1, Outcome::retry("no"));
        let outcomes: Vec<_> = finish(rounds).unwrap().into_iter().collect();
        let retry = Outcome::retry("no");
        assert_eq!(
            outcomes,
            [Outcome::Acked, retry, Outcome::NotTried, Outcome::Acked]
        );
    }

    #[test]
    fn an_outage_starts_nothing_more_and_keeps_what_was_acked() {
        let batch = batch("ab");
        let lane = LaneRef::detached();
        let mut rounds = Rounds::new(&batch, Pipeline::AcrossKeys, 1);
        rounds.next(&lane);
        rounds.settle(0, Outcome::Acked);
        rounds.next(&lane);
        rounds.down(1, SinkDown::new("gone"));
        assert!(rounds.next(&lane).is_empty());
        let outcomes: Vec<_> = finish(rounds).unwrap().into_iter().collect();
        assert_eq!(outcomes, [Outcome::Acked, Outcome::NotTried]);

        let mut rounds = Rounds::new(&batch, Pipeline::AcrossKeys, 2);
        rounds.next(&lane);
        rounds.down(0, SinkDown::new("gone"));
        rounds.down(1, SinkDown::new("gone too"));
        assert_eq!(finish(rounds), Err(SinkDown::new("gone")));
    }

    #[test]
    fn silence_is_the_sinks_when_nothing_answers_and_the_messages_beside_answers() {
        let batch = batch("ab");
        let lane = LaneRef::detached();
        let mut rounds = Rounds::new(&batch, Pipeline::AcrossKeys, 1);
        rounds.next(&lane);
        rounds.silent(0, "no ack");
        assert!(rounds.next(&lane).is_empty(), "one timeout is enough");
        assert_eq!(finish(rounds), Err(SinkDown::new("no ack")));

        let mut rounds = Rounds::new(&batch, Pipeline::AcrossKeys, 2);
        rounds.next(&lane);
        rounds.silent(0, "no ack");
        rounds.settle(1, Outcome::Acked);
        let outcomes: Vec<_> = finish(rounds).unwrap().into_iter().collect();
        assert_eq!(outcomes, [Outcome::retry("no ack"), Outcome::Acked]);
    }

    /// A batch of which each message is sent at once, and fails so.
    fn failing(
        batch: &[Message],
        lives: bool,
        streak: &Mutex<Streak>,
        fail: impl Fn(&mut Rounds<'_>, usize),
    ) -> Result<Vec<Outcome>, SinkDown> {
        let mut rounds = Rounds::new(batch, Pipeline::WithinKeys, 10);
        for (at, _) in rounds.next(&LaneRef::detached()) {
            fail(&mut rounds, at);
        }
        let outcomes = rounds.finish(lives, streak)?;
        Ok(outcomes.into_iter().collect())
    }

    #[test]
    fn silence_of_a_sink_that_lives_is_the_messages_until_there_are_three() {
        let streak = Mutex::default();
        let silent = |rounds: &mut Rounds<'_>, at| rounds.silent(at, "no ack");
        let down = Err(SinkDown::new("no ack"));
        let charged = Ok(vec![Outcome::retry("no ack")]);
        let (first, second, third) = (batch("a"), batch("b"), batch("c"));
        for _ in 0..9 {
            assert_eq!(failing(&first, true, &streak, silent), charged);
        }
        assert_eq!(failing(&second, true, &streak, silent), charged);
        assert_eq!(failing(&third, true, &streak, silent), down);
        assert_eq!(failing(&first, true, &streak, silent), down);

        let acked = failing(&second, true, &streak, |rounds, at| {
            rounds.settle(at, Outcome::Acked);
        });
        assert_eq!(acked, Ok(vec![Outcome::Acked]));
        assert_eq!(failing(&first, true, &streak, silent), charged);
    }

    #[test]
    fn three_keys_that_meet_silence_together_are_charged_nothing() {
        let silent = |rounds: &mut Rounds<'_>, at| rounds.silent(at, "no ack");
        let down = Err(SinkDown::new("no ack"));
        let streak = Mutex::default();
        assert_eq!(failing(&batch("abc"), true, &streak, silent), down);

        // Those behind the first of one key are no evidence: it may have kept them from being answered.
        let streak = Mutex::default();
        let outcomes = failing(&batch("aaaa"), true, &streak, silent).unwrap();
        let not = Outcome::NotTried;
        let charged = Outcome::retry("no ack");
        assert_eq!(outcomes, [charged, not.clone(), not.clone(), not]);
    }

    #[test]
    fn one_message_does_not_keep_a_sink_down_for_ever() {
        let lost = |rounds: &mut Rounds<'_>, at| rounds.lost(at, "gone");
        let silent = |rounds: &mut Rounds<'_>, at| rounds.silent(at, "gone");
        let (down, charged) = (Err(SinkDown::new("gone")), Ok(vec![Outcome::retry("gone")]));
        let one = batch("a");
        for fail in [
            &lost as &dyn Fn(&mut Rounds<'_>, usize),
            &silent as &dyn Fn(&mut Rounds<'_>, usize),
        ] {
            let streak = Mutex::default();
            for times in 1..=16 {
                let expected = if times % 8 == 0 { &charged } else { &down };
                assert_eq!(&failing(&one, false, &streak, fail), expected, "{times}");
            }
        }
    }

    #[test]
    fn a_refusal_is_the_messages_beside_answers_and_lets_others_be_sent() {
        let streak = Mutex::default();
        let batch = batch("abc");
        let lane = LaneRef::detached();
        let mut rounds = Rounds::new(&batch, Pipeline::AcrossKeys, 1);
        assert_eq!(places(&rounds.next(&lane)), [0]);
        rounds.refused(0, "no");
        assert_eq!(places(&rounds.next(&lane)), [1]);
        rounds.settle(1, Outcome::Acked);
        assert_eq!(places(&rounds.next(&lane)), [2]);
        rounds.refused(2, "no");
        let outcomes: Vec<_> = rounds.finish(false, &streak).unwrap().into_iter().collect();
        let no = Outcome::retry("no");
        assert_eq!(outcomes, [no.clone(), Outcome::Acked, no.clone()]);

        // Alone, three different messages are an outage.
        let refused = |rounds: &mut Rounds<'_>, at| rounds.refused(at, "no");
        for one in batch.chunks(1).take(2).cycle().take(9) {
            assert_eq!(failing(one, false, &streak, refused), Ok(vec![no.clone()]));
        }
        let down = Err(SinkDown::new("no"));
        assert_eq!(failing(&batch[2..], false, &streak, refused), down);
        assert_eq!(failing(&batch, false, &Mutex::default(), refused), down);
    }

    #[test]
    fn an_outage_that_begins_between_two_rounds_spends_no_attempt() {
        let batch = batch("abc");
        let lane = LaneRef::detached();
        let mut rounds = Rounds::new(&batch, Pipeline::AcrossKeys, 1);
        rounds.next(&lane);
        rounds.settle(0, Outcome::Acked);
        rounds.next(&lane);
        rounds.silent(1, "no ack");
        assert!(rounds.next(&lane).is_empty());
        let outcomes: Vec<_> = finish(rounds).unwrap().into_iter().collect();
        let not = Outcome::NotTried;
        assert_eq!(outcomes, [Outcome::Acked, not.clone(), not]);
    }

    #[test]
    fn what_was_not_even_sent_is_no_answer_of_the_sink() {
        let batch = batch("ab");
        let lane = LaneRef::detached();
        let mut rounds = Rounds::new(&batch, Pipeline::AcrossKeys, 2);
        rounds.next(&lane);
        rounds.unsent(0, Outcome::reject("too large"));
        rounds.silent(1, "no ack");
        let outcomes: Vec<_> = finish(rounds).unwrap().into_iter().collect();
        assert_eq!(outcomes, [Outcome::reject("too large"), Outcome::NotTried]);
    }

    #[test]
    fn events_that_share_a_key_and_no_order_do_not_wait_for_each_other() {
        let batch = batch("AA");
        let lane = LaneRef::detached();
        let mut rounds = Rounds::new(&batch, Pipeline::AcrossKeys, 2);
        assert_eq!(places(&rounds.next(&lane)), [0, 1]);
        rounds.settle(0, Outcome::retry("no"));
        rounds.settle(1, Outcome::Acked);
        let outcomes: Vec<_> = finish(rounds).unwrap().into_iter().collect();
        assert_eq!(outcomes, [Outcome::retry("no"), Outcome::Acked]);
    }

    proptest! {
        /// Whatever fails in whatever way: no message of a key counts after one that is not acked, nothing is sent twice,
        /// and across keys nothing is even sent after it.
        #[test]
        fn no_message_of_a_key_counts_after_one_that_is_not_acked(
            keys in "[a-cA-C.]{0,24}",
            answers in prop::collection::vec(0..5_u8, 24),
            width in 1..6_usize,
            within in any::<bool>(),
        ) {
            let batch = batch(&keys);
            let lane = LaneRef::detached();
            let pipeline = if within { Pipeline::WithinKeys } else { Pipeline::AcrossKeys };
            let mut rounds = Rounds::new(&batch, pipeline, width);
            let mut sent = vec![false; batch.len()];
            let mut failed: Vec<&[u8]> = Vec::new();
            loop {
                let round = rounds.next(&lane);
                if round.is_empty() { break; }
                prop_assert!(round.len() <= width);
                for (at, message) in &round {
                    prop_assert!(!std::mem::replace(&mut sent[*at], true));
                    if let Some(key) = message.ordering_key() {
                        prop_assert!(!failed.contains(&key));
                    }
                }
                for (at, message) in round {
                    match answers[at] {
                        0 => rounds.settle(at, Outcome::retry("no")),
                        1 => rounds.settle(at, Outcome::reject("never")),
                        _ => { rounds.settle(at, Outcome::Acked); continue; }
                    }
                    failed.extend(message.ordering_key());
                }
            }
            let outcomes: Vec<_> = finish(rounds).unwrap().into_iter().collect();
            prop_assert_eq!(outcomes.len(), batch.len());
            for (at, outcome) in outcomes.iter().enumerate() {
                let key = batch[at].ordering_key();
                let earlier = (0..at).filter(|before| key.is_some() && batch[*before].ordering_key() == key);
                let clean = earlier.into_iter().all(|before| outcomes[before] == Outcome::Acked);
                prop_assert_eq!(*outcome != Outcome::NotTried, clean, "{}", at);
            }
        }
    }
}
