//! A consumer of JetStream.

use std::{fmt, sync::Arc, time::Duration};

use async_nats::{
    HeaderName, HeaderValue,
    jetstream::{
        AckKind, Message,
        consumer::{AckPolicy, PullConsumer, pull::Batch},
        context::Context,
        message::PublishMessage,
    },
};
use futures_util::{Stream, StreamExt, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Consumed, ConsumerConfig, Handler,
    drive::{Delivery, Handling, drive},
};
use crate::{
    TARGET,
    sink::{
        Reason,
        cloudevents::{Binding, Received, Unreadable},
    },
};

/// Takes events from a JetStream pull consumer, as many as there is room for.
///
/// While an event is handled, or waits for its key or its next attempt, the server is told that it is in progress, three
/// times within the consumer's `ack_wait`. An event without a key that failed is negatively acknowledged with its delay and
/// may be taken up by another process; one with a key stays, so that its key keeps its order.
///
/// After a crash the server delivers what was under way only when its `ack_wait` is over, and what comes behind it meanwhile:
/// then a key's events may be handled out of order. Where that must not happen give the JetStream consumer a
/// `max_ack_pending` of 1, or order events yourself. A graceful shutdown gives them back in order, and takes two seconds for that:
/// the pull that is open is read to its end first.
///
/// # Dead letters
/// An event that is given up is terminated (`+TERM`): the server delivers it no more and publishes
/// `$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.<stream>.<consumer>` with its sequence. It stays in the stream as the stream's
/// retention says: with the default limits it can be found there, a work queue removes it. With
/// [`dead_letters`](Self::dead_letters) it is first published whole to a subject of yours, and terminated only once that is
/// acknowledged.
///
/// ```no_run
/// # async fn example(jetstream: async_nats::jetstream::Context) -> Result<(), Box<dyn std::error::Error>> {
/// use mainstay_outbox::consume::{ConsumerConfig, Handled, NatsConsumer, Received};
///
/// let consumer = jetstream.get_consumer_from_stream("billing", "orders").await?;
/// let consumer = NatsConsumer::new(consumer, ConsumerConfig::default())?
///     .dead_letters(jetstream, "dead.billing");
/// let shutdown = tokio_util::sync::CancellationToken::new();
/// let apply = |event: Received| async move {
///     println!("{}", event.event_type()); // apply it, in one transaction with an inbox
///     Handled::Done
/// };
/// consumer.run(apply, shutdown).await;
/// # Ok(())
/// # }
/// ```
pub struct NatsConsumer {
    consumer: PullConsumer,
    config: ConsumerConfig,
    dead: Option<Arc<Dead>>,
}

/// Why a JetStream consumer cannot be used: it would lose events or never finish with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidConsumer {
    /// Its acknowledgement policy is not explicit: one acknowledgement would speak for other events, or none is needed.
    #[error("the JetStream consumer's ack policy is not explicit")]
    AckPolicy,
    /// It has a `max_deliver`: after that the server delivers no more, and nobody makes it a dead letter. Attempts are
    /// bounded by [`ConsumerConfig::attempts_max`] instead.
    #[error("the JetStream consumer has a max_deliver, which would strand events")]
    MaxDeliver,
}

/// Where dead letters go.
struct Dead {
    context: Context,
    subject: String,
}

impl NatsConsumer {
    /// Over this consumer, best a durable one.
    ///
    /// # Errors
    /// [`InvalidConsumer`], which lists them.
    pub fn new(consumer: PullConsumer, config: ConsumerConfig) -> Result<Self, InvalidConsumer> {
        let set = &consumer.cached_info().config;
        if set.ack_policy != AckPolicy::Explicit {
            return Err(InvalidConsumer::AckPolicy);
        }
        if set.max_deliver > 0 {
            return Err(InvalidConsumer::MaxDeliver);
        }
        Ok(Self {
            consumer,
            config,
            dead: None,
        })
    }

