//! A sink to NATS JetStream.

mod ask;

use std::{
    error::Error as _,
    fmt,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use async_nats::{
    HeaderMap, HeaderName, HeaderValue, Subject,
    connection::State,
    jetstream::{
        self, ErrorCode,
        context::{Context, PublishError, PublishErrorKind},
        message::PublishMessage,
    },
};
use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};

use self::ask::{Said, stream_of};
use super::{
    LaneRef, Outcome, Outcomes, Sink, SinkDown,
    cloudevents::{Binding, ContentMode, Wire},
    rounds::{Pipeline, Rounds},
    streak::Streak,
};
use crate::message::Message;

type SubjectOf = dyn Fn(&Message) -> String + Send + Sync;

/// Publishes to the JetStream streams that take the messages' subjects.
///
/// # What is sent
/// By default in binary mode of [CloudEvents](super::cloudevents): `ce-*` headers, `content-type`, and the payload as it is.
/// `Nats-Msg-Id` is the event's id, the same on every delivery, so that a stream stores what comes twice once, as long as
/// its [duplicate window](Self::dedupe) reaches. The subject is the topic, or what [`subject`](Self::subject) makes of the
/// message.
///
/// # What an ack means
/// A leader has the message, and with R3 a majority of replicas. It does **not** mean that it is on a disk: the server
/// calls fsync every two minutes by default (`sync_interval`), and until then acknowledged messages live in the operating
/// systems' memory. They survive a server that dies; a power cut that takes the only replica, or most of them, takes them
/// along. Set `sync_interval: always` where that must not happen.
///
/// # What the answer means
/// | answer | outcome |
/// |---|---|
/// | an ack, also of a duplicate | acked |
/// | larger than the server's `max_payload` or the stream's limits; a subject that NATS does not allow | rejected |
/// | no ack within [`ack_timeout`](Self::ack_timeout) while others got theirs | retry: it may have been stored |
/// | no ack for any message, though JetStream answers a question | retry, or from the third message in a row on the sink is down |
/// | no ack for any message, and no answer; the connection was lost before the ack came | the sink is down |
/// | not connected; no stream takes the subject; stream full; no leader, no quorum, no resources | the sink is down |
/// | any other refusal | retry |
///
/// # TLS
/// Is the client's, and always compiled in: connect to `tls://`, by default with the authorities that the system trusts, and
/// with `ConnectOptions::add_root_certificates` where the server's is your own. It panics while rustls does not know which of
/// two cryptographic libraries to use, as when the feature `https` or another crate brings a second one; choose one first,
/// at the start of the program: `async_nats::rustls::crypto::ring::default_provider().install_default()`.
///
/// The client reconnects by itself. While it does the sink is down at once, so that nothing is buffered in the client and
/// sent long after it was given up.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use mainstay_outbox::sink::NatsSink;
///
/// let client = async_nats::connect("nats://127.0.0.1:4222").await?;
/// let sink = NatsSink::new(async_nats::jetstream::new(client))
///     .subject(|message| format!("events.{}", message.topic()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct NatsSink {
    context: Context,
    subject: Arc<SubjectOf>,
    mode: ContentMode,
    pipeline: Pipeline,
    stream: Option<String>,
    ack_timeout: Duration,
    max_in_flight: usize,
    streak: Arc<Mutex<Streak>>,
}

