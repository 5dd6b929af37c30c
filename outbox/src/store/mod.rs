//! The seam between the relay and a database: what a store must do, and the rows that cross it.
//!
//! `postgres/`, `mysql/` and `sqlite/` have the same files with the same functions in the same order. Each function is
//! atomic: it takes effect wholly or not at all, and running it again after an unknown outcome does no harm.

#[cfg(feature = "mysql")]
mod mysql;
mod operations;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
mod patience;
#[cfg(feature = "postgres")]
mod postgres;
mod rows;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
mod step;

use std::time::Duration;

use sqlx::{Database, Pool};
use uuid::Uuid;

pub use self::{operations::*, rows::*};
use crate::error::Error;

/// A database that can hold an outbox. Implemented for `sqlx::Postgres`, `sqlx::MySql` (MariaDB as well) and
/// `sqlx::Sqlite`.
///
/// The functions are what the relay needs of a database; applications use [`Outbox`](crate::Outbox),
/// [`Relay`](crate::Relay) and [`Admin`](crate::Admin). The `conformance` module tests what is written here. It is not yet
/// meant to be implemented elsewhere: functions will be added.
pub trait OutboxDb: Migrate + Enqueue + Signal + Lanes + Claim + Observe + Operate {}

impl<Db: Migrate + Enqueue + Signal + Lanes + Claim + Observe + Operate> OutboxDb for Db {}

/// The tables, and what they were made with.
pub trait Migrate: Database {
    /// Brings the tables to the newest version under a lock, so that processes may race. `lanes` counts only the first
    /// time; afterwards another number is an error if `exact`.
    ///
    /// Who waits for a lock on a table holds up whoever comes after: it waits for moments and tries again later, until its
    /// `patience` is over.
    fn migrate(
        pool: Pool<Self>,
        lanes: u16,
        exact: bool,
        patience: Duration,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// How many lanes this outbox has; fails when the tables are missing, old or new.
    fn lanes(pool: Pool<Self>) -> impl Future<Output = Result<u16, Error>> + Send;
}

/// Writing events, in the caller's transaction.
pub trait Enqueue: Database {
    /// Writes one event that is due at once in the caller's transaction: one statement. Says how many rows were written.
    ///
    /// What takes a lock takes it before the row gets its id, so that ids of one lock are in the order of the commits; on
    /// MySQL with a statement of its own.
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

/// Wakes from process to process, where the database can carry them. They are hints: polls find what a lost one was for.
pub trait Signal: Database {
    /// Whether it can. If not, neither function is called.
    const SIGNALS: bool = false;

    /// Tells everybody who listens that something has committed.
    fn announce(pool: Pool<Self>) -> impl Future<Output = Result<(), Error>> + Send {
        drop(pool);
        std::future::ready(Ok(()))
    }

    /// Calls `told` once it listens, then for each announcement and whenever one may have been missed. Ends only with an
    /// error.
    fn listen(
        pool: Pool<Self>,
        told: impl Fn() + Send + Sync,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        drop((pool, told));
        std::future::pending()
    }
}

/// Who holds which lanes, on the database's clock.
pub trait Lanes: Database {
    /// Connections of a relay's own: few, and set up for its statements, for which it waits no longer than `limit`. `None`
    /// where there is nothing to set up: then it works over the application's.
    fn dedicated(pool: &Pool<Self>, limit: Duration) -> Option<Pool<Self>> {
        let _ = (pool, limit);
        None
    }

