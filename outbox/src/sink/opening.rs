//! A sink that is given plain payloads although the table holds sealed ones.

use std::fmt;

use super::{LaneRef, Outcome, Outcomes, Sink, SinkDown};
use crate::{
    codec::{SEALED_BY, Seal},
    message::Message,
};

/// Opens sealed payloads before they are published: only the database holds sealed bytes then.
///
/// For sinks whose consumers hold no key; without it sealed messages are published as they are. What is not sealed is left
/// alone. A message that does not open spends an attempt, so that a key that is deployed late is waited for, and the rest of
/// its batch is published at the next look.
#[derive(Clone)]
pub struct OpeningSink<S, K> {
    sink: S,
    seal: K,
}

impl<S: Sink, K: Seal> OpeningSink<S, K> {
    /// Opens with `seal` what goes to `sink`.
    pub const fn new(sink: S, seal: K) -> Self {
        Self { sink, seal }
    }
}

impl<S: fmt::Debug, K> fmt::Debug for OpeningSink<S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpeningSink").field(&self.sink).finish()
    }
}

impl<S: Sink, K: Seal> Sink for OpeningSink<S, K> {
    async fn publish(&self, lane: LaneRef, batch: &[Message]) -> Result<Outcomes, SinkDown> {
        let sealed = |message: &Message| message.header(SEALED_BY).is_some();
        if !batch.iter().any(sealed) {
            return self.sink.publish(lane, batch).await;
        }
        // Up to the first that does not open: those behind it may be of its key.
        let opened: Vec<Message> = batch
            .iter()
            .map_while(|message| message.clone().opened(&self.seal).ok())
            .collect();
        let shut = opened.len() < batch.len();
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(opened.len() + 1);
        if !opened.is_empty() {
            outcomes.extend(self.sink.publish(lane, &opened).await?);
            outcomes.resize(opened.len(), Outcome::NotTried);
        }
        if shut {
            outcomes.push(Outcome::retry("the payload cannot be opened"));
        }
        Ok(outcomes.into_iter().collect())
    }
}
