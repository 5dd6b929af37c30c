//! Transactional outbox: events that are published if, and only if, the transaction that caused them commits.
//!
//! A service that writes to its database and then publishes to a broker can die in between. Here the event is a row,
//! written by the same transaction as the data; a *relay* takes committed rows to *sinks* until each is settled.
//!
//! # The promise
//! - An event whose transaction commits is delivered **at least once**; one that rolls back, never. Its id and bytes are
//!   the same on every delivery, so a consumer that remembers ids applies it once.
//! - First deliveries of one key to one sink happen in order. A failed message holds back its key and nothing else.
//! - A relay that is killed at any moment loses nothing and strands nothing: after its lease others take over, what it had
//!   in flight is charged an attempt. A late ack of a relay that was merely paused settles nothing.
//! - An outage of a sink spends no attempts, but perhaps one of what was on the wire when it began, and few of what probes it
//!   (when, is among the limits); an outage of the database is waited out. What fails for good is a dead letter with its
//!   reason, and can be brought back.
//!
//! # Example
//! ```
//! # #[cfg(feature = "sqlite")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use mainstay_outbox::{Event, MemorySink, Outbox, OutboxConfig, Relay, migrate};
//! use sqlx::{Sqlite, SqlitePool};
//! use tokio_util::sync::CancellationToken;
//!
//! # let file = std::env::temp_dir().join(format!("outbox-doc-{}.db", uuid::Uuid::now_v7()));
//! # let url = format!("sqlite://{}?mode=rwc", file.display());
//! let pool = SqlitePool::connect(&url).await?;
//! migrate(&pool).await?;
//! let outbox = Outbox::<Sqlite>::new(OutboxConfig::default().source("/payments"));
//!
//! let sink = MemorySink::new(); // or ChannelSink, WebhookSink, your own
//! let relay = Relay::builder(pool.clone()).outbox(&outbox).sink("payments", sink.clone()).build().await?;
//! let relay = relay.spawn(CancellationToken::new());
//!
//! let mut tx = pool.begin().await?;
//! // .. the writes that the event tells of, on the same transaction ..
//! let event = Event::new("payment.created").topic("payments").key("order-17").json(&1250)?;
//! let id = outbox.enqueue(&mut tx, event).await?;
//! tx.commit().await?;
//! outbox.waker().notify_after_commit();
//!
//! assert_eq!(sink.wait_for(1).await[0].id(), id);
//! relay.drain(Duration::from_secs(5)).await;
//! # std::fs::remove_file(file)?;
//! # Ok(())
//! # }
//! # #[cfg(feature = "sqlite")]
//! # tokio::runtime::Runtime::new()?.block_on(example())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it works
//! **Lanes.** Every row carries a lane, a hash of its key modulo a number fixed at the first migration; the INSERT reads
//! that number from the database, so producers cannot disagree. Relays lease lanes on the database's clock and share them
//! evenly without a leader. A lane has one batch under way at a time, which is what keeps its keys in order.
//!
//! **No write per message while all goes well.** Claiming reads the lane's head along its index and writes the batch's ids
//! into the lane's one row; settling is one DELETE. Each write is guarded by the lane's *epoch*, which rises when the lane
//! changes hands: that fences late acks, and tells a taker what was in flight. A message whose attempt ended in a crash is
//! from then on published alone in its lane; if the next one does too, nothing else goes beside it, in any lane. So a message
//! that kills its relay is given up in the end, and costs its neighbours two attempts.
//!
//! **Nothing is held open.** No transaction and no connection while a sink is slow; every relay operation is one atomic
//! step that can be repeated after an unknown outcome.
//!
//! **No NOTIFY in the producer's transaction**, where it would serialise the commits of the whole database. A [`Waker`] wakes
//! relays of the same process after COMMIT; on Postgres an [`Announcer`] wakes those of other processes, with a NOTIFY for
//! all commits of some milliseconds. Without either, relays poll, ever more rarely down to `poll_interval`.
//!
//! # Limits, said aloud
//! - Claims start behind what is known to be done. That mark stops at a message that waits for its retry: what was
//!   delivered behind such a message is stepped over until VACUUM has been there.
//! - What waits for a sink that is down, or for topics that are paused, is stepped over once when that is found out, and
//!   lane by lane with the sweep, some 16,000 rows at a time; a lane is not claimed from while that goes on, and between,
//!   claims for the other sinks start behind it. What is younger than a second (on MySQL and MariaDB, than five) is stepped
//!   over by each of them. Where ids are not in order, all of it is. When one of several such sinks is probed or comes back
//!   for the first time, it waits until what waits for the others was stepped over for its sake. A relay remembers 10,000
//!   topics as shut; where there are more it forgets them all and learns them again, and steps over what waits each time.
//! - A database that fails over and loses commits is noticed by the connection that breaks. Where a pool or a proxy hides that,
//!   it is noticed by another server that answers, or one that was started again, within
//!   [`poll_interval`](RelayBuilder::poll_interval). Then lanes are looked at from their beginning. Unnoticed by either are a
//!   Postgres that lost commits (`synchronous_commit` off) as it recovered from the crash of one of its processes, without being
//!   started again; a MySQL or MariaDB of the same host name, port and `server_id` that was started in the same second; a
//!   machine that is set back with its memory; and a SQLite file that is put in the place of one that is open. What is written
//!   there with ids below those that had been seen before waits for the sweep.
//! - What is on the wire when a sink goes away is charged an attempt where the outage cannot be told from a failure of the
//!   message: where others that were sent with it were still answered and it was not, and where `publish` does not return
//!   within [`publish_timeout`](RelayBuilder::publish_timeout). What would be sent after that is charged nothing. Where
//!   an answer may be either, as a load balancer's 503 may, or a request that is taken and left unanswered, the third
//!   different message in a row that gets nothing else makes it an outage: the two before it are charged, and in an outage of
//!   hours whatever probes the sink, some times.
//! - The relay works on the primary and reaches it directly. A proxy that splits reads from writes lets it decide by what a
//!   replica says, which is of the past: it would publish again what is settled, and pass over what is still to commit.
//! - Between transactions that write one key at once, order is that of their ids, not of their commits, unless something
//!   puts them in order: a row lock taken before enqueueing, or [`Ordering::PerKeyStrict`].
//! - A relay that is paused past its lease may finish a publish that is on the wire: its messages arrive twice.
//! - On SQLite begin the transactions that enqueue with `BEGIN IMMEDIATE`: a transaction that reads first and writes later
//!   is refused when somebody else wrote in between.
//! - On MySQL and MariaDB (InnoDB; MySQL 8.0.16 or MariaDB 10.6; tested on MariaDB 10.11, not on MySQL) an error 1213 of
//!   your transaction is a deadlock that rolled it back: begin it again. The outbox does so with its own. A connection whose
//!   statement was cut off, by a dropped future, is no longer fit for use: close it. `max_allowed_packet` bounds one call's events
//!   together. A statement that a relay gave up goes on at the server, and keeps its connection until it ends: a relay with a
//!   user of its own, and `max_statement_time` (MySQL: `max_execution_time`) and `innodb_lock_wait_timeout` of some seconds for
//!   that user's connections, has no such ones.
//! - There ids are in order where one server takes the writes. Where several do (`auto_increment_increment` above 1), a key
//!   that is written on two of them has no order, and claims begin at the lanes' heads.
//! - There nobody is told which ids were drawn and not written yet, and claims pass an id five seconds after it was drawn
//!   unless its row is written by then, committed or not, or the statement is seen that is still at it. Statements are seen
//!   of the relay's own database user, and of all users with the privilege `PROCESS`, for two minutes; those that begin like
//!   a report (`SELECT`, `WITH`) or the upkeep of tables (`ALTER`) are taken to write no events. So this can go wrong where
//!   events are enqueued by a stored function that such a statement calls, or a producer
//!   has another user, the relay does not have the privilege, and an INSERT takes more than five seconds between drawing its
//!   id and writing its row: behind a lock on a gap, as those take who read `FOR UPDATE` above READ COMMITTED, or a disk that
//!   stands still. And where the whole server stood still, as in a snapshot of its machine, in the moment in which it goes
//!   on. Such a row is found by the sweep: up to [`sweep_interval`](RelayBuilder::sweep_interval) late, and later events of
//!   its key, strict ones as well, may have gone before.
//! - There the lane of a row is a default of the column, `hash % lanes`, which the first migration writes into the table.
//!   Whatever makes the table anew, a dump or a tool that changes tables online, has to keep that default.
//! - The messages of a key that is held back are stepped over by the claims of their lane. Where that takes long, 20 ms, they are
//!   passed, once for each attempt of what holds them back, and their lane is not claimed from while that goes on: some 16,000 rows
//!   in tens of milliseconds.
//! - Between sinks there is no order: of one key's messages, those for a sink that is up do not wait for those before them
//!   that go to one that is down, and both may go at once. Nor is there between topics of one sink while one of them is
//!   [paused](Admin::pause).
//! - A batch of a lane ends when its slowest sink has answered; until then the lane's messages for other sinks wait. How many
//!   messages a slow sink may have at once is bounded by [`sink_in_flight_max`](RelayBuilder::sink_in_flight_max).
//!
//! # What is not here
//! - **Priorities, weighted topics, shares and quotas per tenant.** A lane is served in the order of its ids and lanes in
//!   turn, so no key waits for another lane's backlog; but one tenant's burst delays those who share its lanes. What must
//!   not wait goes to an outbox of its own (another schema and its relay: see [`migrate`](fn@migrate)), which also gives it its own
//!   connections.
//! - **A log engine** on Postgres (append-only tables, snapshot windows, rotation), whose cost is independent of deletes. The
//!   store is the seam where it will go.
//! - **Kafka and SQS.** [`Sink`] is one method; the conformance suite for sinks says what one must do.
//! - **Reading the WAL**: that is Debezium's ground, and needs a replication slot that somebody watches.
//! - **A web page.** `mainstay-outbox --json` and the metrics are what one is made of.
//!
//! # Features
//! None is on by default: then there are [`Event`], [`Message`] and the [`Sink`]s. `postgres`, `mysql` and `sqlite` bring the
//! outbox, relay and admin on sqlx; `http` the webhook sink, `https` its TLS; `nats`, `rabbitmq` and `redis` the sinks to
//! these brokers, the first two consumers as well, `rabbitmq-tls` `amqps://`; `cloudevents`, which all of these turn on,
//! the bindings for sinks of your own; `aead` encryption of payloads at rest ([`codec`]); `opentelemetry` trace contexts;
//! `metrics` what stands below; `cli` the program `mainstay-outbox` for operators; `conformance` the suites for stores and sinks.
//!
//! TLS is by rustls. An address that asks for it where the feature is missing is refused: it is never spoken to unencrypted.
//! The clients of NATS and Redis are yours, and so is their TLS: what it takes stands in the documentation of each sink.
//!
//! What an ack of a broker means is the broker's to say, and stands in each sink's documentation: some are given before
//! anything is on a disk.
//!
//! # Metrics
//! With the feature `metrics`, through the facade of that name. Durations and ages are in seconds; `topics` are the patterns
//! that sinks were given to the builder with. Gauges are those of [`LagMonitor`] but for `lanes.held`.
//!
//! | name | kind | labels |
//! |---|---|---|
//! | `messaging.client.sent.messages` | counter | `messaging.operation.name`, `messaging.destination.template` (topics), `error.type`: none, `retry`, `rejected` |
//! | `messaging.client.operation.duration` | histogram, a batch | the same; `error.type`: none, `sink_down` |
//! | `mainstay.outbox.delivery.duration` | histogram, a message: from its INSERT, or its time if it was delayed, to the sink's ack | `messaging.destination.template` (topics) |
//! | `mainstay.outbox.enqueued` | counter | |
//! | `mainstay.outbox.published` | counter | |
//! | `mainstay.outbox.attempts` | counter | `outcome`: `acked`, `retried`, `rejected`, `exhausted` |
//! | `mainstay.outbox.dead` | counter | `cause`: `rejected`, `exhausted`, `no_sink` |
//! | `mainstay.outbox.parked` | counter | |
//! | `mainstay.outbox.fenced` | counter, batches | |
//! | `mainstay.outbox.duplicates_possible` | counter | |
//! | `mainstay.outbox.lanes.acquired` | counter | |
//! | `mainstay.outbox.sink_down` | counter | `topics` |
//! | `mainstay.outbox.wake_coalesced` | counter | |
//! | `mainstay.outbox.lanes.held` | gauge | |
//! | `mainstay.outbox.pending` | gauge | |
//! | `mainstay.outbox.oldest_age` | gauge | |
//! | `mainstay.outbox.later` | gauge | |
//! | `mainstay.outbox.dead_letters` | gauge | |
//! | `mainstay.outbox.parked_keys` | gauge | |
//! | `mainstay.outbox.paused` | gauge | |
//! | `mainstay.outbox.lanes` | gauge | `verdict`: `idle`, `flowing`, `unowned`, `stalled` |
//! | `mainstay.outbox.health` | gauge: 0 ok, 1 degraded, 2 failing | |
//! | `mainstay.outbox.monitor.failures` | counter | |
//!
//! # Tracing
//! Everything is logged with target `mainstay_outbox`, without payloads, keys or header values.
//!
//! An event keeps its W3C trace context ([`Event::trace_context`]): with the feature `opentelemetry` that of the span that
//! enqueues it, if it has none. Each call of a sink is a span `publish` of its own that links to the contexts of its messages;
//! consumers get them as `traceparent` and `tracestate`.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

