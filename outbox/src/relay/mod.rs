//! The relay: takes committed events from the database to the sinks, in order per key, until each is settled.

mod connections;
mod engine;
mod publish;
mod route;

use std::{fmt, sync::Arc, time::Duration};

use mainstay_retry::Backoff;
use sqlx::Pool;
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{
    connections::Connections,
    engine::Engine,
    route::{Policies, Routes},
};
pub use crate::plan::{KeyPolicy, Unrouted};
use crate::{
    error::{Error, ErrorKind},
    outbox::Outbox,
    plan::Rules,
    sink::Sink,
    store::OutboxDb,
    telemetry::{RelayStats, Tally, describe_metrics},
    wake::{self, Waker},
};

/// A relay that is ready to run. Any number of them, in any number of processes, share the lanes.
#[must_use = "a relay does nothing until it is spawned"]
pub struct Relay<Db: OutboxDb> {
    pool: Pool<Db>,
    config: Config,
    lanes: u16,
    routes: Routes,
    waker: Option<Waker>,
    listens: bool,
}

/// How a relay works. Every bound has a default; see the setters of [`RelayBuilder`].
#[derive(Clone, Debug)]
struct Config {
    batch: u32,
    in_flight_max: u32,
    sink_in_flight_max: u32,
    in_flight_bytes_max: u64,
    lease: Duration,
    poll_interval: Duration,
    publish_timeout: Duration,
    drain_timeout: Duration,
    shared_connections: bool,
    sink_backoff: Backoff,
    policies: Policies,
    retention: Retention,
    sweep_interval: Duration,
    rules: Rules,
}

impl Config {
    /// How long the relay waits for a statement.
    fn statement_limit(&self) -> Duration {
        self.lease.max(Duration::from_secs(5))
    }
}

/// What becomes of messages once they are delivered and that is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retention {
    /// They are deleted.
    #[default]
    Delete,
    /// They are kept for so long, in a table of their own, for operators to look at and to deliver again: a broker that
    /// loses what it acked can be made whole. Costs an INSERT for each message. After that they are deleted in small
    /// batches; a relay that only deletes does not clean up what another kept.
    Keep(Duration),
}

/// Puts a relay together. Start with [`Relay::builder`].
#[must_use]
pub struct RelayBuilder<Db: OutboxDb> {
    pool: Pool<Db>,
    config: Config,
    lanes: Option<u16>,
    routes: Routes,
    refused: Option<BuildError>,
    waker: Option<Waker>,
    listens: bool,
}

/// Why a relay could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No sink was given.
    #[error("the relay has no sink")]
    NoSink,
    /// A topic pattern is neither a topic, nor a prefix that ends in `*`, nor `*`.
    #[error("{0:?} is not a topic pattern: a topic, a prefix ending in *, or *")]
    Pattern(String),
    /// Two sinks have the same pattern.
    #[error("two sinks have the topic pattern {0:?}")]
    Duplicate(String),
    /// A setting is outside its range.
    #[error("{setting} must be {range}")]
    Setting {
        /// Which.
        setting: &'static str,
        /// What it may be.
        range: &'static str,
    },
    /// The database could not be asked, or does not fit: not migrated, newer than this code, another number of lanes.
    #[error("the relay does not fit its database")]
    Store(#[source] Error),
}