    /// Says that this relay is alive for another `lease`, and forgets relays that are long gone.
    fn heartbeat(
        pool: Pool<Self>,
        relay: Uuid,
        lease: Duration,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Who else is there and what there is to do besides claiming: reads only, in one snapshot, at a cost that does not
    /// depend on the backlog.
    fn survey(pool: Pool<Self>) -> impl Future<Output = Result<Survey, Error>> + Send;

    /// Leases up to `count` lanes that nobody holds and raises their epochs. Messages that were in flight there are
    /// charged an attempt and marked suspect.
    fn acquire(
        pool: Pool<Self>,
        relay: Uuid,
        lease: Duration,
        count: u16,
    ) -> impl Future<Output = Result<Vec<Grant>, Error>> + Send;

    /// Extends the leases of these lanes. Says which are still held; a lease that ran out but was not taken is, and a lane that
    /// was given back is not.
    fn renew(
        pool: Pool<Self>,
        lease: Duration,
        held: Vec<Held>,
    ) -> impl Future<Output = Result<Vec<i32>, Error>> + Send;

    /// Gives lanes back at once. What is still recorded in flight there is charged to whoever takes them if it may have been
    /// `attempted`, and otherwise forgotten: a record whose answer was lost is followed by no attempt.
    fn release(
        pool: Pool<Self>,
        held: Vec<Held>,
        attempted: bool,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Takes a relay off the list of those alive.
    fn retire(pool: Pool<Self>, relay: Uuid) -> impl Future<Output = Result<(), Error>> + Send;
}

/// From the head of a lane to what is written down of it.
pub trait Claim: Database {
    /// How long after an id was drawn its row may still be unwritten without a stamp that would tell. The relay waits as long on
    /// its own clock, as that of the database may be set forward.
    const DRAWN_TO_WRITTEN: Duration = Duration::ZERO;

    /// What the lanes hold that is due, each from its head or the id given, in order. Reads only: nothing is claimed
    /// until `record`.
    fn candidates(
        pool: Pool<Self>,
        ask: Ask,
    ) -> impl Future<Output = Result<Vec<Candidate>, Error>> + Send;

    /// Records the batches that are about to be published, or to be given up, and renews their lanes. Says which lanes are
    /// still held.
    ///
    /// The record of a later batch stays: then this is a copy that was long under way, and nobody waits for its answer.
    fn record(
        pool: Pool<Self>,
        lease: Duration,
        batches: Vec<InFlight>,
    ) -> impl Future<Output = Result<Recorded, Error>> + Send;

    /// What is left of lanes above the ids given but for what is skipped, and which writers are at work. Its cost is bounded by
    /// the window, whatever waits of what is skipped. What is held, and until when, is told as of one time.
    fn heads(pool: Pool<Self>, ask: AskHeads) -> impl Future<Output = Result<Heads, Error>> + Send;

    /// Writes down what became of batches and clears their records, lane by lane, where the epoch still matches and the
    /// record is that of the batch. With `keep`, what was delivered is kept for operators. Says which are written; the
    /// others are fenced.
    ///
    /// In a lane that has no record nothing is written, as that was done before, by a call whose answer was lost: since
    /// then operators may have put back what it wrote down. That counts as written. Where another batch is recorded nothing
    /// is written either, and it does not count: of a caller that waits for the answer to each settlement before it records
    /// the lane's next batch, only a copy that was long under way can meet a later record, and nobody waits for its answer.
    fn settle(
        pool: Pool<Self>,
        keep: bool,
        settlements: Vec<Settlement>,
    ) -> impl Future<Output = Result<Vec<i32>, Error>> + Send;

    /// Moves up to `limit` delayed events whose time has come into their lanes, in the order of their times. Says how
    /// many. Of several callers at once one does it.
    fn promote(pool: Pool<Self>, limit: u32) -> impl Future<Output = Result<u64, Error>> + Send;

    /// Forgets up to `limit` of the delivered events that were kept for longer than `age`. Says how many.
    fn forget(
        pool: Pool<Self>,
        age: Duration,
        limit: u32,
    ) -> impl Future<Output = Result<u64, Error>> + Send;
}

/// What operators look at. Reads only; nothing here waits for a lock.
pub trait Observe: Database {
    /// Counts, each up to `cap`. Its cost does not grow with the backlog. `lately` is the window of
    /// [`LagRow::died_lately`].
    fn lag(
        pool: Pool<Self>,
        cap: i64,
        lately: Duration,
    ) -> impl Future<Output = Result<LagRow, Error>> + Send;

    /// What the first `scan` rows of each lane hold, by topic, in the order of the topics.
    fn topics(
        pool: Pool<Self>,
        scan: i64,
    ) -> impl Future<Output = Result<Vec<TopicRow>, Error>> + Send;

    /// Every lane, in order; its rows are counted up to `cap`.
    fn lane_states(
        pool: Pool<Self>,
        cap: i64,
    ) -> impl Future<Output = Result<Vec<LaneRow>, Error>> + Send;

    /// Up to `limit` pending messages in order of their ids, of those among the first `scan` rows of each lane.
    fn peek(
        pool: Pool<Self>,
        select: Select,
        scan: i64,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<PendingRow>, Error>> + Send;

    /// Up to `limit` events whose time has not come, the next first.
    fn later(
        pool: Pool<Self>,
        select: Select,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<PendingRow>, Error>> + Send;

    /// Up to `limit` dead letters in order of their ids.
    fn dead(
        pool: Pool<Self>,
        select: Select,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<DeadRow>, Error>> + Send;

    /// How many dead letters there are, up to `cap`. With `in_front`, how many a redrive would move.
    fn count_dead(
        pool: Pool<Self>,
        select: Select,
        in_front: bool,
        cap: i64,
    ) -> impl Future<Output = Result<i64, Error>> + Send;

    /// How many kept deliveries there are, up to `cap`.
    fn count_delivered(
        pool: Pool<Self>,
        select: Select,
        cap: i64,
    ) -> impl Future<Output = Result<i64, Error>> + Send;

    /// The patterns that are paused, in order.
    fn paused(pool: Pool<Self>) -> impl Future<Output = Result<Vec<PauseRow>, Error>> + Send;

    /// What operators did, the newest first.
    fn audit(
        pool: Pool<Self>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<AuditRow>, Error>> + Send;

    /// Looks for what should not be there, each up to `cap`.
    fn inspect(
        pool: Pool<Self>,
        cap: i64,
    ) -> impl Future<Output = Result<Inspection, Error>> + Send;
}

/// What operators change, with an audit row in the same transaction.
///
/// A step first looks for what is meant, and holds nothing for that: it may mean to read a table to its end. Then it locks
/// the lanes of what it found, in order, and takes what of it is still there, by its keys and in a bounded time, so that no
/// settlement comes between and no relay waits for long. What changes runs in a task of its own.
pub trait Operate: Database {
    /// Moves dead letters back to where they were, in order, with no attempt spent, and raises their lanes' `rewinds`.
    ///
    /// A letter of a parked key goes only when none of the key before it (from the one that parked it on) stays. `above` is
    /// raised to the last that went; the key is parked no longer when its last letter went.
    fn redrive(pool: Pool<Self>, step: Step)
    -> impl Future<Output = Result<Stepped, Error>> + Send;

    /// Deletes dead letters in order. Keys without letters are parked no longer; those whose letters are by now merely
    /// parked are told in [`Stepped::freed`].
    fn discard(pool: Pool<Self>, step: Step)
    -> impl Future<Output = Result<Stepped, Error>> + Send;

    /// Moves kept deliveries back to where they were, in the order in which they were delivered, with no attempt spent, and
    /// raises their lanes' `rewinds`.
    fn replay(pool: Pool<Self>, step: Step) -> impl Future<Output = Result<Stepped, Error>> + Send;

    /// Pauses a pattern. Says whether it was not paused before.
    fn pause(
        pool: Pool<Self>,
        pattern: String,
        actor: String,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Resumes a pattern. Says whether it was paused.
    fn resume(
        pool: Pool<Self>,
        pattern: String,
        actor: String,
    ) -> impl Future<Output = Result<bool, Error>> + Send;
}

/// A duration in whole microseconds, as the stores bind it.
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// From what the stores tell of one: its id, its time, and what is left until then, in microseconds.
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub(crate) fn waiting(lane: i32, (id, retry_at, left): (i64, i64, i64)) -> Waiting {
    Waiting {
        lane,
        id,
        retry_at,
        left: Duration::from_micros(left.max(0).unsigned_abs()),
    }
}

/// Headers from their stored JSON list of pairs. A row somebody edited by hand is delivered without them, not never.
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub(crate) fn parse_headers(json: &str) -> Vec<(String, String)> {
    match serde_json::from_str::<Vec<(String, String)>>(json) {
        Ok(headers) => headers,
        Err(_) => {
            tracing::warn!(target: crate::TARGET, "stored headers are not a JSON list of pairs: ignored");
            Vec::new()
        }
    }
}