#[cfg(feature = "sqlx")]
mod admin;
pub mod codec;
#[cfg(feature = "conformance")]
#[cfg_attr(docsrs, doc(cfg(feature = "conformance")))]
#[expect(
    clippy::expect_used,
    reason = "a suite of assertions: it is called from tests and panics when one fails"
)]
pub mod conformance;
#[cfg(any(feature = "nats", feature = "rabbitmq"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "nats", feature = "rabbitmq"))))]
pub mod consume;
#[cfg(feature = "sqlx")]
mod error;
mod event;
#[cfg(feature = "sqlx")]
mod gate;
#[cfg(feature = "sqlx")]
mod history;
#[cfg(feature = "sqlx")]
mod lane;
#[cfg(feature = "sqlx")]
mod mark;
mod message;
#[cfg(feature = "sqlx")]
mod migrate;
#[cfg(feature = "sqlx")]
mod outbox;
#[cfg(feature = "sqlx")]
mod pattern;
#[cfg(feature = "sqlx")]
mod plan;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "sqlx")]
mod relay;
pub mod sink;
#[cfg(feature = "sqlx")]
pub mod store;
#[cfg(feature = "sqlx")]
mod telemetry;
mod trace;
#[cfg(feature = "sqlx")]
mod wake;

/// The client whose connections [`sink::NatsSink`] and [`consume::NatsConsumer`] take.
#[cfg(feature = "nats")]
#[cfg_attr(docsrs, doc(cfg(feature = "nats")))]
pub use async_nats;
/// The client whose connections [`sink::RedisSink`] opens.
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use redis;

