//! The seam between the relay and a database: what a store must do, and the rows that cross it.
//!
//! The twins `postgres.rs` and `sqlite.rs` have the same functions in the same order. Each function is atomic: it takes
//! effect wholly or not at all, and running it again after an unknown outcome does no harm.

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::time::Duration;

use sqlx::{Database, Pool};
use uuid::Uuid;

use crate::{error::Error, message::Message};

/// A database that can hold an outbox. Implemented for `sqlx::Postgres` and `sqlx::Sqlite`.
///
/// The functions are what the relay needs of a database; applications use [`Outbox`](crate::Outbox),
/// [`Relay`](crate::Relay) and [`Admin`](crate::Admin). The `conformance` module tests what is written here. It is not yet
/// meant to be implemented elsewhere: functions will be added.
pub trait OutboxDb: Database {
    /// Brings the tables to the newest version under a lock, so that processes may race. `lanes` counts only the first
    /// time; afterwards another number is an error if `exact`.
    fn migrate(
        pool: Pool<Self>,
        lanes: u16,
        exact: bool,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// How many lanes this outbox has; fails when the tables are missing, old or new.
    fn lanes(pool: Pool<Self>) -> impl Future<Output = Result<u16, Error>> + Send;

    /// Writes one event in the caller's transaction: one statement. Says how many rows were written.
    fn insert(
        conn: &mut Self::Connection,
        row: &NewRow<'_>,
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Writes events in order in the caller's transaction: one statement. Says how many rows were written.
    fn insert_many(
        conn: &mut Self::Connection,
        rows: &[NewRow<'_>],
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Says that this relay is alive for another `lease`, and forgets relays that are long gone.
    fn heartbeat(
        pool: Pool<Self>,
        relay: Uuid,
        lease: Duration,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// How many relays are alive and how many lanes nobody holds: reads only.
    fn survey(pool: Pool<Self>) -> impl Future<Output = Result<Survey, Error>> + Send;

    /// Leases up to `count` lanes that nobody holds and raises their epochs. Messages that were in flight there are
    /// charged an attempt and marked suspect.
    fn acquire(
        pool: Pool<Self>,
        relay: Uuid,
        lease: Duration,
        count: u16,
    ) -> impl Future<Output = Result<Vec<Grant>, Error>> + Send;

    /// Extends the leases of these lanes. Says which are still held; a lease that ran out but was not taken is.
    fn renew(
        pool: Pool<Self>,
        lease: Duration,
        held: Vec<Held>,
    ) -> impl Future<Output = Result<Vec<i32>, Error>> + Send;

    /// Gives lanes back at once. What is still recorded in flight there is charged to whoever takes them.
    fn release(pool: Pool<Self>, held: Vec<Held>)
    -> impl Future<Output = Result<(), Error>> + Send;

    /// Takes a relay off the list of those alive.
    fn retire(pool: Pool<Self>, relay: Uuid) -> impl Future<Output = Result<(), Error>> + Send;

    /// What the lanes' heads hold that is due, in order. Reads only: nothing is claimed until `record`.
    fn candidates(
        pool: Pool<Self>,
        ask: Ask,
    ) -> impl Future<Output = Result<Vec<Candidate>, Error>> + Send;

    /// Records the batches that are about to be published and renews their lanes. Says which lanes are still held.
    fn record(
        pool: Pool<Self>,
        lease: Duration,
        batches: Vec<InFlight>,
    ) -> impl Future<Output = Result<Vec<i32>, Error>> + Send;

    /// Writes down what became of batches and clears their in-flight records, lane by lane, where the epoch still
    /// matches. Says which lanes it did; the others are fenced.
    fn settle(
        pool: Pool<Self>,
        settlements: Vec<Settlement>,
    ) -> impl Future<Output = Result<Vec<i32>, Error>> + Send;

    /// Counts for operators; counting stops at `cap`.
    fn lag(pool: Pool<Self>, cap: i64) -> impl Future<Output = Result<LagRow, Error>> + Send;

    /// The oldest dead letters, of one topic or all.
    fn dead(
        pool: Pool<Self>,
        topic: Option<String>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<DeadRow>, Error>> + Send;

    /// Moves the oldest dead letters back to where they were, with no attempt spent. Says how many.
    fn redrive(
        pool: Pool<Self>,
        topic: Option<String>,
        limit: u32,
    ) -> impl Future<Output = Result<u64, Error>> + Send;
}

/// An event on its way into the table.
#[derive(Debug)]
pub struct NewRow<'a> {
    /// The lane is this modulo the number of lanes, which the statement reads from the database. Not negative.
    pub hash: i64,
    /// CloudEvents `id`.
    pub event_id: Uuid,
    /// CloudEvents `source`.
    pub source: &'a str,
    /// CloudEvents `type`.
    pub event_type: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// CloudEvents `subject`.
    pub subject: Option<&'a str>,
    /// CloudEvents `time` in microseconds since 1970; the database's clock when not given.
    pub time_micros: Option<i64>,
    /// CloudEvents `datacontenttype`.
    pub content_type: Option<&'a str>,
    /// The ordering key; an empty one is not none.
    pub key: Option<&'a [u8]>,
    /// A JSON list of pairs.
    pub headers: String,
    /// The payload.
    pub payload: &'a [u8],
}

/// Who else is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Relays whose heartbeat has not run out.
    pub relays: u16,
    /// Lanes without an owner, or whose lease has run out.
    pub free: u16,
}

/// A lane that was leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The lane.
    pub lane: i32,
    /// Its new epoch.
    pub epoch: i64,
    /// Messages that were in flight under the last owner and now have an attempt more.
    pub charged: u32,
}

/// A lane in an epoch: what every write of a relay is guarded by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The lane.
    pub lane: i32,
    /// The epoch it was leased in.
    pub epoch: i64,
}

/// What to look for at the lanes' heads.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The lanes, those to be served first in front.
    pub lanes: Vec<i32>,
    /// The most messages of one lane.
    pub batch: u32,
    /// The most messages altogether.
    pub total: u32,
    /// Payload bytes altogether; one message is always allowed.
    pub bytes: u64,
    /// Topics to pass over because their sink is down.
    pub skip_topics: Vec<String>,
    /// Whether a message that waits for its retry holds back later ones of its key.
    pub block_keys: bool,
}

/// A message that is due.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its lane.
    pub lane: i32,
    /// Its place in the lane.
    pub id: i64,
    /// Attempts spent so far.
    pub attempts: i32,
    /// Its last attempt ended with the relay's or the sink's death: it is published alone.
    pub suspect: bool,
    /// The message; its attempt is one more than `attempts`.
    pub message: Message,
}

