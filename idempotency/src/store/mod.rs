//! What the protocol asks of a database. One file per database spells the SQL out; the `conformance` feature holds the
//! suite that all of them pass.

#[cfg(feature = "mysql")]
pub(crate) mod mysql;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

use std::future::Future;
use std::time::Duration;

use sha2::{Digest, Sha256};
use sqlx::{Database, Pool, Transaction};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::key::SKEW_MAX;
use crate::scope::update_with_length;
use crate::{Error, ErrorKind, Fingerprint, Key, Recorded, Scope, Wait};

/// Longest consumer name of the inbox, in bytes.
pub const CONSUMER_BYTES_MAX: usize = 255;
/// Longest message id of the inbox, in bytes. Both together stay well inside an index entry.
pub const MESSAGE_BYTES_MAX: usize = 1024;

/// How long a request waits for its own rollback before it is answered.
const ROLLBACK_PATIENCE: Duration = Duration::from_secs(1);

/// What one request claims: its key in its scope, for this request and no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Whose key.
    pub scope: Scope,
    /// Which key.
    pub key: Key,
    /// For what.
    pub fingerprint: Fingerprint,
}

impl Claim {
    /// 64 bits naming the key in its scope, for advisory locks. Two keys that share it only look in flight to each
    /// other; the unique index decides.
    pub fn lock(&self) -> i64 {
        lock(
            b"mainstay key 1\0",
            &[self.scope.as_bytes(), self.key.as_bytes()],
        )
    }

    /// 64 bits naming the key and what it was claimed for.
    pub fn request_lock(&self) -> i64 {
        lock(
            b"mainstay request 1\0",
            &[
                self.scope.as_bytes(),
                self.key.as_bytes(),
                self.fingerprint.as_bytes(),
            ],
        )
    }
}

pub(crate) fn lock(domain: &[u8], parts: &[&[u8]]) -> i64 {
    let mut hash = Sha256::new();
    hash.update(domain);
    for part in parts {
        update_with_length(&mut hash, part);
    }
    let digest: [u8; 32] = hash.finalize().into();
    digest
        .first_chunk::<8>()
        .map_or(0, |bytes| i64::from_be_bytes(*bytes))
}

/// What a claim found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// Nothing: the key is this transaction's until it ends. `now_ms` is the database's clock, since 1970.
    Fresh {
        /// Milliseconds since 1970.
        now_ms: u64,
    },
    /// A committed record, of this request or of another one under the same key.
    Recorded {
        /// Of the request that ran.
        fingerprint: Fingerprint,
        /// Its answer.
        recorded: Recorded,
    },
    /// Another transaction holds the key, for this request as far as is known.
    InFlight,
    /// Another transaction holds the key for a different request.
    OtherInFlight,
}

/// What became of writing a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// Written, and committed with the transaction.
    Stored,
    /// Another transaction committed this key meanwhile: roll back and read its record.
    Taken,
}

/// Whether the inbox has met a message before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a duplicate must not be applied"]
pub enum Seen {
    /// Never: apply it in this transaction.
    First,
    /// Already applied: acknowledge it and do nothing.
    Duplicate,
}

/// A database that keeps keys and inbox rows. Implemented for [`sqlx::Postgres`], [`sqlx::MySql`] (MySQL and MariaDB) and
/// [`sqlx::Sqlite`].
///
/// None of these futures is cancel-safe: [`begin`](Self::begin) may leave an open transaction on a pooled connection when
/// dropped (sqlx 0.9, Postgres). The layer and the webhook receiver run them in spawned tasks; so must other callers.
/// [`record`](Self::record), [`claim_and_record`](Self::claim_and_record) and [`check_open`](Self::check_open) may be dropped when
/// they take too long, if [`rollback_cut_off`](Self::rollback_cut_off) follows.
pub trait IdempotencyDb: Database {
    /// Creates and updates the tables. Several processes may do so at once.
    fn migrate(pool: &Pool<Self>) -> impl Future<Output = Result<(), Error>> + Send;

    /// Begins a read-write transaction in which a claim sees what committed before it: `READ COMMITTED` on Postgres and
    /// MySQL, `BEGIN IMMEDIATE` on SQLite.
    fn begin(
        pool: &Pool<Self>,
    ) -> impl Future<Output = Result<Transaction<'static, Self>, Error>> + Send;