impl<Db: OutboxDb> Relay<Db> {
    /// A relay over this pool.
    ///
    /// On Postgres it opens one connection of its own, at most two, with the pool's options and hooks: for its statements
    /// it switches off compilation and plans that suit other kinds of tables, by `options` in the startup message. A
    /// pooler in between must hand these on to the server; over one that refuses or drops them take
    /// [`shared_connections`](RelayBuilder::shared_connections). Elsewhere it takes one connection of the pool at a time.
    /// It takes one more of the pool if it [listens](RelayBuilder::listen).
    ///
    /// The pool must lead to the primary itself. A proxy that sends reads to a replica lets the relay decide by what was
    /// true a while ago: which lanes it holds, what is due, who still writes.
    pub fn builder(pool: Pool<Db>) -> RelayBuilder<Db> {
        RelayBuilder {
            pool,
            config: Config {
                batch: 100,
                in_flight_max: 2_000,
                sink_in_flight_max: u32::MAX,
                in_flight_bytes_max: 16 * 1024 * 1024,
                lease: Duration::from_secs(10),
                poll_interval: Duration::from_millis(100),
                publish_timeout: Duration::from_secs(60),
                drain_timeout: Duration::from_secs(10),
                shared_connections: false,
                sink_backoff: Backoff::equal_jitter(
                    Duration::from_millis(100),
                    Duration::from_secs(5),
                ),
                policies: Policies::default(),
                retention: Retention::Delete,
                sweep_interval: Duration::from_secs(60),
                rules: Rules {
                    max_attempts: 20,
                    backoff: Backoff::equal_jitter(
                        Duration::from_millis(200),
                        Duration::from_secs(300),
                    ),
                    retry_after_max: Duration::from_secs(3_600),
                    unrouted: Unrouted::Wait,
                },
            },
            lanes: None,
            routes: Routes::default(),
            refused: None,
            waker: None,
            listens: false,
        }
    }

    /// Starts the relay as a task. Cancelling the token drains it within the builder's `drain_timeout`.
    ///
    /// The task never fails: while the database or a sink is away it waits and tries again. Dropping the handle leaves
    /// it running until the token is cancelled.
    ///
    /// # Panics
    /// When called outside a tokio runtime, as [`tokio::spawn`] does.
    pub fn spawn(self, cancel: CancellationToken) -> RelayHandle {
        describe_metrics();
        let (order, orders) = watch::channel(None);
        let tally = Arc::new(Tally::default());
        let mut wake = self.waker.as_ref().map(Waker::subscribe);
        if self.listens {
            wake = Some(wake::listen(self.pool.clone(), wake));
        }
        let relay = Uuid::now_v7();
        let engine = Engine::new(
            self.pool,
            relay,
            self.config,
            self.lanes,
            self.routes,
            wake,
            Arc::clone(&tally),
        );
        let task = tokio::spawn(engine.run(cancel, orders));
        RelayHandle { order, tally, task }
    }
}

impl<Db: OutboxDb> fmt::Debug for Relay<Db> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl<Db: OutboxDb> fmt::Debug for RelayBuilder<Db> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayBuilder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl<Db: OutboxDb> RelayBuilder<Db> {
    /// Publishes messages whose topic fits `topics` to `sink`: a topic, a prefix such as `hooks.*`, or `*` for all.
    ///
    /// The most specific pattern wins, whatever the order of the calls. A message that fits none waits: see
    /// [`unrouted`](Self::unrouted).
    ///
    /// Give all relays of an outbox the same topics. They share the lanes whatever is in them, so a relay of broker topics and
    /// another of webhooks would each hold messages that only the other can deliver: two outboxes, in two schemas, can be
    /// served apart.
    pub fn sink(mut self, topics: &str, sink: impl Sink) -> Self {
        if let Err(refused) = self.routes.add(topics, sink, self.config.sink_backoff) {
            self.refused.get_or_insert(refused);
        }
        self
    }

    /// Wakes when this outbox says that something committed. The same as [`wake`](Self::wake) with its waker.
    pub fn outbox(self, outbox: &Outbox<Db>) -> Self {
        self.wake(outbox.waker())
    }

    /// Wakes when this waker is notified; without, the relay only polls.
    pub fn wake(mut self, waker: Waker) -> Self {
        self.waker = Some(waker);
        self
    }

    /// Wakes as well when another process [announces](Outbox::announce) that something committed. Only Postgres can carry
    /// that; elsewhere this changes nothing.
    ///
    /// Listening holds one connection of the pool for as long as the relay runs, so the pool has to have two. It must lead
    /// to the server itself: a pooler that gives each transaction another connection loses what is listened for. While the
    /// listener is away the relay polls, and it comes back by itself.
    pub fn listen(mut self) -> Self {
        self.listens = true;
        self
    }

