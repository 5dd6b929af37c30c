//! The other end: events taken from a broker, handled, and only then acknowledged.
//!
//! [`NatsConsumer`] reads a JetStream pull consumer, [`RabbitMqConsumer`] a queue. Both read [CloudEvents] in either mode,
//! whoever published them, give each to a [`Handler`] and settle it by what the handler says:
//!
//! | the handler says | the broker is told |
//! |---|---|
//! | [`Handled::Done`] | acknowledged: it will not come again, unless the acknowledgement is lost |
//! | [`Handled::Retry`], a panic, or no answer within [`handler_timeout`](ConsumerConfig::handler_timeout) | nothing yet: it is handled again after a backoff, while later events of its key wait (JetStream without a key: a negative acknowledgement with that delay) |
//! | [`Handled::Dead`], or attempts spent | a dead letter, then it is settled |
//! | – (what came is no CloudEvent) | a dead letter, without being handled |
//!
//! # The promise
//! - **At least once.** A crash before the acknowledgement means another delivery. Apply each event in one transaction
//!   with an inbox that remembers its id, and it takes effect once: the example `broker_consumer` of `mainstay` shows it.
//! - **Order per key** as long as one consumer runs: events of a key are handled one after the other, in the order in which
//!   the broker delivers them, also when one of them fails for a while. A dead letter lets its key go on. After a crash
//!   RabbitMQ delivers in the old order, JetStream later events first. Between several processes on one queue brokers keep
//!   no order: have one active (RabbitMQ: `x-single-active-consumer`), or split keys over several streams or queues.
//! - **Attempts survive crashes** as far as the broker counts deliveries: JetStream does, and quorum queues do; a classic
//!   queue only says that an event came before, which counts as one. The count is of deliveries, not of attempts: what was
//!   only held while another event killed the consumer, or its connection was lost, is counted too. So an event that was
//!   delivered [`attempts_max`](ConsumerConfig::attempts_max) times without an answer is handled once more, while nothing
//!   else is, and is a dead letter if that fails. One that ends the process even so, three times, is given up unhandled at
//!   the next delivery, and only one such event each time the consumer runs. So an event that kills its consumer ends as a
//!   dead letter (on a classic queue it does not).
//! - **Nothing is unbounded**: at most [`max_in_flight`](ConsumerConfig::max_in_flight) events are held, those that wait for
//!   their key among them; the broker keeps the rest.
//! - **An outage is waited out**: a lost connection, a consumer or queue that is not there yet. Ask the logs, or the
//!   broker's own lag.
//!
//! # Shutdown
//! When the token is cancelled nothing more is handled but what is under way, which has
//! [`drain_timeout`](ConsumerConfig::drain_timeout) to end before it is dropped. Then everything that is held is given back
//! together: on JetStream in the order of arrival, once the pull that is open has ended (two seconds); on RabbitMQ by the end
//! of the channel, which puts all of it back in its place.
//!
//! [CloudEvents]: crate::sink::cloudevents

mod drive;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;

use std::{future::Future, time::Duration};

use mainstay_retry::Backoff;

#[cfg(feature = "nats")]
#[cfg_attr(docsrs, doc(cfg(feature = "nats")))]
pub use self::nats::{InvalidConsumer, NatsConsumer};
#[cfg(feature = "rabbitmq")]
#[cfg_attr(docsrs, doc(cfg(feature = "rabbitmq")))]
pub use self::rabbitmq::{DeadLetters, RabbitMqConsumer};
#[cfg(feature = "rabbitmq-tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "rabbitmq-tls")))]
pub use crate::rabbitmq::RabbitMqTls;
use crate::sink::Reason;
pub use crate::sink::cloudevents::Received;

/// What became of an event that was handled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Handled {
    /// It has taken effect, now or before.
    Done,
    /// It failed and may work later. Spends an attempt.
    Retry {
        /// Wait at least this long; else the configured backoff. Capped at an hour.
        after: Option<Duration>,
        /// Why, for the operator.
        reason: Reason,
    },
    /// It will never work.
    Dead {
        /// Why, for the operator.
        reason: Reason,
    },
}

impl Handled {
    /// [`Handled::Retry`] after the configured backoff.
    pub fn retry(reason: impl Into<Reason>) -> Self {
        Self::Retry {
            after: None,
            reason: reason.into(),
        }
    }

    /// [`Handled::Dead`].
    pub fn dead(reason: impl Into<Reason>) -> Self {
        Self::Dead {
            reason: reason.into(),
        }
    }
}

/// Errors are tried again, so that `?` can be used. Their text is logged and stored with a dead letter: put no secret in it.
impl<E: std::fmt::Display> From<Result<(), E>> for Handled {
    fn from(result: Result<(), E>) -> Self {
        match result {
            Ok(()) => Self::Done,
            Err(error) => Self::retry(error.to_string()),
        }
    }
}

/// Applies events. Implemented for functions from an event to a future of [`Handled`].
///
/// # Cancel safety
/// The future is dropped when it takes too long and when the consumer shuts down for longer than it may; the event comes
/// again. A panic is caught and counts as [`Handled::Retry`].
pub trait Handler: Send + Sync + 'static {
    /// Applies one event.
    fn handle(&self, event: Received) -> impl Future<Output = Handled> + Send;
}

impl<F, Fut> Handler for F
where
    F: Fn(Received) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Handled> + Send,
{
    fn handle(&self, event: Received) -> impl Future<Output = Handled> + Send {
        self(event)
    }
}

/// The bounds of a consumer.
#[derive(Clone, Debug)]
#[must_use]
pub struct ConsumerConfig {
    max_in_flight: u16,
    attempts_max: u32,
    backoff: Backoff,
    handler_timeout: Duration,
    drain_timeout: Duration,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            max_in_flight: 64,
            attempts_max: 8,
            backoff: Backoff::equal_jitter(Duration::from_millis(200), Duration::from_mins(1)),
            handler_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

impl ConsumerConfig {
    /// The most events that are held at once, those that wait for another of their key among them. Default 64: some
    /// connections' worth of work, and few enough to be given back at once.
    pub const fn max_in_flight(mut self, events: u16) -> Self {
        self.max_in_flight = if events == 0 { 1 } else { events };
        self
    }

    /// How often an event is handled before it is a dead letter. Default 8, which with the default backoff is most of a
    /// minute. Deliveries that ended without an answer count, but do not make it one unhandled: it has an attempt alone.
    pub const fn attempts_max(mut self, attempts: u32) -> Self {
        self.attempts_max = if attempts == 0 { 1 } else { attempts };
        self
    }

    /// How long a failed event waits. Default: from 200 ms to a minute, with jitter.
    pub const fn retry(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// How long a handler may take. Default 30 s. The broker is told meanwhile that the event is being worked on.
    pub const fn handler_timeout(mut self, timeout: Duration) -> Self {
        self.handler_timeout = timeout;
        self
    }

    /// How long handlers under way may go on after the shutdown. Default 10 s.
    pub const fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }
}

/// What a consumer has done when it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Consumed {
    /// Events that were handled and acknowledged.
    pub done: u64,
    /// Attempts that failed and were to be made again.
    pub retried: u64,
    /// Events that became dead letters.
    pub dead: u64,
    /// Events that were given back, or dropped with their handler, when the consumer ended or its connection was lost.
    pub given_back: u64,
}

impl std::ops::AddAssign for Consumed {
    fn add_assign(&mut self, more: Self) {
        self.done += more.done;
        self.retried += more.retried;
        self.dead += more.dead;
        self.given_back += more.given_back;
    }
}
