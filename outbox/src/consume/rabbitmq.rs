//! A consumer of a RabbitMQ queue.

use std::{collections::BTreeMap, fmt, sync::Arc, task::Poll, time::Duration};

use futures_util::{Stream, StreamExt, stream};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, Consumer,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        BasicRejectOptions, ConfirmSelectOptions,
    },
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Consumed, ConsumerConfig, Handler,
    drive::{Delivery, Handling, drive},
};
#[cfg(feature = "rabbitmq-tls")]
use crate::rabbitmq::RabbitMqTls;
use crate::{
    TARGET,
    rabbitmq::Address,
    sink::{
        Reason,
        cloudevents::{Binding, Received, Unreadable},
    },
};

/// Takes events from a queue with acknowledgements, at most
/// [`max_in_flight`](ConsumerConfig::max_in_flight) ahead (the channel's prefetch).
///
/// RabbitMQ has no delay for a negative acknowledgement: an event that failed stays with this consumer, unacknowledged,
/// until its next attempt. The broker closes channels whose deliveries stay so for half an hour (`consumer_timeout`); keep
/// the sum of an event's waits below that.
///
/// It connects by itself, and again when the connection is lost. What was under way then comes again, in its old place in
/// the queue. Before it takes more, the consumer lets its handlers end, for
/// [`drain_timeout`](ConsumerConfig::drain_timeout) at the most.
///
/// ```no_run
/// # async fn example() {
/// use mainstay_outbox::consume::{ConsumerConfig, DeadLetters, Handled, RabbitMqConsumer, Received};
///
/// let dead = DeadLetters::Exchange {
///     exchange: String::new(),
///     routing_key: "billing.dead".to_owned(), // on the default exchange: the queue of that name
/// };
/// let uri = "amqp://guest:guest@127.0.0.1:5672";
/// let consumer = RabbitMqConsumer::new(uri, "billing", dead, ConsumerConfig::default());
/// let shutdown = tokio_util::sync::CancellationToken::new();
/// let apply = |event: Received| async move {
///     println!("{}", event.event_type()); // apply it, in one transaction with an inbox
///     Handled::Done
/// };
/// consumer.run(apply, shutdown).await;
/// # }
/// ```
pub struct RabbitMqConsumer {
    address: Address,
    queue: String,
    dead: DeadLetters,
    config: ConsumerConfig,
}

/// What becomes of an event that is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeadLetters {
    /// It is rejected, and the queue's own `x-dead-letter-exchange` takes it. A queue that has none **drops** it.
    Policy,
    /// It is published here with `x-dead-letter-reason`, and acknowledged once the broker confirms that a queue has it.
    Exchange {
        /// The exchange; the empty name is the default one, where routing keys are queues.
        exchange: String,
        /// The routing key.
        routing_key: String,
    },
}

impl RabbitMqConsumer {
    /// Of this queue, which should be durable. The URI is as the sink's.
    #[must_use]
    pub fn new(
        uri: impl Into<String>,
        queue: impl Into<String>,
        dead: DeadLetters,
        config: ConsumerConfig,
    ) -> Self {
        Self {
            address: Address::new(uri.into()),
            queue: queue.into(),
            dead,
            config,
        }
    }

    /// How the certificate of an `amqps` address is checked, and what is shown of our own. As the sink's.
    #[cfg(feature = "rabbitmq-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "rabbitmq-tls")))]
    #[must_use]
    pub fn tls(mut self, tls: RabbitMqTls) -> Self {
        self.address = self.address.with_tls(tls);
        self
    }

    /// Consumes until the token is cancelled, and says what was done.
    ///
    /// # Cancel safety
    /// Dropping the future drops the handlers under way. What they had comes again.
    pub async fn run<H: Handler>(self, handler: H, shutdown: CancellationToken) -> Consumed {
        let handling = Handling::new(handler);
        let mut total = Consumed::default();
        loop {
            let session = tokio::select! {
                () = shutdown.cancelled() => break,
                session = timeout(CONNECT, self.connect(shutdown.clone())) => session,
            };
            match session {
                Ok(Ok(session)) => {
                    let Session {
                        connection,
                        source,
                        consumer: _consumer, // dropped earlier, it would be cancelled earlier
                    } = session;
                    // On the heap, once: callers should not have to move some sixteen KiB.
                    total +=
                        Box::pin(drive(source, &self.config, None, &handling, &shutdown)).await;
                    let _ = timeout(SETTLE, connection.close(200, "OK".into())).await;
                }
                Ok(Err(Unusable(reason))) => self.warn(&reason),
                Err(_) => self.warn(&"it did not answer in time".into()),
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = sleep(CONNECT_AGAIN) => {}
            }
        }
        total
    }