    /// Works over the pool's own connections, one at a time, on Postgres as elsewhere: for a pooler in between that refuses
    /// `options` in the startup message, or a server that has no connection to spare. Elsewhere this changes nothing.
    ///
    /// A pool that tests its connections may put another one in place of one that broke, and the relay does not learn of it: it
    /// notices a failover only when it next asks which server answers, up to [`poll_interval`](Self::poll_interval) later. Nor
    /// does a statement that it gave up end on the server by itself.
    ///
    /// Then the planner is left to choose. While the table is large and its statistics are of a time when it was not, or
    /// the other way round, it may sort whole lanes for every look: with 300,000 rows a look was measured at 365 ms instead
    /// of 4. Give the relay a role of its own, and the role what the startup message would have said: `ALTER ROLE .. SET
    /// enable_seqscan = off`, the same for `enable_bitmapscan` and `jit`, and `plan_cache_mode = force_generic_plan`.
    ///
    /// A pool that the application has emptied holds the relay up, and a lane that is not renewed in time is lost.
    pub fn shared_connections(mut self) -> Self {
        self.config.shared_connections = true;
        self
    }

    /// Says how many lanes the outbox is expected to have: another number is an error of [`build`](Self::build).
    ///
    /// The number is chosen once, at the first [`migrate`](crate::migrate); default 64.
    pub fn lanes(mut self, lanes: u16) -> Self {
        self.lanes = Some(lanes);
        self
    }

    /// The most messages of one lane in one batch. Default 100: a batch is what a crash may deliver twice.
    pub fn batch(mut self, messages: u32) -> Self {
        self.config.batch = messages;
        self
    }

    /// The most messages claimed and not settled, over all lanes. Default 2000.
    pub fn in_flight_max(mut self, messages: u32) -> Self {
        self.config.in_flight_max = messages;
        self
    }

    /// The most messages that one sink has, of those claimed and not settled. Default: as many as there may be, so that a sink
    /// that is slow, with many messages, can take all places.
    ///
    /// With less, its messages are passed over while it has so many, and those for the others go on, in the lanes in which it has
    /// none: give the outbox more lanes than this, or small batches.
    pub fn sink_in_flight_max(mut self, messages: u32) -> Self {
        self.config.sink_in_flight_max = messages;
        self
    }

    /// The most payload bytes claimed and not settled, over all lanes. Default 16 MiB.
    ///
    /// The message that crosses it still goes, so that none is too large to be delivered.
    pub fn in_flight_bytes_max(mut self, bytes: u64) -> Self {
        self.config.in_flight_bytes_max = bytes;
        self
    }

