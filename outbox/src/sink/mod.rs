//! Where messages go: one method, a batch in, one outcome per message out.
//!
//! | sink | feature | stores twice what comes twice | an ack means |
//! |---|---|---|---|
//! | `NatsSink` | `nats` | not within the stream's duplicate window | a leader, and with replicas a majority, has it in memory |
//! | `RabbitMqSink` | `rabbitmq` | yes | each queue has it on disk, or on a majority |
//! | `RedisSink` | `redis` | yes, unless told otherwise | the server has it in memory, on disk as `appendfsync` says |
//! | `WebhookSink` | `http` | as the endpoint does | the endpoint answered 2xx |
//! | [`ChannelSink`] | | as the receiver does | the receiving task acknowledged it |
//! | [`MemorySink`], [`FaultSink`] | | yes | for tests |
//!
//! Sinks of your own are held to the same promises by `conformance::sink`.
//!
//! # Whose failure
//! A failure is a message's, which spends an attempt, or the sink's ([`SinkDown`]), which spends none and makes everything
//! wait. Where what came, or did not come, may be either, the sinks to brokers and webhooks go by its company:
//! - Beside answers to other messages that were sent with it, it is the message's. A lone one's too; but the third *different*
//!   message in a row, from whichever lane, that fails so with no other answer in between makes it an outage, until there is any
//!   other answer.
//! - In an outage a message is charged when it has met it for the 8th, 16th, 32nd .. 256th time, and for every 256th then. So
//!   one that fails by itself, and happens to be the one that the relay probes with, does not keep the sink down for ever, and
//!   an outage of hours costs a few messages a few attempts.

mod channel;
#[cfg(feature = "cloudevents")]
#[cfg_attr(docsrs, doc(cfg(feature = "cloudevents")))]
pub mod cloudevents;
mod each;
mod fault;
mod memory;
#[cfg(feature = "nats")]
mod nats;
mod opening;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "nats", feature = "rabbitmq", feature = "redis"))]
mod rounds;
#[cfg(any(
    feature = "http",
    feature = "nats",
    feature = "rabbitmq",
    feature = "redis"
))]
mod streak;
#[cfg(any(feature = "nats", feature = "rabbitmq"))]
mod unroutable;
#[cfg(feature = "http")]
mod webhook;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

#[cfg(feature = "nats")]
#[cfg_attr(docsrs, doc(cfg(feature = "nats")))]
pub use self::nats::NatsSink;
#[cfg(feature = "rabbitmq")]
#[cfg_attr(docsrs, doc(cfg(feature = "rabbitmq")))]
pub use self::rabbitmq::RabbitMqSink;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use self::redis::RedisSink;
#[cfg(any(feature = "nats", feature = "rabbitmq", feature = "redis"))]
#[cfg_attr(
    docsrs,
    doc(cfg(any(feature = "nats", feature = "rabbitmq", feature = "redis")))
)]
pub use self::rounds::Pipeline;
#[cfg(any(feature = "nats", feature = "rabbitmq"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "nats", feature = "rabbitmq"))))]
pub use self::unroutable::Unroutable;
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub use self::webhook::{InvalidWebhook, WebhookBuilder, WebhookSecret, WebhookSink};
pub use self::{
    channel::{ChannelSink, Deliveries, Delivery},
    each::publish_each,
    fault::FaultSink,
    memory::MemorySink,
    opening::OpeningSink,
};
use crate::message::Message;
#[cfg(feature = "rabbitmq-tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "rabbitmq-tls")))]
pub use crate::rabbitmq::RabbitMqTls;

/// A destination of messages: a broker, an endpoint, a channel.
///
/// # Contract
/// - A batch is one lane's messages in order. Messages of one key in it are published **one after the other**; after one
///   that is not [`Acked`](Outcome::Acked), later ones of that key are [`NotTried`](Outcome::NotTried). That is what keeps
///   a key's first deliveries in order. [`publish_each`] does it for sinks that publish message by message.
/// - `Acked` means the destination has taken responsibility. Whatever is not acked is delivered again: at least once.
/// - A failure that says nothing about any message is [`SinkDown`]: it spends no attempt and the relay backs off. What one
///   message can bring about by itself must not be that for ever: everything would wait for it, and it would never die.
/// - A sink bounds its own calls in time. The relay's `publish_timeout` is a last resort that spends an attempt.
///
/// The relay calls `publish` for several lanes at once, each from a task of its own; a panic is caught and spends an
/// attempt of the batch.
///
/// # Cancel safety
/// The future may be dropped at any await (drain deadline, publish timeout); its messages count as possibly delivered.
pub trait Sink: Send + Sync + 'static {
    /// Publishes the batch and says what became of each message, in the batch's order.
    ///
    /// # Errors
    /// [`SinkDown`] when the destination as a whole cannot be reached. Messages already acked in this call are then
    /// delivered again; return outcomes instead where they are known.
    fn publish(
        &self,
        lane: LaneRef,
        batch: &[Message],
    ) -> impl Future<Output = Result<Outcomes, SinkDown>> + Send;
}

impl<S: Sink> Sink for Arc<S> {
    fn publish(
        &self,
        lane: LaneRef,
        batch: &[Message],
    ) -> impl Future<Output = Result<Outcomes, SinkDown>> + Send {
        S::publish(self, lane, batch)
    }
}

/// The lane a batch belongs to, as its relay holds it.
#[derive(Clone, Debug)]
pub struct LaneRef {
    lane: i32,
    epoch: i64,
    lease: Arc<Lease>,
    /// When this batch's time for starting further messages is over.
    start_until: Option<Instant>,
}

