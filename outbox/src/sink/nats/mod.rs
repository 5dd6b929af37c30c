//! A sink to NATS JetStream.

mod ask;
mod refusal;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use async_nats::{
    HeaderMap, HeaderName, HeaderValue, Subject,
    connection::State,
    jetstream::{
        context::{Context, PublishError, PublishErrorKind},
        message::PublishMessage,
    },
};
use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};

use self::{
    ask::{Said, bytes_max, stream_of},
    refusal::{Refusal, refusal},
};
use super::{
    LaneRef, Outcome, Outcomes, Sink, SinkDown, Unroutable,
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
/// | no stream takes the subject, or another one than [`stream`](Self::stream) | retry, or as [`unroutable`](Self::unroutable) says |
/// | its subject has as many messages as it may (discard new per subject) | retry |
/// | the stream takes nothing: full (discard new), sealed, without a leader | the sink is down, or [retry](Self::several_streams) |
/// | no ack within [`ack_timeout`](Self::ack_timeout) while others got theirs | retry: it may have been stored |
/// | no ack for a lone message, though JetStream answers a question | retry, or from the [third message](super#whose-failure) in a row on the sink is down |
/// | no ack for any message, and no answer; the connection was lost before the ack came | the sink is down |
/// | not connected; JetStream is not there, or has no leader, no quorum, no resources | the sink is down |
/// | any other refusal | retry |
///
/// Who publishes where no stream listens is told so by NATS, not by JetStream, and the same when JetStream is away. So the sink
/// asks it which stream takes the subject: the user needs permission for `$JS.API.STREAM.NAMES` (and, to tell a message that is
/// larger than its whole stream, for `$JS.API.STREAM.INFO`). A question that is not answered counts as an outage.
///
/// # A full stream
/// A stream with a limit and [`DiscardPolicy::New`](async_nats::jetstream::stream::DiscardPolicy) takes nothing more once it is full: so a
/// queue of work holds back those who fill it. No message is to blame, and what waits is to be published when there is room
/// again, however long that takes: the sink is down, and no attempt is spent. A sink is up or down as a whole. Give each stream
/// that may be full a sink of its own, by topics, or say that there are [several](Self::several_streams).
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
    unroutable: Unroutable,
    several_streams: bool,
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
            unroutable: Unroutable::Retry,
            several_streams: false,
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

    /// Publishes only to this stream: a message whose subject another one takes is [`unroutable`](Self::unroutable).
    #[must_use]
    pub fn stream(mut self, name: impl Into<String>) -> Self {
        self.stream = Some(name.into());
        self
    }

    /// What becomes of a message whose subject no stream takes. Default: it is retried.
    #[must_use]
    pub const fn unroutable(mut self, unroutable: Unroutable) -> Self {
        self.unroutable = unroutable;
        self
    }

    /// Says that the subjects are of several streams, of which one may take nothing while the others do.
    ///
    /// By default a stream that is full, sealed or without a leader is an outage of the sink: everything waits, and nothing is
    /// charged. With this it is a retry of the stream's own messages; those that it does not take for as long as their attempts
    /// last are dead letters. A sink for each stream is better.
    #[must_use]
    pub const fn several_streams(mut self) -> Self {
        self.several_streams = true;
        self
    }

    /// How long the acks of a round of messages may take, and the answers to questions when there are none. Default 5 s; keep
    /// it below a sixth of the relay's `publish_timeout`.
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
    fn outbound(&self, message: &Message) -> Result<Outbound, Outcome> {
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
        Ok(Outbound {
            subject,
            publish,
            bytes: wire.size(),
        })
    }

    /// Whether JetStream, which was silent about this message, answers anything.
    async fn lives(&self, message: &Message) -> bool {
        let subject = (self.subject)(message);
        let until = Instant::now() + self.ack_timeout;
        let said = stream_of(&self.context, &subject, until).await;
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
            let outbound = match self.outbound(message) {
                Ok(outbound) => outbound,
                Err(outcome) => {
                    rounds.unsent(at, outcome);
                    continue;
                }
            };
            let (subject, bytes) = (outbound.subject.clone(), outbound.bytes);
            let sent = self
                .context
                .send_publish(outbound.subject, outbound.publish);
            match timeout_at(until, sent).await {
                Ok(Ok(ack)) => acks.push(async move {
                    let open = Open { at, subject, bytes };
                    (open, timeout_at(until, ack).await)
                }),
                Ok(Err(error)) => unsent(rounds, at, &error),
                Err(_) => rounds.down(at, SinkDown::new("the NATS client takes nothing more")),
            }
        }
        let acks = join_all(acks).await;
        // The next connection does not bring the acks of the last one: silence is then no message's, whatever was answered.
        let lost = connection.is_none() || self.connection() != connection;
        let (mut unheard, mut untaken) = (Vec::new(), Vec::new());
        for (open, ack) in acks {
            let Err(error) = ack.unwrap_or_else(|_| Err(PublishErrorKind::TimedOut.into())) else {
                rounds.settle(open.at, Outcome::Acked);
                continue;
            };
            match error.kind() {
                PublishErrorKind::TimedOut if lost => rounds.lost(open.at, LOST),
                PublishErrorKind::TimedOut => rounds.silent(open.at, NO_ACK),
                PublishErrorKind::BrokenPipe => rounds.lost(open.at, LOST),
                PublishErrorKind::StreamNotFound => unheard.push(open),
                _ => match refusal(&error) {
                    Refusal::Message(outcome) => rounds.settle(open.at, outcome),
                    Refusal::Elsewhere => {
                        let reason = "another stream takes its subject";
                        rounds.settle(open.at, self.unroutable.outcome(reason));
                    }
                    Refusal::Stream(reason) => self.stream_fails(rounds, open.at, &reason),
                    Refusal::NoRoom(reason) => untaken.push((open, reason)),
                    Refusal::JetStream(reason) => rounds.down(open.at, SinkDown::new(reason)),
                    Refusal::Unknown(reason) => rounds.lost(open.at, reason),
                },
            }
        }
        self.ask_about(rounds, unheard, untaken).await;
    }

    /// Settles what only JetStream's answer to a question tells: messages that nobody answered for, and those for which their
    /// stream has too few bytes left.
    async fn ask_about(
        &self,
        rounds: &mut Rounds<'_>,
        unheard: Vec<Open>,
        untaken: Vec<(Open, String)>,
    ) {
        let until = Instant::now() + self.ack_timeout;
        let open = unheard.iter().chain(untaken.iter().map(|(open, _)| open));
        let subjects: BTreeSet<Subject> = open.map(|open| open.subject.clone()).collect();
        let asked = subjects.into_iter().map(async |subject| {
            let said = stream_of(&self.context, &subject, until).await;
            (subject, said)
        });
        let said: BTreeMap<Subject, Said> = join_all(asked).await.into_iter().collect();
        for Open { at, subject, .. } in unheard {
            match said.get(&subject) {
                Some(Said::NoStream) => {
                    let reason = "no stream takes its subject";
                    rounds.settle(at, self.unroutable.outcome(reason));
                }
                Some(Said::Stream(_)) => self.stream_fails(rounds, at, "the stream has no leader"),
                Some(Said::Away) => rounds.down(at, SinkDown::new("JetStream is not there")),
                Some(Said::Nothing) | None => {
                    rounds.lost(at, "no stream takes its subject, or JetStream is not there");
                }
            }
        }
        let mut known: BTreeMap<&str, Option<usize>> = BTreeMap::new();
        for (open, reason) in untaken {
            let most = match said.get(&open.subject) {
                Some(Said::Stream(stream)) => match known.get(stream.as_str()) {
                    Some(most) => *most,
                    None => {
                        let most = bytes_max(&self.context, stream, until).await;
                        known.insert(stream, most);
                        most
                    }
                },
                _ => None,
            };
            if most.is_some_and(|most| open.bytes >= most) {
                let reason = "larger than its stream may ever be";
                rounds.settle(open.at, Outcome::reject(reason));
            } else if self.several_streams {
                rounds.settle(open.at, Outcome::retry(reason));
            } else {
                // There may be room for smaller ones, so this is counted.
                rounds.lost(open.at, reason);
            }
        }
    }

    /// The stream of the message at this place takes nothing now.
    fn stream_fails(&self, rounds: &mut Rounds<'_>, at: usize, reason: &str) {
        if self.several_streams {
            rounds.settle(at, Outcome::retry(reason));
        } else {
            rounds.down(at, SinkDown::new(reason));
        }
    }
}

/// A message as it is sent.
struct Outbound {
    subject: Subject,
    publish: PublishMessage,
    /// At least so many of them are stored.
    bytes: usize,
}

/// A message that was sent and has no outcome yet.
struct Open {
    at: usize,
    subject: Subject,
    bytes: usize,
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

/// Why the client did not send the message.
fn unsent(rounds: &mut Rounds<'_>, at: usize, error: &PublishError) {
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => {
            rounds.unsent(at, Outcome::reject("larger than the server's max_payload"));
        }
        PublishErrorKind::MaxAckPending => {
            rounds.down(at, SinkDown::new("too many acks are awaited"));
        }
        PublishErrorKind::TimedOut => {
            rounds.down(at, SinkDown::new("the NATS client takes nothing more"));
        }
        _ => rounds.down(at, SinkDown::new("the NATS client failed")),
    }
}