impl NatsSink {
    /// A sink over this connection. Its options, such as credentials and reconnect delays, are the client's.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self {
            context,
            subject: Arc::new(|message| message.topic().to_owned()),
            mode: ContentMode::Binary,
            pipeline: Pipeline::AcrossKeys,
            stream: None,
            ack_timeout: Duration::from_secs(5),
            max_in_flight: 256,
            streak: Arc::default(),
        }
    }

    /// The subject of a message. Default: its topic.
    #[must_use]
    pub fn subject(mut self, of: impl Fn(&Message) -> String + Send + Sync + 'static) -> Self {
        self.subject = Arc::new(of);
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

    /// Publishes only if this stream is the one that takes the subject; otherwise the sink is down.
    #[must_use]
    pub fn stream(mut self, name: impl Into<String>) -> Self {
        self.stream = Some(name.into());
        self
    }

    /// How long the acks of a round of messages may take, and the answer to a question when there are none. Default 5 s; keep
    /// it below a quarter of the relay's `publish_timeout`.
    ///
    /// A shorter one set on the context itself wins.
    #[must_use]
    pub const fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.ack_timeout = timeout;
        self
    }

    /// The most messages of a lane that wait for their acks at once. Default 256.
    #[must_use]
    pub const fn max_in_flight(mut self, messages: usize) -> Self {
        self.max_in_flight = messages;
        self
    }

    /// For how long this stream stores a message that comes twice only once: its `duplicate_window`, as the server has it.
    ///
    /// Counted from the first copy; a second one does not extend it. Consumers that must apply each event once remember
    /// ids for longer than this: a redelivery after an outage, or a redriven dead letter, comes later.
    ///
    /// # Errors
    /// [`SinkDown`] when the stream cannot be asked or does not exist.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn dedupe(&self, stream: &str) -> Result<Duration, SinkDown> {
        let asked = self.context.get_stream(stream);
        match tokio::time::timeout(self.ack_timeout, asked).await {
            Ok(Ok(stream)) => Ok(stream.cached_info().config.duplicate_window),
            Ok(Err(_)) => Err(SinkDown::new("the stream cannot be asked")),
            Err(_) => Err(SinkDown::new("the stream did not answer in time")),
        }
    }

    /// The message as it is sent, or why it cannot be.
    fn outbound(&self, message: &Message) -> Result<(Subject, PublishMessage), Outcome> {
        let subject = Subject::validated((self.subject)(message))
            .ok()
            .filter(|subject| !subject.contains(['*', '>']))
            .ok_or_else(|| Outcome::reject("the subject is none that NATS allows"))?;
        let wire = Wire::new(message, Binding::Nats, self.mode);
        let mut headers = HeaderMap::new();
        let content_type = wire.content_type().map(|value| ("content-type", value));
        for (name, value) in wire.headers().chain(content_type) {
            // Names and values were checked at enqueue, so this is for messages that were not enqueued.
            let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>())
            else {
                return Err(Outcome::reject("a header is none that NATS allows"));
            };
            headers.insert(name, value);
        }
        let publish = PublishMessage::build()
            .payload(wire.body().clone())
            .headers(headers)
            .message_id(message.id().to_string());
        let publish = match &self.stream {
            Some(stream) => publish.expected_stream(stream),
            None => publish,
        };
        Ok((subject, publish))
    }

    /// Whether JetStream, which was silent about this message, answers anything.
    async fn lives(&self, message: &Message) -> bool {
        let subject = (self.subject)(message);
        let said = stream_of(&self.context, &subject, self.ack_timeout).await;
        matches!(said, Said::Stream(_) | Said::NoStream)
    }

    /// The number of the connection, while there is one.
    fn connection(&self) -> Option<u64> {
        let client = self.context.client();
        let connected = client.connection_state() == State::Connected;
        connected.then(|| client.statistics().connects.load(Ordering::Relaxed))
    }

    /// Sends a round in order, then takes its acks.
    async fn send(&self, rounds: &mut Rounds<'_>, round: Vec<(usize, &Message)>) {
        let connection = self.connection();
        let until = Instant::now() + self.ack_timeout;
        let mut acks = Vec::with_capacity(round.len());
        for (at, message) in round {
            if rounds.has_stopped(at) {
                continue;
            }
            let (subject, publish) = match self.outbound(message) {
                Ok(outbound) => outbound,
                Err(outcome) => {
                    rounds.unsent(at, outcome);
                    continue;
                }
            };
            match timeout_at(until, self.context.send_publish(subject, publish)).await {
                Ok(Ok(ack)) => acks.push(async move { (at, timeout_at(until, ack).await) }),
                Ok(Err(error)) => answer(rounds, at, Err(error)),
                Err(_) => rounds.down(at, SinkDown::new("the NATS client takes nothing more")),
            }
        }
        let acks = join_all(acks).await;
        // The next connection does not bring the acks of the last one: silence is then no message's, whatever was answered.
        let lost = connection.is_none() || self.connection() != connection;
        for (at, ack) in acks {
            match ack.unwrap_or_else(|_| Err(PublishErrorKind::TimedOut.into())) {
                Err(error) if lost && error.kind() == PublishErrorKind::TimedOut => {
                    rounds.lost(at, LOST);
                }
                ack => answer(rounds, at, ack.map(drop)),
            }
        }
    }
}

const LOST: &str = "the connection to NATS was lost";
const NO_ACK: &str = "no ack in time: it may have been stored";

impl Sink for NatsSink {
    async fn publish(&self, lane: LaneRef, batch: &[Message]) -> Result<Outcomes, SinkDown> {
        if self.connection().is_none() {
            return Err(SinkDown::new("not connected to NATS"));
        }
        let mut rounds = Rounds::new(batch, self.pipeline, self.max_in_flight);
        loop {
            let round = rounds.next(&lane);
            if round.is_empty() {
                let lives = match rounds.mute() {
                    Some(message) => self.lives(message).await,
                    None => false,
                };
                return rounds.finish(lives, &self.streak);
            }
            self.send(&mut rounds, round).await;
        }
    }
}

impl fmt::Debug for NatsSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsSink")
            .field("mode", &self.mode)
            .field("pipeline", &self.pipeline)
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// What the server's or the client's answer means for the message.
fn answer(rounds: &mut Rounds<'_>, at: usize, answer: Result<(), PublishError>) {
    let Err(error) = answer else {
        return rounds.settle(at, Outcome::Acked);
    };
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => {
            rounds.unsent(at, Outcome::reject("larger than the server's max_payload"));
        }
        PublishErrorKind::TimedOut => rounds.silent(at, NO_ACK),
        PublishErrorKind::StreamNotFound => {
            rounds.down(at, SinkDown::new("no stream takes the subject"));
        }
        PublishErrorKind::BrokenPipe => rounds.lost(at, LOST),
        PublishErrorKind::MaxAckPending => {
            rounds.down(at, SinkDown::new("too many acks are awaited"));
        }
        _ => {
            let source = error.source();
            match source.and_then(|source| source.downcast_ref::<jetstream::Error>()) {
                Some(error) => refusal(rounds, at, error),
                None => rounds.down(at, SinkDown::new("the NATS client failed")),
            }
        }
    }
}

/// A refusal by JetStream: of this message for good, of everything for now, or unknown to us.
fn refusal(rounds: &mut Rounds<'_>, at: usize, error: &jetstream::Error) {
    let said = format!("JetStream answered {}", error.error_code().0);
    match error.error_code() {
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
            rounds.settle(at, Outcome::reject(said));
        }
        // Limits of the stream or the account, and another stream than the one that is meant: no message is to blame.
        ErrorCode::STREAM_STORE_FAILED
        | ErrorCode::STREAM_NOT_MATCH
        | ErrorCode::STREAM_SEALED
        | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => rounds.down(at, SinkDown::new(said)),
        _ if error.code() >= 500 => rounds.down(at, SinkDown::new(said)),
        _ => rounds.settle(at, Outcome::retry(said)),
    }
}