    fn warn(&self, reason: &Reason) {
        tracing::warn!(target: TARGET, queue = self.queue, %reason, "RabbitMQ cannot be consumed from");
    }

    async fn connect(
        &self,
        shutdown: CancellationToken,
    ) -> Result<Session<impl Stream<Item = RabbitMqDelivery> + Send + use<>>, Unusable> {
        let queue = short(&self.queue)?;
        let connection = Arc::new(self.address.connect().await.map_err(Unusable)?);
        let dead = match &self.dead {
            DeadLetters::Policy => None,
            DeadLetters::Exchange {
                exchange,
                routing_key,
            } => Some(Arc::new(Dead {
                connection: Arc::clone(&connection),
                channel: Mutex::new(None),
                exchange: short(exchange)?,
                routing_key: short(routing_key)?,
            })),
        };
        let channel = connection.create_channel().await?;
        let prefetch = self.config.max_in_flight;
        channel
            .basic_qos(prefetch, BasicQosOptions::default())
            .await?;
        let consumer = channel
            .basic_consume(
                queue,
                ShortString::default(), // the broker chooses a tag
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        // Ends with the channel, and at the shutdown after what has come already. Dropping the channel would close it, so it
        // stays with the source.
        let mut arriving = consumer.clone();
        let source = stream::poll_fn(move |cx| {
            let delivery = match arriving.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(delivery))) => delivery,
                Poll::Pending if !shutdown.is_cancelled() => return Poll::Pending,
                Poll::Ready(Some(Err(_)) | None) | Poll::Pending => return Poll::Ready(None),
            };
            Poll::Ready(Some(RabbitMqDelivery {
                delivery,
                dead: dead.clone(),
                _channel: channel.clone(),
            }))
        });
        Ok(Session {
            connection,
            source,
            consumer,
        })
    }
}

/// The URI stays out: it holds the password.
impl fmt::Debug for RabbitMqConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqConsumer")
            .field("queue", &self.queue)
            .field("dead", &self.dead)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

const CONNECT: Duration = Duration::from_secs(5);
const CONNECT_AGAIN: Duration = Duration::from_millis(500);
/// How long the broker may take to take an answer or to confirm a dead letter.
const SETTLE: Duration = Duration::from_secs(5);

/// What quorum queues count, in headers that they write themselves.
const DELIVERY_COUNT: &str = "x-delivery-count";
const COUNTS: [&str; 2] = [DELIVERY_COUNT, "x-acquired-count"];

struct Session<S> {
    connection: Arc<Connection>,
    source: S,
    consumer: Consumer,
}

/// The broker, or what it is asked for, is not there.
struct Unusable(Reason);

/// What the broker says may name the user: that has to do.
impl From<lapin::Error> for Unusable {
    fn from(_: lapin::Error) -> Self {
        Self("no channel, or no such queue for this user".into())
    }
}

fn short(name: &str) -> Result<ShortString, Unusable> {
    ShortString::try_new(name).map_err(|_| Unusable("a name is longer than AMQP carries".into()))
}

/// Where dead letters go. One at a time, so that a returned one is known.
struct Dead {
    connection: Arc<Connection>,
    /// In confirm mode, with nothing awaited. Empty until it is needed, and again while one is used: a channel that the
    /// broker closed, or on which an answer is still awaited, is used no more.
    channel: Mutex<Option<Channel>>,
    exchange: ShortString,
    routing_key: ShortString,
}

impl Dead {
    /// Whether the broker confirms that a queue has it.
    async fn publish(&self, body: &[u8], properties: BasicProperties) -> lapin::Result<bool> {
        let mut idle = self.channel.lock().await;
        let channel = match idle.take().filter(|of| of.status().connected()) {
            Some(channel) => channel,
            None => self.open().await?,
        };
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let (exchange, key) = (self.exchange.clone(), self.routing_key.clone());
        let confirm = channel.basic_publish(exchange, key, options, body, properties);
        let confirmed = confirm.await?.await?;
        *idle = Some(channel);
        Ok(matches!(confirmed, Confirmation::Ack(None)))
    }

    async fn open(&self) -> lapin::Result<Channel> {
        let channel = self.connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(channel)
    }
}

struct RabbitMqDelivery {
    delivery: lapin::message::Delivery,
    dead: Option<Arc<Dead>>,
    _channel: Channel,
}

