//! One lane's batch on its way through the sinks: whatever the sink does, every message comes back with an outcome.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::join_all};

use super::route::DynSink;
use crate::{
    message::Message,
    plan::Tried,
    sink::{LaneRef, Outcome, SinkDown},
    store::{Buried, Candidate, Held},
};

/// The part of a batch that goes to one sink.
pub(super) struct Part {
    pub(super) route: usize,
    pub(super) sink: Arc<dyn DynSink>,
    tried: Vec<Tried>,
    messages: Vec<Message>,
}

impl Part {
    pub(super) const fn new(route: usize, sink: Arc<dyn DynSink>) -> Self {
        Self {
            route,
            sink,
            tried: Vec::new(),
            messages: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, candidate: Candidate) {
        self.tried.push(Tried {
            id: candidate.id,
            attempts: candidate.attempts,
        });
        self.messages.push(candidate.message);
    }
}

/// A batch that has come back.
pub(super) struct Published {
    pub(super) held: Held,
    pub(super) results: Vec<Result>,
    /// Given up before publishing; written down together with the rest.
    pub(super) dead: Vec<Buried>,
}

/// What one sink made of its part.
pub(super) struct Result {
    pub(super) route: usize,
    pub(super) outcomes: Vec<(Tried, Outcome)>,
    /// The sink panicked or never answered: these messages may be why.
    pub(super) crashed: bool,
    pub(super) down: Option<SinkDown>,
}

/// Publishes a lane's batch, each sink's part beside the others.
pub(super) async fn publish(
    lane: LaneRef,
    parts: Vec<Part>,
    dead: Vec<Buried>,
    timeout: Duration,
) -> Published {
    let held = Held {
        lane: lane.number(),
        epoch: lane.epoch(),
    };
    let results = join_all(
        parts
            .into_iter()
            .map(|part| one(lane.clone(), part, timeout)),
    )
    .await;
    Published {
        held,
        results,
        dead,
    }
}

async fn one(lane: LaneRef, part: Part, timeout: Duration) -> Result {
    let all = |outcome: Outcome| vec![outcome; part.messages.len()];
    // Inside the block, so that a panic is caught wherever the sink has it: before it has a future, in it, and while it
    // is dropped. One that got away would take the batch along, and the lane would never be free again.
    let call = AssertUnwindSafe(async {
        tokio::time::timeout(timeout, part.sink.publish(lane, &part.messages)).await
    });
    let (mut outcomes, crashed, down): (Vec<Outcome>, _, _) = match call.catch_unwind().await {
        Ok(Ok(Ok(outcomes))) => (outcomes.into_iter().collect(), false, None),
        Ok(Ok(Err(down))) => (all(Outcome::NotTried), false, Some(down)),
        Ok(Err(_elapsed)) => (
            all(Outcome::retry("the sink did not answer in time")),
            true,
            None,
        ),
        Err(_panic) => (all(Outcome::retry("the sink panicked")), true, None),
    };
    outcomes.resize(part.tried.len(), Outcome::NotTried);
    Result {
        route: part.route,
        outcomes: part.tried.into_iter().zip(outcomes).collect(),
        crashed,
        down,
    }
}
