//! The seam between the relay and a database: what a store must do, and the rows that cross it.
//!
//! The twins `postgres/` and `sqlite/` have the same files with the same functions in the same order. Each function is
//! atomic: it takes effect wholly or not at all, and running it again after an unknown outcome does no harm.

#[cfg(feature = "postgres")]
mod postgres;
mod rows;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::time::Duration;

use sqlx::{Database, Pool};
use uuid::Uuid;

pub use self::rows::*;
use crate::error::Error;

/// A database that can hold an outbox. Implemented for `sqlx::Postgres` and `sqlx::Sqlite`.
///
/// The functions are what the relay needs of a database; applications use [`Outbox`](crate::Outbox),
/// [`Relay`](crate::Relay) and [`Admin`](crate::Admin). The `conformance` module tests what is written here. It is not yet
/// meant to be implemented elsewhere: functions will be added.
pub trait OutboxDb: Migrate + Enqueue + Lanes + Claim + Operate {}

impl<Db: Migrate + Enqueue + Lanes + Claim + Operate> OutboxDb for Db {}

/// The tables, and what they were made with.
pub trait Migrate: Database {
    /// Brings the tables to the newest version under a lock, so that processes may race. `lanes` counts only the first
    /// time; afterwards another number is an error if `exact`.
    fn migrate(
        pool: Pool<Self>,
        lanes: u16,
        exact: bool,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// How many lanes this outbox has; fails when the tables are missing, old or new.
    fn lanes(pool: Pool<Self>) -> impl Future<Output = Result<u16, Error>> + Send;
}

/// Writing events, in the caller's transaction.
pub trait Enqueue: Database {
    /// Writes one event that is due at once in the caller's transaction: one statement. Says how many rows were written.
    ///
    /// What takes a lock takes it before the row gets its id, so that ids of one lock are in the order of the commits.
    fn insert(
        conn: &mut Self::Connection,
        row: &NewRow<'_>,
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Writes events that are due at once, in order, in the caller's transaction: one statement, which takes its locks in
    /// one order. Says how many rows were written.
    fn insert_many(
        conn: &mut Self::Connection,
        rows: &[NewRow<'_>],
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Writes events that are due at their times, in the caller's transaction: one statement, no locks. Says how many rows
    /// were written.
    fn insert_later(
        conn: &mut Self::Connection,
        rows: &[NewRow<'_>],
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Reads the code of an error of these statements: whether it says that they were sent to the wrong place.
    fn misfit(error: &sqlx::Error) -> Option<Misfit>;
}

/// Who holds which lanes, on the database's clock.
pub trait Lanes: Database {
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
}

/// From the head of a lane to what is written down of it.
pub trait Claim: Database {
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
}

/// For operators.
pub trait Operate: Database {
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