    /// How long a lane stays with a relay that has died, on the database's clock. Default 10 s, at least 1 s.
    ///
    /// Renewed at a third of it. Shorter takes over sooner; longer forgives longer pauses without duplicates.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.config.lease = lease;
        self
    }

    /// The longest wait between two looks at an idle outbox. Default 100 ms, 10 ms to 60 s.
    ///
    /// A busy relay looks every few milliseconds and an in-process wake at once. This is also how soon lanes that
    /// another relay gave back are taken.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.config.poll_interval = interval;
        self
    }

    /// How long failed messages wait. Default 200 ms doubling to 5 min, with equal jitter.
    pub fn retry(mut self, backoff: Backoff) -> Self {
        self.config.rules.backoff = backoff;
        self
    }

    /// Attempts after which a message is a dead letter. Default 20, which is about half an hour with the default waits.
    /// At least 1.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.config.rules.max_attempts = attempts;
        self
    }

    /// What later messages of a key do while one waits for its retry, and when it is given up. Default
    /// [`KeyPolicy::Block`].
    pub fn key_policy(mut self, policy: KeyPolicy) -> Self {
        self.config.policies.default = policy;
        self
    }

    /// The same for the messages of some topics: a topic, a prefix such as `hooks.*`, or `*`. The most specific wins.
    ///
    /// Relays that share an outbox should agree: what counts is the policy of the relay a message fails at.
    pub fn topic_policy(mut self, topics: &str, policy: KeyPolicy) -> Self {
        if let Err(refused) = self.config.policies.add(topics, policy) {
            self.refused.get_or_insert(refused);
        }
        self
    }

    /// What becomes of messages whose topic none of this relay's sinks takes. Default [`Unrouted::Wait`].
    pub fn unrouted(mut self, unrouted: Unrouted) -> Self {
        self.config.rules.unrouted = unrouted;
        self
    }

    /// What becomes of messages that were delivered. Default [`Retention::Delete`].
    pub fn retention(mut self, retention: Retention) -> Self {
        self.config.retention = retention;
        self
    }

    /// How long a round takes in which each lane is once looked at from its very beginning. Default 60 s, 1 s to 1 h.
    ///
    /// Claims begin behind what is known to be done. The round finds what came to lie there without the outbox's knowing:
    /// rows restored or inserted by hand, or, after `ALTER SEQUENCE .. CACHE` went back to 1, ids that sessions still had.
    pub fn sweep_interval(mut self, interval: Duration) -> Self {
        self.config.sweep_interval = interval;
        self
    }

    /// How long a sink that is down is left alone before one message probes it. Default 100 ms doubling to 5 s.
    ///
    /// One that answers again is not given the whole backlog at once: one batch, and after each that comes back with
    /// something acked twice as many, until 64 may be under way. None of this spends an attempt.
    ///
    /// Counts for sinks added after this call as well as before.
    pub fn sink_backoff(mut self, backoff: Backoff) -> Self {
        self.config.sink_backoff = backoff;
        self.routes.set_backoff(backoff);
        self
    }

    /// How long one `publish` may take before it is dropped and its messages are charged an attempt. Default 60 s.
    ///
    /// In its first half messages are started, the second is for those under way: see
    /// [`LaneRef::is_held`](crate::LaneRef::is_held). Give it more than twice what a sink may need for one message.
    ///
    /// A last resort against a sink that never returns: the sink then counts as down, and while it is given its time its
    /// lanes stand still, for other sinks' messages as well. Sinks bound their own calls and say
    /// [`SinkDown`](crate::SinkDown).
    pub fn publish_timeout(mut self, timeout: Duration) -> Self {
        self.config.publish_timeout = timeout;
        self
    }

    /// How long batches in flight may take to end once the token given to [`Relay::spawn`] is cancelled. Default 10 s.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.config.drain_timeout = timeout.min(DRAIN_MAX);
        self
    }

    /// Checks the settings, and the database's version and lanes.
    ///
    /// # Errors
    /// [`BuildError`], which lists them.
    ///
    /// # Cancel safety
    /// Reads only.
    pub async fn build(self) -> Result<Relay<Db>, BuildError> {
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        if self.routes.is_empty() {
            return Err(BuildError::NoSink);
        }
        self.config.check()?;
        if self.listens && Db::SIGNALS && self.pool.options().get_max_connections() < 2 {
            return Err(BuildError::Setting {
                setting: "the pool of a relay that listens",
                range: "2 connections or more",
            });
        }
        // Over the connection that the relay will use: one that is refused is better known now.
        let limit = self.config.statement_limit();
        let shared = self.config.shared_connections;
        let connections = Connections::new(self.pool.clone(), shared, limit);
        let stored = Db::lanes(connections.get()).await;
        connections.close().await;
        let stored = stored.map_err(BuildError::Store)?;
        if let Some(asked) = self.lanes.filter(|asked| *asked != stored) {
            let kind = ErrorKind::LaneCount { stored, asked };
            return Err(BuildError::Store(Error::new(kind)));
        }
        Ok(Relay {
            pool: self.pool,
            config: self.config,
            lanes: stored,
            routes: self.routes,
            waker: self.waker,
            listens: self.listens,
        })
    }
}

