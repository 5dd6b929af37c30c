//! One lane's batch on its way through the sinks: whatever the sink does, every message comes back with an outcome.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::join_all};
use tokio::time::Instant;
use tracing::Instrument;

use super::route::DynSink;
use crate::{
    gate::Stamp,
    message::Message,
    plan::{KeyPolicy, Tried},
    sink::{LaneRef, Outcome, SinkDown},
    store::{Buried, Candidate, Held},
    trace,
};

/// The part of a batch that goes to one sink.
pub(super) struct Part {
    pub(super) route: usize,
    pub(super) sink: Arc<dyn DynSink>,
    /// The gate's, from when it is sent.
    pub(super) stamp: Stamp,
    /// When it was read from the database.
    looked: Instant,
    tried: Vec<Tried>,
    messages: Vec<Message>,
    /// It is one message that may have killed what published it before.
    suspect: bool,
}

impl Part {
    pub(super) fn new(route: usize, sink: Arc<dyn DynSink>, looked: Instant) -> Self {
        Self {
            route,
            sink,
            stamp: Stamp::default(),
            looked,
            tried: Vec::new(),
            messages: Vec::new(),
            suspect: false,
        }
    }

    /// Of the payloads.
    pub(super) fn bytes(&self) -> u64 {
        self.messages
            .iter()
            .map(|message| message.payload().len() as u64)
            .sum()
    }

    /// How many messages.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn push(&mut self, policy: KeyPolicy, candidate: Candidate) {
        self.tried.push(Tried {
            id: candidate.id,
            attempts: candidate.attempts,
            policy,
            failures: candidate.failures,
            age: candidate.age,
        });
        self.suspect |= candidate.suspect;
        self.messages.push(candidate.message);
    }
}

/// A batch that has come back.
pub(super) struct Published {
    pub(super) held: Held,
    pub(super) batch: i64,
    pub(super) results: Vec<Result>,
    /// Given up before publishing; written down together with the rest.
    pub(super) dead: Vec<Buried>,
}

/// What one sink made of its part.
pub(super) struct Result {
    pub(super) route: usize,
    /// Its gate's when it was sent.
    pub(super) stamp: Stamp,
    pub(super) outcomes: Vec<(Tried, Outcome)>,
    /// Of the payloads.
    pub(super) bytes: u64,
    /// The sink panicked or never answered: these messages may be why.
    pub(super) crashed: bool,
    /// It was one message that may have killed what published it before.
    pub(super) suspect: bool,
    /// The sink said so, or never answered.
    pub(super) down: Option<SinkDown>,
    /// When its messages were read from the database.
    pub(super) looked: Instant,
    /// How long it took.
    pub(super) took: Duration,
}

/// Publishes a lane's batch, each sink's part beside the others.
pub(super) async fn publish(
    lane: LaneRef,
    batch: i64,
    parts: Vec<Part>,
    dead: Vec<Buried>,
    timeout: Duration,
) -> Published {
    let held = Held {
        lane: lane.number(),
        epoch: lane.epoch(),
    };
    // What is started in the first half has the second to end in; the rest is given back, not cut off.
    let lane = lane.starting_until(Instant::now() + timeout / 2);
    let results = join_all(
        parts
            .into_iter()
            .map(|part| one(lane.clone(), part, timeout)),
    )
    .await;
    Published {
        held,
        batch,
        results,
        dead,
    }
}

const NO_ANSWER: &str = "the sink did not answer in time";

async fn one(lane: LaneRef, part: Part, timeout: Duration) -> Result {
    let all = |outcome: Outcome| vec![outcome; part.messages.len()];
    let began = Instant::now();
    // Inside the block, so that a panic is caught wherever the sink, or who is told of the span, has it: before there is a
    // future, in it, and while it is dropped. One that got away would take the batch along, and the lane would never be free again.
    let call = AssertUnwindSafe(async {
        let publish =
            async { tokio::time::timeout(timeout, part.sink.publish(lane, &part.messages)).await };
        publish.instrument(trace::publishing(&part.messages)).await
    });
    let (mut outcomes, crashed, down): (Vec<Outcome>, _, _) = match call.catch_unwind().await {
        Ok(Ok(Ok(outcomes))) => (outcomes.into_iter().collect(), false, None),
        Ok(Ok(Err(down))) => (all(Outcome::NotTried), false, Some(down)),
        Ok(Err(_elapsed)) => (
            all(Outcome::retry(NO_ANSWER)),
            true,
            Some(SinkDown::new(NO_ANSWER)),
        ),
        Err(_panic) => (all(Outcome::retry("the sink panicked")), true, None),
    };
    outcomes.resize(part.tried.len(), Outcome::NotTried);
    Result {
        route: part.route,
        stamp: part.stamp,
        bytes: part.bytes(),
        suspect: part.suspect,
        looked: part.looked,
        outcomes: part.tried.into_iter().zip(outcomes).collect(),
        crashed,
        down,
        took: began.elapsed(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use tokio::time::sleep;

    use super::*;
    use crate::{
        event::Event,
        sink::{Outcomes, Sink, publish_each},
    };

    /// Takes a second for each message.
    struct Slow;

    impl Sink for Slow {
        async fn publish(
            &self,
            lane: LaneRef,
            batch: &[Message],
        ) -> std::result::Result<Outcomes, SinkDown> {
            publish_each(&lane, batch, 1, async |_: &Message| {
                sleep(Duration::from_secs(1)).await;
                Ok(Outcome::Acked)
            })
            .await
        }
    }

    /// L2: a batch that takes longer than a publish may.
    #[tokio::test(start_paused = true)]
    async fn a_slow_sink_sheds_the_tail_of_its_batch() {
        let mut part = Part::new(0, Arc::new(Slow), Instant::now());
        for id in 0..100 {
            let event = Event::new("t").key("hot");
            let candidate = Candidate {
                lane: 0,
                id,
                attempts: 0,
                suspect: false,
                parked: false,
                failures: None,
                age: Duration::ZERO,
                message: Message::from_event(event, "/s", UNIX_EPOCH),
            };
            part.push(KeyPolicy::Block, candidate);
        }
        let before = Instant::now();
        let limit = Duration::from_secs(60);
        let lane = LaneRef::detached();
        let published = publish(lane, 1, vec![part], Vec::new(), limit).await;
        let result = &published.results[0];
        assert!(!result.crashed, "what was acked is lost, the rest charged");
        let acked = result
            .outcomes
            .iter()
            .take_while(|(_, outcome)| *outcome == Outcome::Acked);
        assert_eq!(acked.count(), 30, "half of the time is for starting");
        let rest = result.outcomes.iter().skip(30);
        assert!(
            rest.clone()
                .all(|(_, outcome)| *outcome == Outcome::NotTried)
        );
        assert_eq!(before.elapsed(), Duration::from_secs(30));
    }
}