    /// [Begins](Self::begin) and [claims](Self::claim), in as few round trips as the database allows. A transaction is
    /// returned with [`Claimed::Fresh`]; what comes with other findings is to be rolled back.
    fn begin_claim(
        pool: &Pool<Self>,
        claim: &Claim,
        idle_max: Duration,
        wait: Wait,
    ) -> impl Future<Output = Result<(Option<Transaction<'static, Self>>, Claimed), Error>> + Send
    {
        async move {
            let mut tx = Self::begin(pool).await?;
            match Self::claim(&mut tx, claim, idle_max, wait).await {
                Ok(claimed) => Ok((Some(tx), claimed)),
                Err(error) => {
                    Self::rollback(tx).await;
                    Err(error)
                }
            }
        }
    }

    /// Claims the key until the transaction ends. Another holder is waited for as `wait` says, by a lock of the database
    /// and not by asking again; a holder that is seen to run a different request is not waited for.
    ///
    /// After [`Claimed::InFlight`] the transaction may be good for a rollback only.
    ///
    /// `idle_max` bounds, on the server where the database can, how long the transaction may sit without a statement:
    /// the holder may have vanished without a word.
    fn claim(
        tx: &mut Transaction<'static, Self>,
        claim: &Claim,
        idle_max: Duration,
        wait: Wait,
    ) -> impl Future<Output = Result<Claimed, Error>> + Send;

    /// Writes the record of a key that this transaction has claimed. The unique index has the last word.
    ///
    /// Fails with [`ErrorKind::TransactionEnded`] when the transaction of the claim is over: a record without its
    /// effects would be a lie.
    fn record(
        tx: &mut Transaction<'static, Self>,
        claim: &Claim,
        recorded: &Recorded,
    ) -> impl Future<Output = Result<Inserted, Error>> + Send;

    /// Begins a transaction that claims its key no sooner than [`claim_and_record`](Self::claim_and_record): nothing is looked
    /// up. On Postgres, where the layer can do this, `idle_max` bounds it as in [`claim`](Self::claim); by default nothing does.
    fn begin_unclaimed(
        pool: &Pool<Self>,
        claim: &Claim,
        idle_max: Duration,
    ) -> impl Future<Output = Result<Transaction<'static, Self>, Error>> + Send {
        _ = (claim, idle_max);
        Self::begin(pool)
    }

    /// Claims the key, waiting for whoever holds it, and writes its record: in one round trip where the database can. With it
    /// comes the time of the database's clock, in milliseconds since 1970; it means nothing where the key has a record already.
    ///
    /// The claim is held until the transaction ends, as any other is, so that a commit that goes unanswered can be looked up.
    ///
    /// Fails with [`ErrorKind::Busy`] where the database ends the wait for the holder (on Postgres by `lock_timeout`, or to resolve a
    /// deadlock; by default after `idle_max`), and with [`ErrorKind::TransactionEnded`] as [`record`](Self::record) does.
    fn claim_and_record(
        tx: &mut Transaction<'static, Self>,
        claim: &Claim,
        recorded: &Recorded,
        idle_max: Duration,
    ) -> impl Future<Output = Result<(Inserted, u64), Error>> + Send {
        async move {
            Self::check_open(tx).await?;
            match Self::claim(tx, claim, idle_max, Wait::Up(idle_max)).await? {
                Claimed::Fresh { now_ms } => Ok((Self::record(tx, claim, recorded).await?, now_ms)),
                Claimed::Recorded { .. } => Ok((Inserted::Taken, 0)),
                Claimed::InFlight | Claimed::OtherInFlight => Err(ErrorKind::Busy.into()),
            }
        }
    }

