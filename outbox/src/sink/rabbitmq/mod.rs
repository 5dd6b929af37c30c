//! A sink to RabbitMQ, with publisher confirms.

mod broker;

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use lapin::{
    BasicProperties, Confirmation,
    options::BasicPublishOptions,
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::time::{Instant, timeout_at};

use self::broker::{BLOCKED, Broker, Confirming, Fault, fault};
use super::{
    LaneRef, Outcome, Outcomes, Sink, SinkDown, Unroutable,
    cloudevents::{Binding, ContentMode, Wire},
    rounds::{Pipeline, Rounds},
    streak::{OUTAGE, Streak},
};
#[cfg(feature = "rabbitmq-tls")]
use crate::rabbitmq::RabbitMqTls;
use crate::{message::Message, rabbitmq::Address};

type RoutingKeyOf = dyn Fn(&Message) -> String + Send + Sync;

/// Publishes to an exchange and waits for the broker's confirms.
///
/// # What is sent
/// By default in binary mode of [CloudEvents](super::cloudevents): `cloudEvents:*` headers, the content type, and the payload
/// as it is. Messages are persistent (delivery mode 2) and mandatory; `message-id` is the event's id, the same on every
/// delivery. RabbitMQ stores what comes twice twice: consumers deduplicate by the id. The routing key is the topic, or what
/// [`routing_key`](Self::routing_key) makes of the message.
///
/// # What an ack means
/// The broker confirmed that every queue the message was routed to has taken it: a durable classic queue has written it to
/// its disk (and called fsync, in batches of a few hundred milliseconds), a quorum queue has it on a majority of its
/// members. A queue that is not durable loses it with the node all the same, and confirms all the same.
///
/// # What the answer means
/// | answer | outcome |
/// |---|---|
/// | confirmed | acked |
/// | refused (a full queue with `reject-publish`, a queue's error) | retry |
/// | returned, because no queue is bound for it | retry, or as [`unroutable`](Self::unroutable) says |
/// | larger than [`message_bytes_max`](Self::message_bytes_max); a routing key or header that AMQP cannot carry | rejected |
/// | the broker closes the channel over the message (406), also when it is sent alone | rejected |
/// | not confirmed within [`confirm_timeout`](Self::confirm_timeout) while others were | retry: it may have been stored |
/// | no permission to publish it (403: for the exchange, or for its routing key) while others are confirmed | retry |
/// | the same for a lone message; or it is not confirmed, though the broker opens a channel | retry, or from the [third message](super#whose-failure) in a row on the sink is down |
/// | nothing is confirmed, and no channel is opened; no connection, no TLS; blocked by an alarm of memory or disk; no such exchange | the sink is down |
///
/// The sink connects when it is first used, and again whenever its connection is lost. One connection carries all lanes,
/// each on a channel of its own.
///
/// ```no_run
/// use mainstay_outbox::sink::RabbitMqSink;
///
/// let sink = RabbitMqSink::new("amqp://guest:guest@127.0.0.1:5672", "events")
///     .routing_key(|message| format!("{}.{}", message.topic(), message.event_type()));
/// ```
#[derive(Clone)]
pub struct RabbitMqSink {
    broker: Arc<Broker>,
    exchange: String,
    routing_key: Arc<RoutingKeyOf>,
    mode: ContentMode,
    pipeline: Pipeline,
    unroutable: Unroutable,
    confirm_timeout: Duration,
    connect_timeout: Duration,
    max_in_flight: usize,
    message_bytes_max: usize,
    streak: Arc<Mutex<Streak>>,
}

impl RabbitMqSink {
    /// A sink to this exchange, which must exist; the empty name is the default exchange, where routing keys are queues.
    ///
    /// The URI is `amqp://user:password@host:port/vhost`; for `amqps` turn the feature `rabbitmq-tls` on. Without it the sink
    /// is down at such an address, and says why.
    #[must_use]
    pub fn new(uri: impl Into<String>, exchange: impl Into<String>) -> Self {
        Self {
            broker: Arc::new(Broker::new(Address::new(uri.into()))),
            exchange: exchange.into(),
            routing_key: Arc::new(|message| message.topic().to_owned()),
            mode: ContentMode::Binary,
            pipeline: Pipeline::AcrossKeys,
            unroutable: Unroutable::Retry,
            confirm_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            max_in_flight: 256,
            message_bytes_max: 16 * 1024 * 1024,
            streak: Arc::default(),
        }
    }

    /// How the certificate of an `amqps` address is checked, and what is shown of our own. Default: authorities that browsers
    /// trust, nothing.
    #[cfg(feature = "rabbitmq-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "rabbitmq-tls")))]
    #[must_use]
    pub fn tls(mut self, tls: RabbitMqTls) -> Self {
        let address = self.broker.address().clone().with_tls(tls);
        self.broker = Arc::new(Broker::new(address));
        self
    }

    /// The routing key of a message, at most 255 bytes. Default: its topic.
    #[must_use]
    pub fn routing_key(mut self, of: impl Fn(&Message) -> String + Send + Sync + 'static) -> Self {
        self.routing_key = Arc::new(of);
        self
    }

    /// Binary mode (the default) or one JSON document a message.
    #[must_use]
    pub const fn content_mode(mut self, mode: ContentMode) -> Self {
        self.mode = mode;
        self
    }

    /// What may be under way at once. Default: one message of each key.
    #[must_use]
    pub const fn pipeline(mut self, pipeline: Pipeline) -> Self {
        self.pipeline = pipeline;
        self
    }

    /// What becomes of a message that no queue is bound for. Default: it is retried.
    #[must_use]
    pub const fn unroutable(mut self, unroutable: Unroutable) -> Self {
        self.unroutable = unroutable;
        self
    }

    /// How long the confirms of a round of messages may take. Default 5 s; keep it, with
    /// [`connect_timeout`](Self::connect_timeout) twice, below half of the relay's `publish_timeout`.
    #[must_use]
    pub const fn confirm_timeout(mut self, timeout: Duration) -> Self {
        self.confirm_timeout = timeout;
        self
    }

    /// How long connecting and opening a channel may take before the sink counts as down. Default 5 s.
    #[must_use]
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The most messages of a lane that wait for their confirms at once. Default 256.
    #[must_use]
    pub const fn max_in_flight(mut self, messages: usize) -> Self {
        self.max_in_flight = messages;
        self
    }

    /// The largest message, body and headers, that is sent at all. Default 16 MiB, the broker's own limit from 4.0 on
    /// (128 MiB before): over that it would close the channel, and its neighbours would be sent twice.
    #[must_use]
    pub const fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.message_bytes_max = bytes;
        self
    }

    /// The message as it is sent, or why it cannot be.
    fn outbound(&self, message: &Message) -> Result<Outbound, Outcome> {
        let short = |text: &str, what: &str| {
            ShortString::try_new(text)
                .map_err(|_| Outcome::reject(format!("the {what} is longer than AMQP carries")))
        };
        let wire = Wire::new(message, Binding::Amqp, self.mode);
        if wire.size() > self.message_bytes_max {
            return Err(Outcome::reject("larger than message_bytes_max"));
        }
        let mut headers = FieldTable::default();
        for (name, value) in wire.headers() {
            headers.insert(
                short(name, "name of a header")?,
                AMQPValue::LongString(value.into()),
            );
        }
        let mut properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_message_id(short(&message.id().to_string(), "id")?)
            .with_headers(headers);
        if let Some(content_type) = wire.content_type() {
            properties = properties.with_content_type(short(content_type, "content type")?);
        }
        Ok(Outbound {
            exchange: short(&self.exchange, "name of the exchange")?,
            routing_key: short(&(self.routing_key)(message), "routing key")?,
            properties,
            body: wire.body().clone(),
        })
    }

    /// Sends a round in order, then takes its confirms; a channel for the next round is left behind if this one can be used
    /// again.
    async fn send(
        &self,
        lane: &LaneRef,
        rounds: &mut Rounds<'_>,
        round: &[(usize, &Message)],
        channel: &mut Option<Confirming>,
    ) {
        let open = self.exchange(rounds, round, channel).await;
        if let [(at, fault)] = open[..] {
            return Self::refuse(rounds, at, fault);
        }
        // The broker closed the channel over one of these, and does not say which: each alone will tell.
        let mut refused = 0;
        for one in round
            .iter()
            .filter(|(at, _)| open.iter().any(|(of, _)| of == at))
        {
            // So many and no other answer are an outage: the rest need not be asked about.
            if !lane.is_held() || (refused == OUTAGE && !rounds.is_heard()) {
                rounds.end();
                break;
            }
            let said = self
                .exchange(rounds, std::slice::from_ref(one), channel)
                .await;
            if let [(at, fault)] = said[..] {
                Self::refuse(rounds, at, fault);
                refused += 1;
            }
        }
    }

    /// The broker has closed the channel over this message and no other.
    fn refuse(rounds: &mut Rounds<'_>, at: usize, fault: Fault) {
        match fault {
            Fault::Refused => rounds.refused(at, "no permission to publish it (403)"),
            _ => rounds.settle(at, Outcome::reject("the broker refuses it (406)")),
        }
    }

    /// One exchange with the broker on one channel. Gives back the messages over one of which it closed the channel, and how.
    async fn exchange(
        &self,
        rounds: &mut Rounds<'_>,
        round: &[(usize, &Message)],
        kept: &mut Option<Confirming>,
    ) -> Vec<(usize, Fault)> {
        let opened = match kept.take() {
            Some(channel) => Ok(channel),
            None => self.broker.channel(self.connect_timeout).await,
        };
        let channel = match opened {
            Ok(channel) => channel,
            Err(down) => {
                for (at, _) in round {
                    rounds.down(*at, down.clone());
                }
                return Vec::new();
            }
        };
        let answers = self.converse(&channel, rounds, round).await;
        let blocked = channel.is_blocked();
        if !blocked && answers.iter().any(|(_, answer)| *answer == Answer::Silence) {
            // What is stuck in its buffers must not keep later publishes waiting. While the broker blocks publishers there are
            // none, and of each new connection it would take the first message and, when the alarm is over, all others.
            self.broker.forget(&channel).await;
        }
        let reusable = answers.iter().all(|(_, answer)| {
            matches!(
                answer,
                Answer::Confirmed | Answer::Refused | Answer::Returned
            )
        });
        *kept = reusable.then_some(channel);
        self.judge(rounds, &answers, blocked)
    }

    /// Publishes in order and waits for the answers, of which each message that was sent has one.
    async fn converse(
        &self,
        channel: &Confirming,
        rounds: &mut Rounds<'_>,
        round: &[(usize, &Message)],
    ) -> Vec<(usize, Answer)> {
        let until = Instant::now() + self.confirm_timeout;
        let options = BasicPublishOptions {
            mandatory: self.unroutable != Unroutable::Drop,
            ..BasicPublishOptions::default()
        };
        let mut waiting = Vec::with_capacity(round.len());
        let mut answers = Vec::with_capacity(round.len());
        for (at, message) in round {
            if rounds.has_stopped(*at) {
                continue;
            }
            let outbound = match self.outbound(message) {
                Ok(outbound) => outbound,
                Err(outcome) => {
                    rounds.unsent(*at, outcome);
                    continue;
                }
            };
            let publish = channel.channel.basic_publish(
                outbound.exchange,
                outbound.routing_key,
                options,
                &outbound.body,
                outbound.properties,
            );
            let id = message.id().to_string();
            match timeout_at(until, publish).await {
                Ok(Ok(confirm)) => {
                    waiting.push(async move { (*at, id, timeout_at(until, confirm).await) });
                }
                Ok(Err(error)) => answers.push((*at, Answer::Fault(fault(&error)))),
                Err(_) => answers.push((*at, Answer::Silence)),
            }
        }
        // The client hands a returned message out with whichever confirm comes next, not with its own.
        let mut returned = HashSet::new();
        let mut confirmed = Vec::with_capacity(waiting.len());
        for (at, id, answer) in join_all(waiting).await {
            let answer = match answer {
                Ok(Ok(confirmation)) => {
                    let answer = match confirmation {
                        Confirmation::Ack(_) => Answer::Confirmed,
                        _ => Answer::Refused,
                    };
                    let message = confirmation.take_message();
                    let id = message.and_then(|of| of.delivery.properties.message_id().clone());
                    returned.extend(id.map(|id| id.to_string()));
                    answer
                }
                Ok(Err(error)) => Answer::Fault(fault(&error)),
                Err(_) => Answer::Silence,
            };
            confirmed.push((at, id, answer));
        }
        answers.extend(confirmed.into_iter().map(|(at, id, answer)| {
            let is_returned = answer == Answer::Confirmed && returned.contains(&id);
            (
                at,
                if is_returned {
                    Answer::Returned
                } else {
                    answer
                },
            )
        }));
        answers
    }

    /// What the answers mean. Gives back the messages over one of which the broker closed the channel, and how.
    fn judge(
        &self,
        rounds: &mut Rounds<'_>,
        answers: &[(usize, Answer)],
        blocked: bool,
    ) -> Vec<(usize, Fault)> {
        let faults = || {
            answers.iter().filter_map(|(_, answer)| match answer {
                Answer::Fault(fault) => Some(*fault),
                _ => None,
            })
        };
        // Those behind the one that is refused meet a closed channel: why it was closed counts for all of them.
        let why = faults().find(|fault| !matches!(fault, Fault::Gone(_)));
        let mut open = Vec::new();
        for &(at, answer) in answers {
            match answer {
                Answer::Confirmed => rounds.settle(at, Outcome::Acked),
                Answer::Returned => rounds.settle(at, self.returned()),
                Answer::Refused => rounds.settle(at, Outcome::retry("the broker refused it")),
                Answer::Fault(fault) => match why.unwrap_or(fault) {
                    why @ (Fault::Message | Fault::Refused) => open.push((at, why)),
                    Fault::Sink(reason) => rounds.down(at, SinkDown::new(reason)),
                    Fault::Gone(reason) => rounds.lost(at, reason),
                },
                Answer::Silence if blocked => rounds.down(at, SinkDown::new(BLOCKED)),
                Answer::Silence => {
                    rounds.silent(at, "no confirm in time: it may have been stored");
                }
            }
        }
        open
    }

    fn returned(&self) -> Outcome {
        self.unroutable
            .outcome("no queue is bound for its routing key")
    }
}

impl Sink for RabbitMqSink {
    async fn publish(&self, lane: LaneRef, batch: &[Message]) -> Result<Outcomes, SinkDown> {
        let mut rounds = Rounds::new(batch, self.pipeline, self.max_in_flight);
        let mut channel: Option<Confirming> = None;
        loop {
            let round = rounds.next(&lane);
            if round.is_empty() {
                if let Some(channel) = channel {
                    channel.give_back();
                }
                let lives = rounds.mute().is_some()
                    && self.broker.channel(self.connect_timeout).await.is_ok();
                return rounds.finish(lives, &self.streak);
            }
            self.send(&lane, &mut rounds, &round, &mut channel).await;
        }
    }
}

/// The URI stays out: it holds the password.
impl fmt::Debug for RabbitMqSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqSink")
            .field("exchange", &self.exchange)
            .field("mode", &self.mode)
            .field("pipeline", &self.pipeline)
            .finish_non_exhaustive()
    }
}

/// What the broker said of one message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Confirmed,
    /// Confirmed, but no queue has it.
    Returned,
    Refused,
    Fault(Fault),
    Silence,
}

struct Outbound {
    exchange: ShortString,
    routing_key: ShortString,
    properties: BasicProperties,
    body: bytes::Bytes,
}