impl RabbitMqDelivery {
    /// The headers that are text.
    fn headers(&self) -> Vec<(&str, String)> {
        let table = self.delivery.properties.headers().as_ref();
        let headers = table.into_iter().flat_map(FieldTable::inner);
        let text = headers.filter_map(|(name, value)| match value {
            AMQPValue::LongString(text) => {
                let text = std::str::from_utf8(text.as_bytes()).ok()?;
                Some((name.as_str(), text.to_owned()))
            }
            AMQPValue::ShortString(text) => Some((name.as_str(), text.to_string())),
            _ => None,
        });
        text.collect()
    }

    /// The properties of a dead letter: those of the event, but for what was meant for its first publication only.
    ///
    /// The broker refuses a user that is not ours, a letter should not expire, and the count of deliveries is this queue's:
    /// whoever reads the letters, or moves them back, would take it for its own.
    fn letter(&self, reason: &Reason) -> BasicProperties {
        let of = &self.delivery.properties;
        let headers = of.headers().iter().flat_map(FieldTable::inner);
        let kept = headers.filter(|(name, _)| !COUNTS.contains(&name.as_str()));
        let mut headers: BTreeMap<_, _> = kept.map(|(n, v)| (n.clone(), v.clone())).collect();
        for (name, value) in [
            ("x-dead-letter-reason", reason.as_str()),
            (
                "x-dead-letter-routing-key",
                self.delivery.routing_key.as_str(),
            ),
        ] {
            headers.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
        }
        let mut letter = BasicProperties::default()
            .with_headers(FieldTable::from(headers))
            .with_delivery_mode(2);
        macro_rules! keep {
            ($($property:ident, $with:ident;)*) => {
                $(if let Some(value) = of.$property() {
                    letter = letter.$with(ToOwned::to_owned(value));
                })*
            };
        }
        keep! {
            content_type, with_content_type;
            content_encoding, with_content_encoding;
            priority, with_priority;
            correlation_id, with_correlation_id;
            reply_to, with_reply_to;
            message_id, with_message_id;
            timestamp, with_timestamp;
            kind, with_type;
            app_id, with_app_id;
        }
        letter
    }

    async fn said(what: impl Future<Output = lapin::Result<bool>>) {
        if !matches!(timeout(SETTLE, what).await, Ok(Ok(true))) {
            tracing::warn!(target: TARGET, "an event could not be acknowledged and will come again");
        }
    }
}

impl Delivery for RabbitMqDelivery {
    fn read(&self) -> Result<Received, Unreadable> {
        let headers = self.headers();
        let content_type = self.delivery.properties.content_type().as_ref();
        Received::read(
            Binding::Amqp,
            content_type.map(ShortString::as_str),
            headers.iter().map(|(name, value)| (*name, value.as_str())),
            self.delivery.data.clone().into(),
            self.delivery.routing_key.as_str(),
        )
    }

    fn deliveries_before(&self) -> u32 {
        if !self.delivery.redelivered {
            return 0; // a count that came along is another queue's
        }
        let headers = self.delivery.properties.headers().as_ref();
        let counted = headers.and_then(|table| table.inner().get(DELIVERY_COUNT));
        let counted = match counted {
            Some(AMQPValue::LongLongInt(count)) => u32::try_from(*count).ok(),
            Some(AMQPValue::LongInt(count)) => u32::try_from(*count).ok(),
            Some(AMQPValue::LongUInt(count)) => Some(*count),
            _ => None,
        };
        counted.unwrap_or(1)
    }

    fn can_be_delayed(&self) -> bool {
        false
    }

    async fn ack(&self) {
        Self::said(self.delivery.acker.ack(BasicAckOptions::default())).await;
    }

    /// The end of the channel does it, which follows: for all at once, in their old places, and in the same step in which
    /// the queue forgets this consumer. A negative acknowledgement before would come straight back; after `basic.cancel`
    /// another consumer would be given what comes behind.
    async fn give_back(&self, _after: Option<Duration>) {}

    async fn bury(&self, reason: &Reason) -> bool {
        let Some(dead) = &self.dead else {
            let reject = BasicRejectOptions { requeue: false };
            Self::said(self.delivery.acker.reject(reject)).await;
            return true;
        };
        let written = dead.publish(&self.delivery.data, self.letter(reason));
        if !matches!(timeout(SETTLE, written).await, Ok(Ok(true))) {
            return false;
        }
        self.ack().await;
        true
    }

    async fn working(&self) {}
}
