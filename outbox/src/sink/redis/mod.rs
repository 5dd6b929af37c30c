//! A sink to Redis Streams.

mod answers;
mod server;

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use redis::{Client, Value};

use self::{
    answers::{Answers, Entry, read},
    server::{Server, Silence},
};
use super::{
    LaneRef, Outcome, Outcomes, Sink, SinkDown,
    cloudevents::{Binding, ContentMode, Wire},
    rounds::{Pipeline, Rounds},
    streak::Streak,
};
use crate::message::Message;

type StreamOf = dyn Fn(&Message) -> String + Send + Sync;

/// Appends to Redis Streams with XADD.
///
/// # What is sent
/// One entry a message, its id chosen by the server. Fields, by default in binary mode of
/// [CloudEvents](super::cloudevents): the attributes as `ce_id`, `ce_source`, `ce_type` and so on, `content-type`, the
/// event's other headers under their names, and last `data`, the payload as it is. The stream's key is the topic, or what
/// [`stream`](Self::stream) makes of the message. There is no CloudEvents binding for Redis: these are the names of Kafka's.
///
/// A lane's messages go in one round trip and one MULTI, so that either all that are sent together are appended, in order,
/// or none: an outage in the middle reorders nothing. What the server does not even queue costs a second round trip without
/// it. One server or a primary with replicas, not a cluster.
///
/// # What an ack means
/// The server has appended the entry in memory. When it is on a disk `appendfsync` decides: `everysec`, the default with AOF
/// on, may lose the last second in a crash, `always` none, and without AOF all since the last snapshot goes. Replicas follow
/// later: a failover may lose acknowledged entries, fewer with [`replicas`](Self::replicas). Entries that
/// [`max_len`](Self::max_len) trims away are gone whether they were read or not.
///
/// Delivery is at least once; a lost answer appends the entry again, unless [`dedupe`](Self::dedupe) is on.
///
/// # What the answer means
/// | answer | outcome |
/// |---|---|
/// | appended | acked |
/// | larger than [`message_bytes_max`](Self::message_bytes_max) | rejected |
/// | the key holds something else than a stream (WRONGTYPE) | retry |
/// | the user has no permission for the key (NOPERM), or another error of one entry, beside others that are appended | retry |
/// | the same for a lone message | retry, or from the [third message](super#whose-failure) in a row on the sink is down |
/// | no answer in time, though the server answers a PING | the same |
/// | no connection, no answer to anything, OOM, READONLY, LOADING, MISCONF, CLUSTERDOWN …, no permission for the commands | the sink is down |
/// | fewer [`replicas`](Self::replicas) in time than asked for | the sink is down; the entries may stay |
///
/// The sink connects when it is first used, and again whenever its connection is lost.
///
/// # TLS
/// Is the client's: with the feature `tokio-rustls-comp` of `redis`, in your own dependencies, `rediss://` is an address;
/// without it `Client::open` refuses one. Install a cryptographic library of rustls before the first connection, with
/// `CryptoProvider::install_default`, as `redis` asks for.
///
/// ```no_run
/// # fn example() -> Result<(), redis::RedisError> {
/// use mainstay_outbox::sink::RedisSink;
///
/// let sink = RedisSink::new(redis::Client::open("redis://127.0.0.1:6379")?).max_len(1_000_000);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisSink {
    server: Arc<Server>,
    stream: Arc<StreamOf>,
    mode: ContentMode,
    max_len: Option<u64>,
    dedupe: Option<Duration>,
    replicas: u32,
    timeout: Duration,
    max_in_flight: usize,
    message_bytes_max: usize,
    streak: Arc<Mutex<Streak>>,
}