    /// Publishes dead letters to this subject, which a stream must take: the event with all its headers,
    /// `x-dead-letter-reason` and `x-dead-letter-subject`, where it came from.
    #[must_use]
    pub fn dead_letters(mut self, context: Context, subject: impl Into<String>) -> Self {
        self.dead = Some(Arc::new(Dead {
            context,
            subject: subject.into(),
        }));
        self
    }

    /// Consumes until the token is cancelled, and says what was done.
    ///
    /// # Cancel safety
    /// Dropping the future drops the handlers under way. What they had comes again after the consumer's `ack_wait`.
    pub async fn run<H: Handler>(self, handler: H, shutdown: CancellationToken) -> Consumed {
        let working = self.consumer.cached_info().config.ack_wait / 3;
        let working = (!working.is_zero()).then_some(working);
        let places = Arc::new(Semaphore::new(usize::from(self.config.max_in_flight)));
        let handling = Handling::new(handler);
        let source = deliveries(self.consumer, places, self.dead, shutdown.clone());
        // On the heap, once: callers should not have to move some sixteen KiB.
        Box::pin(drive(source, &self.config, working, &handling, &shutdown)).await
    }
}

impl fmt::Debug for NatsConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsConsumer")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// How long the server keeps a pull open. One that a lost connection took along is given up a little later.
const PULL: Duration = Duration::from_secs(2);
const PULL_GRACE: Duration = Duration::from_millis(500);
const PULL_AGAIN: Duration = Duration::from_secs(1);
/// How long the client may take to take an acknowledgement, or the server to store a dead letter.
const SETTLE: Duration = Duration::from_secs(5);

/// A pull that is open, and the places for what it may still bring.
struct Pull {
    batch: Batch,
    until: Instant,
    places: OwnedSemaphorePermit,
}

/// Pulls as many deliveries as there are places, until the shutdown. A pull that is open then is read to its end: closed
/// earlier, what the server has sent on it would only come again after the `ack_wait`, behind what comes later.
fn deliveries(
    consumer: PullConsumer,
    places: Arc<Semaphore>,
    dead: Option<Arc<Dead>>,
    shutdown: CancellationToken,
) -> impl Stream<Item = NatsDelivery> + Send {
    let start = (consumer, places, dead, None::<Pull>);
    stream::unfold(start, move |(consumer, places, dead, mut open)| {
        let shutdown = shutdown.clone();
        async move {
            loop {
                let mut pull = match open.take() {
                    Some(pull) => pull,
                    None => match shutdown
                        .run_until_cancelled(start_pull(&consumer, &places))
                        .await?
                    {
                        Ok(pull) => pull,
                        Err(reason) => {
                            tracing::warn!(target: TARGET, reason, "JetStream cannot be asked for events");
                            shutdown.run_until_cancelled(sleep(PULL_AGAIN)).await?;
                            continue;
                        }
                    },
                };
                match timeout_at(pull.until, pull.batch.next()).await {
                    Ok(Some(Ok(message))) => {
                        let Some(place) = pull.places.split(1) else {
                            continue; // more than was asked for: it comes again
                        };
                        let delivery = NatsDelivery {
                            message,
                            dead: dead.clone(),
                            _place: place,
                        };
                        return Some((delivery, (consumer, places, dead, Some(pull))));
                    }
                    Ok(Some(Err(_))) => {
                        tracing::warn!(target: TARGET, "JetStream ended a pull with an error");
                        drop(pull);
                        shutdown.run_until_cancelled(sleep(PULL_AGAIN)).await?;
                    }
                    Ok(None) | Err(_) => {}
                }
            }
        }
    })
}

