//! A sink to a task of the same process, acknowledged by it: at least once, also across a crash of the process.

use tokio::sync::{mpsc, oneshot};

use super::{LaneRef, Outcome, Outcomes, Reason, Sink, SinkDown, publish_each};
use crate::message::Message;

/// Hands messages to [`Deliveries`] in the same process and waits for each to be answered.
///
/// An ack means the receiving task called [`Delivery::ack`]; only then does the row leave the database. Messages of one
/// key are handed over one after the other, different keys side by side up to the capacity.
#[derive(Clone, Debug)]
pub struct ChannelSink {
    sender: mpsc::Sender<Delivery>,
    capacity: usize,
}

impl ChannelSink {
    /// A channel that holds up to `capacity` messages (at least 1) that nobody has received yet.
    #[must_use]
    pub fn new(capacity: usize) -> (Self, Deliveries) {
        let capacity = capacity.max(1);
        let (sender, receiver) = mpsc::channel(capacity);
        (Self { sender, capacity }, Deliveries { receiver })
    }
}

impl Sink for ChannelSink {
    async fn publish(&self, lane: LaneRef, batch: &[Message]) -> Result<Outcomes, SinkDown> {
        publish_each(&lane, batch, self.capacity, async |message: &Message| {
            let (answer, answered) = oneshot::channel();
            let delivery = Delivery {
                message: message.clone(),
                answer,
            };
            let Ok(place) = self.sender.reserve().await else {
                return Err(SinkDown::new("the receiver of the channel is gone"));
            };
            if !lane.is_held() {
                return Ok(Outcome::NotTried); // waiting for the place took too long
            }
            place.send(delivery);
            Ok(answered
                .await
                .unwrap_or_else(|_| Outcome::retry("the delivery was dropped without an answer")))
        })
        .await
    }
}

/// The receiving end of a [`ChannelSink`]. When it is dropped the sink is down.
#[derive(Debug)]
pub struct Deliveries {
    receiver: mpsc::Receiver<Delivery>,
}

impl Deliveries {
    /// The next delivery; `None` once every sender is gone.
    ///
    /// Deliveries that the relay has stopped waiting for meanwhile are left out: they come again.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Delivery> {
        loop {
            let delivery = self.receiver.recv().await?;
            if !delivery.answer.is_closed() {
                return Some(delivery);
            }
        }
    }
}

/// A message that waits for its answer. Dropping it unanswered is a retry and spends an attempt.
#[derive(Debug)]
#[must_use = "dropping a delivery asks for it to be delivered again"]
pub struct Delivery {
    message: Message,
    answer: oneshot::Sender<Outcome>,
}

impl Delivery {
    /// The message.
    #[must_use]
    pub const fn message(&self) -> &Message {
        &self.message
    }

    /// It has taken effect; it will not be delivered again unless the relay dies before it settles.
    pub fn ack(self) {
        self.answer_with(Outcome::Acked);
    }

    /// It failed and may work later.
    pub fn retry(self, reason: impl Into<Reason>) {
        self.answer_with(Outcome::retry(reason));
    }

    /// It will never work.
    pub fn reject(self, reason: impl Into<Reason>) {
        self.answer_with(Outcome::reject(reason));
    }

    fn answer_with(self, outcome: Outcome) {
        // A relay that has stopped waiting delivers it again: at least once.
        let _ = self.answer.send(outcome);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use futures_util::FutureExt;
    use tokio::time::timeout;

    use super::*;
    use crate::event::Event;

    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_any_more_is_not_received() {
        let (sink, mut deliveries) = ChannelSink::new(8);
        let message =
            |name: &str| Message::from_event(Event::new("t").subject(name), "/s", UNIX_EPOCH);
        let stale = [message("cut off")];
        let publish = sink.publish(LaneRef::detached(), &stale);
        assert!(timeout(Duration::from_secs(1), publish).await.is_err());

        let fresh = [message("waited for")];
        let mut publish = Box::pin(sink.publish(LaneRef::detached(), &fresh));
        assert!((&mut publish).now_or_never().is_none());
        let received = deliveries.recv().await.unwrap();
        assert_eq!(received.message().subject(), Some("waited for"));
    }
}