#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub use self::sink::{WebhookSecret, WebhookSink};
#[cfg(all(feature = "metrics", feature = "sqlx"))]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub use self::{admin::LagMonitor, telemetry::describe_metrics};
#[cfg(feature = "sqlx")]
pub use self::{
    admin::{
        Admin, Audit, Bulk, DeadCause, DeadLetter, Discarded, Failure, Filter, Finding, Health,
        HealthReason, HealthStatus, Lag, LaneLag, Paused, Pending, Precision, Severity, StallCause,
        Thresholds, TopicLag, Verdict, Wait,
    },
    error::{Error, ErrorKind},
    migrate::{migrate, migrate_with_lanes},
    outbox::{EnqueueError, Outbox, OutboxConfig},
    relay::{
        BuildError, Drained, KeyPolicy, Relay, RelayBuilder, RelayHandle, Retention, Unrouted,
    },
    store::OutboxDb,
    telemetry::RelayStats,
    wake::{Announcer, Waker},
};
pub use self::{
    codec::EncodeError,
    event::{Event, EventId, InvalidEvent, Ordering},
    message::Message,
    sink::{ChannelSink, LaneRef, MemorySink, Outcome, Outcomes, Reason, Sink, SinkDown},
};

/// The `tracing` target of everything this crate logs.
pub(crate) const TARGET: &str = "mainstay_outbox";
