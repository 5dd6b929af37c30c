//! A sink to Redis Streams.

use std::{
    fmt,
    sync::{Arc, Mutex as SyncMutex},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, Pipeline as Commands, RedisError, Value,
    aio::MultiplexedConnection,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
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
/// or none: an outage in the middle reorders nothing. One server or a primary with replicas, not a cluster.
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
/// | the key holds something else than a stream (WRONGTYPE), or another error of the one entry | retry |
/// | no answer in time, though the server answers a PING | retry, or from the third message in a row on the sink is down |
/// | no connection, no answer to anything, OOM, READONLY, LOADING, MISCONF, CLUSTERDOWN, MOVED, NOPERM, EXECABORT … | the sink is down |
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
    streak: Arc<SyncMutex<Streak>>,
}

impl RedisSink {
    /// A sink over connections of this client, which knows address, credentials and TLS.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            server: Arc::new(Server {
                client,
                connection: Mutex::new(None),
            }),
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

    /// Sends a round in one MULTI.
    async fn send(&self, rounds: &mut Rounds<'_>, round: Vec<(usize, &Message)>) {
        let mut places = Vec::with_capacity(round.len());
        let mut commands = redis::pipe();
        commands.ignore_errors().cmd("MULTI");
        for (at, message) in round {
            if rounds.has_stopped(at) {
                continue;
            }
            let wire = Wire::new(message, Binding::Kafka, self.mode);
            if wire.size() > self.message_bytes_max {
                rounds.unsent(at, Outcome::reject("larger than message_bytes_max"));
                continue;
            }
            places.push(at);
            commands.add_command(self.append(message, &wire));
        }
        commands.cmd("EXEC");
        if self.replicas > 0 {
            // On the same connection and behind the EXEC: WAIT asks about the writes of its own connection.
            let half = u64::try_from(self.timeout.as_millis() / 2).unwrap_or(u64::MAX);
            commands.cmd("WAIT").arg(self.replicas).arg(half.max(1));
        }
        if places.is_empty() {
            return;
        }
        let said = match self.server.run(&commands, self.timeout).await {
            Ok(Value::Array(answers)) => self.read(answers, places.len()),
            Ok(_) => Err(Silence::Down(
                "the server's answer is no pipeline's".to_owned(),
            )),
            Err(silence) => Err(silence),
        };
        match said {
            Ok(entries) => {
                for (at, entry) in places.into_iter().zip(entries) {
                    rounds.settle(at, entry);
                }
            }
            Err(Silence::Down(reason)) => {
                for at in places {
                    rounds.down(at, SinkDown::new(reason.as_str()));
                }
            }
            Err(Silence::Late) => {
                for at in places {
                    rounds.silent(at, "no answer in time: it may have been appended");
                }
            }
            Err(Silence::Lost) => {
                for at in places {
                    rounds.lost(at, "the connection to Redis was lost");
                }
            }
        }
    }

    /// What the answers to MULTI, the entries, EXEC and WAIT say of each entry.
    fn read(&self, answers: Vec<Value>, entries: usize) -> Result<Vec<Outcome>, Silence> {
        let mut refused = answers.iter().filter_map(|answer| match answer {
            Value::ServerError(error) => Some(error.code()),
            _ => None,
        });
        // What the server says while queueing is why EXEC is aborted, and comes first.
        if let Some(code) = refused.next() {
            return Err(Silence::Down(format!("the server answered {code}")));
        }
        let mut answers = answers.into_iter().skip(entries + 1);
        let Some(Value::Array(results)) = answers.next() else {
            return Err(Silence::Down("the transaction was not run".to_owned()));
        };
        if self.replicas > 0 {
            match answers.next() {
                Some(Value::Int(have)) if have >= i64::from(self.replicas) => {}
                _ => return Err(Silence::Down("too few replicas have it in time".to_owned())),
            }
        }
        let outcome = |result: Value| match result {
            Value::ServerError(error) => {
                Outcome::retry(format!("the server answered {}", error.code()))
            }
            _ => Outcome::Acked,
        };
        Ok(results.into_iter().map(outcome).collect())
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

/// No answer about any single entry.
enum Silence {
    Down(String),
    Late,
    Lost,
}

/// Texts of errors may repeat addresses and keys; codes do not.
fn answered(error: &RedisError) -> Option<String> {
    let code = error.code()?;
    Some(format!("the server answered {code}"))
}

/// The one connection, opened when it is needed.
struct Server {
    client: Client,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Server {
    async fn run(&self, commands: &Commands, within: Duration) -> Result<Value, Silence> {
        let until = Instant::now() + within;
        let mut connection = match timeout_at(until, self.connected(within)).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                let said = answered(&error);
                let said = said.unwrap_or_else(|| "no connection to Redis".to_owned());
                return Err(Silence::Down(said));
            }
            Err(_) => return Err(Silence::Down("Redis does not answer in time".to_owned())),
        };
        let silence = match timeout_at(until, commands.query_async(&mut connection)).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) if error.is_timeout() => Silence::Late,
            Ok(Err(error)) => answered(&error).map_or(Silence::Lost, Silence::Down),
            Err(_) => Silence::Late,
        };
        // Whatever it was: a fresh connection is the cheapest way to be sure of the next answers.
        self.forget().await;
        Err(silence)
    }

    /// Whether the server answers at all, if only to refuse.
    async fn lives(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        let Ok(Ok(mut connection)) = timeout_at(until, self.connected(within)).await else {
            return false;
        };
        let ping = redis::cmd("PING");
        match timeout_at(until, ping.query_async::<Value>(&mut connection)).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => error.code().is_some(),
            Err(_) => false,
        }
    }

    async fn connected(&self, within: Duration) -> Result<MultiplexedConnection, RedisError> {
        let mut connection = self.connection.lock().await;
        if let Some(known) = connection.as_ref() {
            return Ok(known.clone());
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(within))
            .set_response_timeout(Some(within));
        let opened = self
            .client
            .get_multiplexed_async_connection_with_config(&config);
        Ok(connection.insert(opened.await?).clone())
    }

    async fn forget(&self) {
        self.connection.lock().await.take();
    }
}