    /// Commits. [`ErrorKind::Unavailable`] leaves open whether it did; any other kind is the database's word that
    /// nothing was committed.
    fn commit(tx: Transaction<'static, Self>) -> impl Future<Output = Result<(), Error>> + Send;

    /// Rolls `tx` back, whatever state it is in, and leaves a connection that the pool may use again. An error on the
    /// way is of no use to anybody: a broken connection is thrown away by the pool and rolled back by the database.
    ///
    /// On MySQL a claim's locks belong to the connection, and only this and [`commit`](Self::commit) let go of them:
    /// after a mere drop of the transaction the key stays in flight until its connection is used again, or for `idle_max`.
    fn rollback(tx: Transaction<'static, Self>) -> impl Future<Output = ()> + Send;

    /// As [`rollback`](Self::rollback), when a statement of `tx` may have been dropped half way: by a handler that ran out
    /// of time, or panicked. sqlx's connections to MySQL do not survive that, and are thrown away.
    fn rollback_cut_off(
        pool: &Pool<Self>,
        tx: Transaction<'static, Self>,
    ) -> impl Future<Output = ()> + Send {
        _ = pool;
        Self::rollback(tx)
    }

    /// Fails with [`ErrorKind::TransactionEnded`] when a commit of `tx` would commit nothing: a statement failed and
    /// aborted it, or it was ended behind sqlx's back.
    fn check_open(
        tx: &mut Transaction<'static, Self>,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Reads a committed record without claiming or waiting.
    fn lookup(
        pool: &Pool<Self>,
        scope: &Scope,
        key: &Key,
    ) -> impl Future<Output = Result<Option<(Fingerprint, Recorded)>, Error>> + Send;

    /// Notes a message in the caller's transaction, waiting for a transaction that is noting the same one.
    fn inbox_once(
        conn: &mut Self::Connection,
        consumer: &[u8],
        message: &[u8],
    ) -> impl Future<Output = Result<Seen, Error>> + Send;

    /// Notes a message in the caller's transaction, or answers `None` at once when another one is noting it.
    ///
    /// `idle_max` bounds the transaction as it does for [`claim`](Self::claim).
    fn inbox_try(
        conn: &mut Self::Connection,
        consumer: &[u8],
        message: &[u8],
        idle_max: Duration,
    ) -> impl Future<Output = Result<Option<Seen>, Error>> + Send;

    /// Deletes at most `batch_max` records that are older than `older_than` by the database's clock. Keys in flight
    /// have no committed row and cannot be deleted. A database that keeps days apart leaves their records to
    /// [`empty_days`](Self::empty_days) for two days more.
    fn reap(
        pool: &Pool<Self>,
        older_than: Duration,
        batch_max: u32,
    ) -> impl Future<Output = Result<u64, Error>> + Send;

    /// Empties the days whose records are all older than `older_than`, where the database keeps days apart, and says how
    /// many. Others have none.
    ///
    /// A day that somebody else is using is left for the next time.
    fn empty_days(
        pool: &Pool<Self>,
        older_than: Duration,
    ) -> impl Future<Output = Result<u64, Error>> + Send {
        _ = (pool, older_than);
        std::future::ready(Ok(0))
    }

    /// As [`reap`](Self::reap), for the inbox.
    fn reap_inbox(
        pool: &Pool<Self>,
        older_than: Duration,
        batch_max: u32,
    ) -> impl Future<Output = Result<u64, Error>> + Send;
}

/// Creates and updates this crate's tables in the database of `pool`.
///
/// The bookkeeping table is `mainstay_idempotency_migrations`: your own sqlx migrations are not touched. On Postgres the
/// tables go where the connection's `search_path` points. The role needs the right to create tables, and owns them: a later
/// migration, by the same role, inherits from them.
///
/// A service that runs as another role needs SELECT, INSERT, UPDATE and DELETE on all of the tables; on Postgres that is
/// `mainstay_key` and each of `mainstay_key_day_00` to `mainstay_key_day_15` (a claim of a key with a time of its own reads and
/// writes its day by name), `mainstay_lease` and `mainstay_inbox`, or `on all tables in schema` after this. TRUNCATE on the days lets [`empty_days`] empty
/// them. What was granted on `mainstay_key` when the days came is granted on them; what is granted later is not.
///
/// # Errors
/// [`ErrorKind::Unavailable`] and [`ErrorKind::Database`]. All of a run's steps commit together or not
/// at all; on MySQL, where each commits by itself, a run that was cut off is taken up by the next one.
///
/// # Cancel safety
/// Runs in a task of its own: a dropped future does not stop it, and a second call is harmless.
pub async fn migrate<D: IdempotencyDb>(pool: &Pool<D>) -> Result<(), Error> {
    let pool = pool.clone();
    in_task(async move { D::migrate(&pool).await }).await
}

/// Deletes at most `batch_max` records older than `older_than`, and says how many: call it again while it is `batch_max`.
///
/// `older_than` must not be shorter than the layer's retention. Records stay five minutes longer than that, because a
/// key may be made by a clock that much ahead and is refused for its age only that much later. One statement per call,
/// so locks are short and the work can be spread.
///
/// On Postgres, records of keys that carry their own time (UUID version 7) stand in tables by day, and are left to
/// [`empty_days`] for two days more. A DELETE of your own on `mainstay_key` passes those over, with a notice, unless its
/// transaction has said `set local mainstay.reap = 'on'`: the reaper of a process from before migration 4 would find young rows.
///
/// # Errors
/// [`ErrorKind::Unavailable`], [`ErrorKind::Busy`] and [`ErrorKind::Database`].
///
/// # Cancel safety
/// Runs in a task of its own: a dropped future does not stop it.
pub async fn reap<D: IdempotencyDb>(
    pool: &Pool<D>,
    older_than: Duration,
    batch_max: u32,
) -> Result<u64, Error> {
    let (pool, older_than) = (pool.clone(), older_than.saturating_add(SKEW_MAX));
    in_task(async move { D::reap(&pool, older_than, batch_max).await }).await
}

/// Empties the days whose records are all older than `older_than`, and says how many: on Postgres, where records of keys
/// that carry their own time stand in tables by day. Nothing on other databases.
///
/// A day goes by TRUNCATE, which costs neither a scan nor a log entry per row. Its lock concerns that day's keys only,
/// and is waited for, and makes others wait, for 50 ms at most: a day that is in use, by a backup perhaps, is left for the
/// next call. A role without the right to TRUNCATE empties nothing; [`reap`] deletes its rows then. `older_than` as for
/// [`reap`]: for more than a week, days may share a table, and [`reap`] does what this cannot.
///
/// # Errors
/// As [`reap`].
///
/// # Cancel safety
/// As [`reap`].
pub async fn empty_days<D: IdempotencyDb>(
    pool: &Pool<D>,
    older_than: Duration,
) -> Result<u64, Error> {
    let (pool, older_than) = (pool.clone(), older_than.saturating_add(SKEW_MAX));
    in_task(async move { D::empty_days(&pool, older_than).await }).await
}

/// As [`reap`], for the inbox. `older_than` must be longer than a source keeps redelivering: see
/// [`INBOX_RETENTION`](crate::INBOX_RETENTION).
///
/// # Errors
/// As [`reap`].
///
/// # Cancel safety
/// As [`reap`].
pub async fn reap_inbox<D: IdempotencyDb>(
    pool: &Pool<D>,
    older_than: Duration,
    batch_max: u32,
) -> Result<u64, Error> {
    let pool = pool.clone();
    in_task(async move { D::reap_inbox(&pool, older_than, batch_max).await }).await
}

/// Awaits database work for `time` at most: a network may swallow an answer, and nobody says so. What is not done by
/// then goes on in a task, because it must not be dropped half way. On the usual path there is no task.
pub(crate) async fn within<T: Send + 'static>(
    tracker: &TaskTracker,
    time: Duration,
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    let mut work = Box::pin(work);
    match timeout(time, &mut work).await {
        Ok(done) => done,
        Err(_elapsed) => {
            tracker.spawn(work);
            Err(Error::new(
                ErrorKind::Unavailable,
                "the database did not answer in time",
            ))
        }
    }
}

/// Rolls `tx` back, and waits a moment for it: usually the key is free then.
pub(crate) async fn roll_back<D: IdempotencyDb>(
    tracker: &TaskTracker,
    tx: Transaction<'static, D>,
) {
    let rollback = async move {
        D::rollback(tx).await;
        Ok(())
    };
    // A statement may still be running on the server, for longer than anybody wants to wait for its rollback.
    _ = within(tracker, ROLLBACK_PATIENCE, rollback).await;
}

/// As [`roll_back`], when a statement of `tx` may have been dropped half way.
pub(crate) async fn roll_back_cut_off<D: IdempotencyDb>(
    tracker: &TaskTracker,
    pool: &Pool<D>,
    tx: Transaction<'static, D>,
) {
    let pool = pool.clone();
    let rollback = async move {
        D::rollback_cut_off(&pool, tx).await;
        Ok(())
    };
    _ = within(tracker, ROLLBACK_PATIENCE, rollback).await;
}

/// Runs database work where a dropped future cannot stop it half way.
pub(crate) async fn in_task<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) => Err(Error::new(ErrorKind::Unavailable, error)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_is_given_up_goes_on_to_its_end() {
        let tracker = TaskTracker::new();
        let (answer, answered) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel::<()>();
        let work = async move {
            _ = answered.await;
            _ = end.send(());
            Ok(())
        };
        let given_up = within(&tracker, Duration::from_secs(5), work).await;
        assert_eq!(given_up.unwrap_err().kind(), ErrorKind::Unavailable);
        answer.send(()).unwrap();
        ended.await.unwrap();
        tracker.close();
        tracker.wait().await;
    }
}