impl RedisSink {
    /// A sink over connections of this client, which knows address, credentials and TLS.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            server: Arc::new(Server::new(client)),
            stream: Arc::new(|message| message.topic().to_owned()),
            mode: ContentMode::Binary,
            max_len: None,
            dedupe: None,
            replicas: 0,
            timeout: Duration::from_secs(5),
            max_in_flight: 256,
            message_bytes_max: 16 * 1024 * 1024,
            streak: Arc::default(),
        }
    }

    /// The key of a message's stream. Default: its topic. Messages of one key should go to one stream: between streams
    /// there is no order.
    #[must_use]
    pub fn stream(mut self, of: impl Fn(&Message) -> String + Send + Sync + 'static) -> Self {
        self.stream = Arc::new(of);
        self
    }

    /// Binary mode (the default) or one JSON document a message, in the field `data`.
    #[must_use]
    pub const fn content_mode(mut self, mode: ContentMode) -> Self {
        self.mode = mode;
        self
    }

    /// Trims each stream to about this many entries (`MAXLEN ~`). Default: none is trimmed, and memory is the limit.
    ///
    /// Choose more than consumers can ever lag behind: what is trimmed is gone, read or not.
    #[must_use]
    pub const fn max_len(mut self, entries: u64) -> Self {
        self.max_len = Some(entries);
        self
    }

    /// Appends an event only if it was not appended within this time, whole milliseconds. Default: off.
    ///
    /// Kept in a key `<stream>:outbox:<id>` for each event, which the entry's script sets after the XADD: the two survive
    /// together or not at all, as far as the server itself does. Costs the memory of those keys.
    #[must_use]
    pub const fn dedupe(mut self, window: Duration) -> Self {
        self.dedupe = Some(window);
        self
    }

    /// Counts entries as acked only when this many replicas have them (WAIT), within half of [`timeout`](Self::timeout).
    /// Default 0.
    ///
    /// It makes losing them in a failover less likely, not impossible: the replica that is promoted may be another one.
    #[must_use]
    pub const fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// How long a round trip may take, connecting included; when there is no answer, a PING may take as long. Default 5 s; keep
    /// it below a quarter of the relay's `publish_timeout`.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The most messages of a lane in one MULTI. Default 256; others wait while the server runs it.
    #[must_use]
    pub const fn max_in_flight(mut self, messages: usize) -> Self {
        self.max_in_flight = messages;
        self
    }

    /// The largest message, body and headers, that is sent at all. Default 16 MiB; the server's own limit is 512 MiB a
    /// field.
    #[must_use]
    pub const fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.message_bytes_max = bytes;
        self
    }

    /// The command that appends the message.
    fn append(&self, message: &Message, wire: &Wire) -> redis::Cmd {
        let stream = (self.stream)(message);
        let mut command = match self.dedupe {
            None => {
                let mut command = redis::cmd("XADD");
                command.arg(&stream);
                command
            }
            Some(window) => {
                let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1);
                let seen = format!("{stream}:outbox:{}", message.id());
                let mut command = redis::cmd("EVAL");
                command.arg(APPEND_ONCE).arg(2).arg(&stream).arg(seen);
                command.arg(window);
                command
            }
        };
        if let Some(max_len) = self.max_len {
            command.arg("MAXLEN").arg("~").arg(max_len);
        }
        command.arg("*");
        let content_type = wire.content_type().map(|value| ("content-type", value));
        for (name, value) in wire.headers().chain(content_type) {
            command.arg(name).arg(value);
        }
        command.arg("data").arg(&wire.body()[..]);
        command
    }

    /// Sends a round in one MULTI; and once more without what the server will not even queue, as nothing is appended then.
    async fn send(&self, rounds: &mut Rounds<'_>, round: Vec<(usize, &Message)>) {
        let mut entries = Vec::with_capacity(round.len());
        for (at, message) in round {
            if rounds.has_stopped(at) {
                continue;
            }
            let wire = Wire::new(message, Binding::Kafka, self.mode);
            if wire.size() > self.message_bytes_max {
                rounds.unsent(at, Outcome::reject("larger than message_bytes_max"));
                continue;
            }
            entries.push((at, self.append(message, &wire)));
        }
        let refused = self.append_all(rounds, &entries).await;
        if refused.is_empty() {
            return;
        }
        entries.retain(|(at, _)| {
            !refused
                .iter()
                .any(|of| at == of || rounds.is_behind(*at, *of))
        });
        for at in self.append_all(rounds, &entries).await {
            // It was queued a moment ago: somebody is changing permissions.
            rounds.down(
                at,
                SinkDown::new("the server refuses ever more of a transaction"),
            );
        }
    }

    /// Runs one MULTI. Gives back the places of what the server did not queue, over which it ran none of it.
    async fn append_all(
        &self,
        rounds: &mut Rounds<'_>,
        entries: &[(usize, redis::Cmd)],
    ) -> Vec<usize> {
        if entries.is_empty() {
            return Vec::new();
        }
        let mut commands = redis::pipe();
        commands.ignore_errors().cmd("MULTI");
        for (_, entry) in entries {
            commands.add_command(entry.clone());
        }
        commands.cmd("EXEC");
        if self.replicas > 0 {
            // On the same connection and behind the EXEC: WAIT asks about the writes of its own connection.
            let half = u64::try_from(self.timeout.as_millis() / 2).unwrap_or(u64::MAX);
            commands.cmd("WAIT").arg(self.replicas).arg(half.max(1));
        }
        let said = match self.server.run(&commands, self.timeout).await {
            Ok(Value::Array(answers)) => read(answers, entries.len(), self.replicas),
            Ok(_) => Answers::Down("the server's answer is no pipeline's".to_owned()),
            Err(Silence::Down(reason)) => Answers::Down(reason),
            Err(Silence::Late) => {
                for (at, _) in entries {
                    rounds.silent(*at, "no answer in time: it may have been appended");
                }
                return Vec::new();
            }
            Err(Silence::Lost(reason)) => {
                for (at, _) in entries {
                    rounds.lost(*at, reason.as_str());
                }
                return Vec::new();
            }
        };
        let places = entries.iter().map(|(at, _)| *at);
        match said {
            Answers::Run(results) => {
                for (at, entry) in places.zip(results) {
                    match entry {
                        Entry::Appended => rounds.settle(at, Outcome::Acked),
                        Entry::Wrong(reason) => rounds.settle(at, Outcome::retry(reason)),
                        Entry::Refused(reason) => rounds.refused(at, reason),
                        Entry::Down(reason) => rounds.down(at, SinkDown::new(reason)),
                    }
                }
                Vec::new()
            }
            Answers::NotQueued(refused) => {
                let mut not_queued = Vec::new();
                for (at, reason) in places.zip(refused) {
                    if let Some(reason) = reason {
                        rounds.refused(at, reason);
                        not_queued.push(at);
                    }
                }
                not_queued
            }
            Answers::Down(reason) => {
                for at in places {
                    rounds.down(at, SinkDown::new(reason.as_str()));
                }
                Vec::new()
            }
        }
    }
}