impl Config {
    fn check(&self) -> Result<(), BuildError> {
        let poll = Duration::from_millis(10)..=Duration::from_secs(60);
        let lease = Duration::from_secs(1)..=Duration::from_secs(3_600);
        let sweep = Duration::from_secs(1)..=Duration::from_secs(3_600);
        let checks = [
            (
                (1..=10_000).contains(&self.batch),
                "batch",
                "1 to 10000 messages",
            ),
            (
                (1..=100_000).contains(&self.in_flight_max),
                "in_flight_max",
                "1 to 100000 messages",
            ),
            (
                self.sink_in_flight_max > 0,
                "sink_in_flight_max",
                "at least 1 message",
            ),
            (
                self.in_flight_bytes_max > 0,
                "in_flight_bytes_max",
                "more than 0 bytes",
            ),
            (lease.contains(&self.lease), "lease", "1 s to 1 h"),
            (
                poll.contains(&self.poll_interval),
                "poll_interval",
                "10 ms to 60 s",
            ),
            (
                sweep.contains(&self.sweep_interval),
                "sweep_interval",
                "1 s to 1 h",
            ),
            (self.rules.max_attempts >= 1, "max_attempts", "at least 1"),
            (
                !self.publish_timeout.is_zero(),
                "publish_timeout",
                "more than 0",
            ),
        ];
        match checks.into_iter().find(|(fits, ..)| !fits) {
            Some((_, setting, range)) => Err(BuildError::Setting { setting, range }),
            None => Ok(()),
        }
    }
}

/// The longest a drain may take, whatever it is told; nobody waits a day for a process to end.
const DRAIN_MAX: Duration = Duration::from_secs(86_400);

/// A running relay.
#[derive(Debug)]
pub struct RelayHandle {
    order: watch::Sender<Option<Instant>>,
    tally: Arc<Tally>,
    task: JoinHandle<Drained>,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Messages whose outcome was not written down in time. They keep their place, are charged an attempt and are
    /// delivered again. Where the task itself was torn down, by a runtime that ends or a panic, those that were under way then.
    pub unsettled: u64,
}

impl RelayHandle {
    /// Stops claiming, lets what is in flight end and settle within `deadline`, and gives the lanes back at once.
    ///
    /// Lanes with nothing in flight are free from the start, the others as soon as it has ended. With
    /// [`Drained::unsettled`] 0 nothing of this relay will be delivered twice. A database that does not answer can hold the
    /// end up for a few seconds more.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the drain.
    pub async fn drain(self, deadline: Duration) -> Drained {
        self.order
            .send_replace(Some(Instant::now() + deadline.min(DRAIN_MAX)));
        self.join().await
    }

    /// Waits until the relay has ended because its token was cancelled.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the relay as it is.
    pub async fn join(self) -> Drained {
        match self.task.await {
            Ok(drained) => drained,
            Err(error) => {
                tracing::error!(target: crate::TARGET, %error, "the relay's task was torn down");
                let unsettled = self.tally.read().in_flight;
                Drained { unsettled }
            }
        }
    }

    /// The topics, as they were given to the builder, of the sinks that are down at this moment:
    /// [`Health::with_sinks_down`](crate::Health::with_sinks_down) takes them.
    ///
    /// One of which it is time to find out, while this relay has nothing for it, is not told: nothing waits.
    #[must_use]
    pub fn sinks_down(&self) -> Vec<String> {
        self.tally.sinks_down()
    }

    /// The topics of messages that this relay has met and that none of its sinks takes, in order. With [`Unrouted::Wait`] they
    /// wait for a relay that has one.
    #[must_use]
    pub fn topics_without_sink(&self) -> Vec<String> {
        self.tally.topics_without_sink()
    }

    /// What the relay has done since it was spawned.
    #[must_use]
    pub fn stats(&self) -> RelayStats {
        self.tally.read()
    }
}