async fn start_pull(
    consumer: &PullConsumer,
    places: &Arc<Semaphore>,
) -> Result<Pull, &'static str> {
    let closed = "the consumer is closed"; // it never is
    let mut taken = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(|_| closed)?;
    let more = u32::try_from(places.available_permits()).unwrap_or(u32::MAX);
    if let Ok(more) = Arc::clone(places).try_acquire_many_owned(more) {
        taken.merge(more);
    }
    let batch = consumer
        .batch()
        .max_messages(taken.num_permits())
        .expires(PULL)
        .messages();
    match timeout(PULL, batch).await {
        Ok(Ok(batch)) => Ok(Pull {
            batch,
            until: Instant::now() + PULL + PULL_GRACE,
            places: taken,
        }),
        Ok(Err(_)) => Err("the pull was refused"),
        Err(_) => Err("the client takes nothing more"),
    }
}

struct NatsDelivery {
    message: Message,
    dead: Option<Arc<Dead>>,
    /// Held until it is settled.
    _place: OwnedSemaphorePermit,
}

impl NatsDelivery {
    async fn say(&self, what: AckKind) {
        let said = timeout(SETTLE, self.message.ack_with(what)).await;
        if !matches!(said, Ok(Ok(()))) {
            tracing::warn!(target: TARGET, "an event could not be acknowledged and will come again");
        }
    }

    /// The event as it came, for the dead; without what the transport meant for its first publication.
    fn letter(&self, dead: &Dead, reason: &Reason) -> PublishMessage {
        let mut publish = PublishMessage::build().payload(self.message.payload.clone());
        let own = [
            ("x-dead-letter-reason", reason.as_str()),
            ("x-dead-letter-subject", self.message.subject.as_str()),
        ];
        let headers = self
            .message
            .headers
            .iter()
            .flat_map(|headers| headers.iter());
        let headers = headers.filter_map(|(name, values)| {
            let name: &str = name.as_ref();
            Some((name, values.first()?.as_str()))
        });
        for (name, value) in headers.chain(own) {
            let nats = name
                .get(..5)
                .is_some_and(|of| of.eq_ignore_ascii_case("nats-"));
            if let (Ok(name), Ok(value), false) = (
                name.parse::<HeaderName>(),
                value.parse::<HeaderValue>(),
                nats,
            ) {
                publish = publish.header(name, value);
            }
        }
        // Written again after a lost answer, it is stored once.
        match self.message.info() {
            Ok(info) => publish.message_id(format!(
                "{}/{}/{}/{}",
                dead.subject, info.stream, info.consumer, info.stream_sequence
            )),
            Err(_) => publish,
        }
    }
}

impl Delivery for NatsDelivery {
    fn read(&self) -> Result<Received, Unreadable> {
        let headers: Vec<(&str, &str)> = self
            .message
            .headers
            .iter()
            .flat_map(|headers| headers.iter())
            .filter_map(|(name, values)| Some((name.as_ref(), values.first()?.as_str())))
            .collect();
        let content_type = headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        Received::read(
            Binding::Nats,
            content_type.map(|(_, value)| *value),
            headers.iter().copied(),
            self.message.payload.clone(),
            &self.message.subject,
        )
    }

    fn deliveries_before(&self) -> u32 {
        let delivered = self.message.info().map_or(1, |info| info.delivered);
        u32::try_from(delivered.saturating_sub(1)).unwrap_or(0)
    }

    fn can_be_delayed(&self) -> bool {
        true
    }

    async fn ack(&self) {
        self.say(AckKind::Ack).await;
    }

    async fn give_back(&self, after: Option<Duration>) {
        self.say(AckKind::Nak(after)).await;
    }

    async fn bury(&self, reason: &Reason) -> bool {
        if let Some(dead) = &self.dead {
            let letter = self.letter(dead, reason);
            let stored = timeout(SETTLE, async {
                match dead
                    .context
                    .send_publish(dead.subject.clone(), letter)
                    .await
                {
                    Ok(ack) => ack.await.is_ok(),
                    Err(_) => false,
                }
            });
            if !stored.await.unwrap_or(false) {
                return false;
            }
        }
        self.say(AckKind::Term).await;
        true
    }

    async fn working(&self) {
        self.say(AckKind::Progress).await;
    }
}