/// A lane's lease as the relay's own clock sees it, shared with the batches in flight.
#[derive(Debug)]
pub(crate) struct Lease {
    start: Instant,
    /// Milliseconds after `start`; zero once the lane is known to be lost.
    until: AtomicU64,
}

impl Lease {
    /// `asked` is when the lease was asked for: the database's clock started counting no earlier.
    pub(crate) fn new(asked: Instant, length: Duration) -> Self {
        let lease = Self {
            start: asked,
            until: AtomicU64::new(0),
        };
        lease.extend(asked, length);
        lease
    }

    pub(crate) fn extend(&self, asked: Instant, length: Duration) {
        let until = asked
            .saturating_duration_since(self.start)
            .saturating_add(length);
        let millis = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.until.store(millis, Ordering::Release);
    }

    #[cfg(feature = "sqlx")]
    pub(crate) fn lose(&self) {
        self.until.store(0, Ordering::Release);
    }

    pub(crate) fn is_held(&self) -> bool {
        let until = Duration::from_millis(self.until.load(Ordering::Acquire));
        self.start.elapsed() < until
    }
}

impl LaneRef {
    pub(crate) const fn new(lane: i32, epoch: i64, lease: Arc<Lease>) -> Self {
        Self {
            lane,
            epoch,
            lease,
            start_until: None,
        }
    }

    /// The lane for a batch that starts no message after this moment.
    #[cfg(feature = "sqlx")]
    pub(crate) fn starting_until(self, moment: Instant) -> Self {
        Self {
            start_until: Some(moment),
            ..self
        }
    }

    /// A lane that stays held; for tests of your own sinks.
    #[must_use]
    pub fn detached() -> Self {
        let day = Duration::from_secs(86_400);
        Self::new(0, 0, Arc::new(Lease::new(Instant::now(), day)))
    }

    /// The lane's number.
    #[must_use]
    pub const fn number(&self) -> i32 {
        self.lane
    }

    /// How often the lane has changed hands: a fencing token, for destinations that can check one.
    #[must_use]
    pub const fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Whether a further message of this batch may be started: false once the lane's lease has run out or is known to be
    /// lost, and once half of the relay's `publish_timeout` is over.
    ///
    /// Sinks ask before each message; what they do not start is [`NotTried`](Outcome::NotTried). So a relay that was
    /// paused publishes as little as possible when it wakes, and a batch that takes too long gives its rest back
    /// instead of being cut off with its outcomes.
    #[must_use]
    pub fn is_held(&self) -> bool {
        let in_time = self.start_until.is_none_or(|until| Instant::now() < until);
        in_time && self.lease.is_held()
    }
}

/// What became of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The destination has it.
    Acked,
    /// It failed and may work later. Spends an attempt.
    Retry {
        /// The destination asked for at least this wait; capped by the relay at an hour.
        after: Option<Duration>,
        /// Why, for the operator.
        reason: Reason,
    },
    /// It will never work: straight to the dead letters.
    Reject {
        /// Why, for the operator.
        reason: Reason,
    },
    /// Not published in this call, and no attempt is spent: an earlier message of its key failed.
    NotTried,
}

impl Outcome {
    /// [`Outcome::Retry`] without a wait asked for.
    pub fn retry(reason: impl Into<Reason>) -> Self {
        Self::Retry {
            after: None,
            reason: reason.into(),
        }
    }

    /// [`Outcome::Reject`].
    pub fn reject(reason: impl Into<Reason>) -> Self {
        Self::Reject {
            reason: reason.into(),
        }
    }
}

/// One outcome per message of a batch, in its order. Missing ones count as [`Outcome::NotTried`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcomes(Vec<Outcome>);

impl Outcomes {
    /// Every message of a batch of `len` was acked.
    #[must_use]
    pub fn all_acked(len: usize) -> Self {
        Self(vec![Outcome::Acked; len])
    }

    /// The outcomes in the batch's order.
    pub fn iter(&self) -> std::slice::Iter<'_, Outcome> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Outcome> for Outcomes {
    fn from_iter<I: IntoIterator<Item = Outcome>>(outcomes: I) -> Self {
        Self(outcomes.into_iter().collect())
    }
}

impl IntoIterator for Outcomes {
    type Item = Outcome;
    type IntoIter = std::vec::IntoIter<Outcome>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Outcomes {
    type Item = &'a Outcome;
    type IntoIter = std::slice::Iter<'a, Outcome>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Why something failed, for operators: at most 500 bytes, without control characters.
///
/// It is stored beside the message and logged: put no payload and no secret in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(String);

impl Reason {
    const BYTES_MAX: usize = 500;

    /// The reason, cut to its cap.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut end = text.len().min(Self::BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let cut = text.get(..end).unwrap_or_default();
        Self(
            cut.chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect(),
        )
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The destination as a whole cannot be reached. Spends no attempt; the relay backs off and probes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sink is down: {0}")]
pub struct SinkDown(Reason);

impl SinkDown {
    /// Down for this reason.
    pub fn new(reason: impl Into<Reason>) -> Self {
        Self(reason.into())
    }

    /// Why.
    #[must_use]
    pub const fn reason(&self) -> &Reason {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_between_characters_and_holds_no_control_characters() {
        let reason = Reason::new(&format!("a\n\0{}", "ä".repeat(400)));
        assert!(reason.as_str().len() <= 500);
        assert!(reason.as_str().starts_with("a  ä"));
    }
}