/// Appends the entry and remembers the event, or does neither if it remembers it already. The XADD comes first: if it
/// fails, nothing was remembered.
const APPEND_ONCE: &str = "\
if redis.call('EXISTS', KEYS[2]) == 1 then return false end
local entry = redis.call('XADD', KEYS[1], unpack(ARGV, 2))
redis.call('SET', KEYS[2], entry, 'PX', ARGV[1])
return entry";

impl Sink for RedisSink {
    async fn publish(&self, lane: LaneRef, batch: &[Message]) -> Result<Outcomes, SinkDown> {
        // One MULTI keeps a key's order by itself: all of it is appended, in order, or nothing.
        let mut rounds = Rounds::new(batch, Pipeline::WithinKeys, self.max_in_flight);
        loop {
            let round = rounds.next(&lane);
            if round.is_empty() {
                let lives = rounds.mute().is_some() && self.server.lives(self.timeout).await;
                return rounds.finish(lives, &self.streak);
            }
            self.send(&mut rounds, round).await;
        }
    }
}

/// The address stays out: a URL may hold the password.
impl fmt::Debug for RedisSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSink")
            .field("mode", &self.mode)
            .field("max_len", &self.max_len)
            .field("dedupe", &self.dedupe)
            .finish_non_exhaustive()
    }
}