/// A batch about to be published.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// The lane and epoch.
    pub held: Held,
    /// The messages' places in the lane.
    pub ids: Vec<i64>,
}

/// What became of a lane's batch.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The lane and epoch.
    pub held: Held,
    /// Delivered: these rows go.
    pub acked: Vec<i64>,
    /// Failed: these rows wait.
    pub failed: Vec<Failed>,
    /// Given up: these rows move to the dead letters.
    pub dead: Vec<Buried>,
}

/// A message that failed and will be tried again.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Its place in the lane.
    pub id: i64,
    /// Attempts before this one. Guards against charging twice when settling is repeated.
    pub attempts: i32,
    /// How long it waits, on the database's clock.
    pub delay: Duration,
    /// Whether it may have killed what published it.
    pub suspect: bool,
    /// Why it failed.
    pub reason: String,
}

/// A message that is given up.
#[derive(Clone, Debug)]
pub struct Buried {
    /// Its place in the lane.
    pub id: i64,
    /// Attempts spent, this one included.
    pub attempts: i32,
    /// Why.
    pub cause: crate::admin::DeadCause,
    /// In words.
    pub reason: String,
}

/// Counts for operators.
#[derive(Clone, Copy, Debug)]
pub struct LagRow {
    /// Rows not delivered yet, up to the cap.
    pub pending: i64,
    /// Dead letters, up to the cap.
    pub dead: i64,
    /// Age of the oldest pending row in microseconds.
    pub oldest_micros: Option<i64>,
}

/// A dead letter as stored.
#[derive(Clone, Debug)]
pub struct DeadRow {
    /// The message; its attempt is the last one made.
    pub message: Message,
    /// Attempts spent.
    pub attempts: i32,
    /// The stored name of the cause.
    pub cause: String,
    /// In words.
    pub reason: String,
    /// When it died, microseconds since 1970.
    pub died_micros: i64,
}

/// A duration in whole microseconds, as both stores bind it.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Headers from their stored JSON list of pairs. A row somebody edited by hand is delivered without them, not never.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) fn parse_headers(json: &str) -> Vec<(String, String)> {
    match serde_json::from_str::<Vec<(String, String)>>(json) {
        Ok(headers) => headers,
        Err(_) => {
            tracing::warn!(target: crate::TARGET, "stored headers are not a JSON list of pairs: ignored");
            Vec::new()
        }
    }
}
