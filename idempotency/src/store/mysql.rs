//! MySQL and MariaDB. A claim holds two named locks (`GET_LOCK`), of the request and of its key; the record is inserted
//! last, and its primary key has the last word. Everything runs at READ COMMITTED, where each plain read sees what has
//! committed by then and a missing row is not locked together with its neighbours.
//!
//! The key's row is not inserted first, because InnoDB answers a rollback of such a row by a deadlock to all but one of
//! those who wait for it.
//!
//! Named locks belong to the connection, not to the transaction. They are let go behind the COMMIT or ROLLBACK, in the
//! same round trip. Where neither is reached (a transaction that is dropped), the pool gets a connection back that still holds
//! them: the next transaction on it lets go of them first, and `wait_timeout`, which a claim shortens, makes the server
//! close the connection when none comes.

use std::time::Duration;

use sqlx::mysql::{MySqlConnection, MySqlDatabaseError};
use sqlx::{Connection, MySql, MySqlPool, Row, Transaction};

use super::{Claim, Claimed, IdempotencyDb, Inserted, Seen, lock};
use crate::{Error, ErrorKind, Fingerprint, Key, Recorded, Scope, Wait};

const MIGRATIONS: &[(i32, &str)] = &[
    (
        1,
        include_str!("../../migrations/mysql/0001_keys_and_inbox.sql"),
    ),
    (2, include_str!("../../migrations/mysql/0002_leases.sql")),
];

/// The savepoint is gone as soon as this transaction is, also when a deadlock, a DDL statement or the handler ended it
/// and another one was begun: `check_open` asks for it.
const BEGIN: &str = "do release_all_locks(); set transaction isolation level read committed; \
                     start transaction read write; savepoint mainstay_open";

/// The key's lock goes before the request's: whoever holds a key shows what for.
const COMMIT: &str = "commit; do release_lock(ifnull(@mainstay_key, 'mainstay')), release_lock(ifnull(@mainstay_request, 'mainstay')); \
                      set session wait_timeout = cast(ifnull(@mainstay_wait_timeout, @@session.wait_timeout) as unsigned)";
const ROLLBACK: &str = "rollback; do release_lock(ifnull(@mainstay_key, 'mainstay')), release_lock(ifnull(@mainstay_request, 'mainstay')); \
                        set session wait_timeout = cast(ifnull(@mainstay_wait_timeout, @@session.wait_timeout) as unsigned)";

/// How often another connection is asked for in the place of one that is to be thrown away, and how soon again: half a
/// minute, in a task by then.
const STAND_INS_MAX: u32 = 60;
const STAND_IN_PAUSE: Duration = Duration::from_millis(500);
/// How long a rollback waits behind a statement that was cut off, when there is nothing better.
const ROLLBACK_TIME_MAX: Duration = Duration::from_secs(30);

impl IdempotencyDb for MySql {
    async fn migrate(pool: &MySqlPool) -> Result<(), Error> {
        let mut conn = pool.acquire().await.map_err(error)?;
        let migrated = migrate(&mut conn).await;
        // Not back to the pool: with it goes the lock, on every path.
        _ = conn.close().await;
        migrated
    }

    async fn begin(pool: &MySqlPool) -> Result<Transaction<'static, MySql>, Error> {
        pool.begin_with(BEGIN).await.map_err(error)
    }

    async fn claim(
        tx: &mut Transaction<'static, MySql>,
        claim: &Claim,
        idle_max: Duration,
        wait: Wait,
    ) -> Result<Claimed, Error> {
        name_locks(tx, claim.request_lock(), claim.lock(), idle_max).await?;
        let mut held = lock_request_then_key(tx, Duration::ZERO).await?;
        if held == Held::Request && holder_stays(tx).await? {
            return read(tx, claim, Claimed::OtherInFlight).await;
        }
        if let Some(time) = wait.time()
            && held != Held::Both
        {
            held = lock_request_then_key(tx, time).await?;
        }
        match held {
            Held::Both => read(tx, claim, Claimed::Fresh { now_ms: 0 }).await,
            Held::Request | Held::Nothing => read(tx, claim, Claimed::InFlight).await,
        }
    }

    async fn record(
        tx: &mut Transaction<'static, MySql>,
        claim: &Claim,
        recorded: &Recorded,
    ) -> Result<Inserted, Error> {
        let headers = recorded
            .encode_headers()
            .map_err(|reason| Error::new(ErrorKind::Database, reason))?;
        // Outside the claim's transaction this insert would commit alone, and claim effects that are gone.
        Self::check_open(tx).await?;
        // Waits for a transaction that inserts the same key without the lock, then fails with 1062: the index decides.
        let inserted = sqlx::query(
            "insert into mainstay_key (scope, `key`, fingerprint, status, headers, body) values (?, ?, ?, ?, ?, ?)",
        )
        .bind(claim.scope.as_bytes())
        .bind(claim.key.as_bytes())
        .bind(claim.fingerprint.as_bytes())
        .bind(recorded.status)
        .bind(headers)
        .bind(&recorded.body[..])
        .execute(&mut **tx)
        .await;
        match inserted {
            Ok(_) => Ok(Inserted::Stored),
            Err(refused) if number_of(&refused) == Some(1062) => Ok(Inserted::Taken),
            Err(other) => Err(error(other)),
        }
    }

    async fn commit(mut tx: Transaction<'static, MySql>) -> Result<(), Error> {
        // sqlx counts the transaction still, and ends it again with its drop: in the same breath as the pool's ping.
        sqlx::raw_sql(COMMIT)
            .execute(&mut *tx)
            .await
            .map(|_| ())
            .map_err(not_committed)
    }

    async fn rollback(mut tx: Transaction<'static, MySql>) {
        if let Err(error) = sqlx::raw_sql(ROLLBACK).execute(&mut *tx).await {
            tracing::debug!(%error, "rollback failed");
        }
    }

    async fn rollback_cut_off(pool: &MySqlPool, mut tx: Transaction<'static, MySql>) {
        // What the server still answers to the dropped statement would be taken for the answer to the next one
        // (transact-rs/sqlx #563). The pool gives no connection out of its hands, so another one takes its place in it,
        // only to be killed: the pool throws that away, and opens the next one with its own hooks.
        let mut stand_in = None;
        for _ in 0..STAND_INS_MAX {
            stand_in = MySqlConnection::connect_with(&pool.connect_options())
                .await
                .ok();
            if stand_in.is_some() {
                break;
            }
            // A server that has no connection to give, just when statements take too long, may have one soon.
            tokio::time::sleep(STAND_IN_PAUSE).await;
        }
        let Some(mut stand_in) = stand_in else {
            // The cut off statement's answer may never come; then the server has lost the connection too, or will.
            _ = tokio::time::timeout(ROLLBACK_TIME_MAX, Self::rollback(tx)).await;
            return;
        };
        _ = sqlx::raw_sql("kill connection_id()")
            .execute(&mut stand_in)
            .await;
        let cut_off = std::mem::replace(&mut *tx, stand_in);
        // The server rolls back and lets go of the locks once it notices.
        _ = cut_off.close_hard().await;
    }

    async fn check_open(tx: &mut Transaction<'static, MySql>) -> Result<(), Error> {
        match sqlx::raw_sql("release savepoint mainstay_open; savepoint mainstay_open")
            .execute(&mut **tx)
            .await
        {
            Ok(_) => Ok(()),
            Err(gone) if number_of(&gone) == Some(1305) => {
                Err(Error::new(ErrorKind::TransactionEnded, gone))
            }
            Err(other) => Err(error(other)),
        }
    }

    async fn lookup(
        pool: &MySqlPool,
        scope: &Scope,
        key: &Key,
    ) -> Result<Option<(Fingerprint, Recorded)>, Error> {
        let row = sqlx::query("select fingerprint, cast(status as signed), headers, body from mainstay_key where scope = ? and `key` = ?")
            .bind(scope.as_bytes())
            .bind(key.as_bytes())
            .fetch_optional(pool)
            .await
            .map_err(error)?;
        row.as_ref().map_or(Ok(None), record_of)
    }

    async fn inbox_once(
        conn: &mut MySqlConnection,
        consumer: &[u8],
        message: &[u8],
    ) -> Result<Seen, Error> {
        // Not INSERT IGNORE, which turns other errors into warnings too. An insert sees what has committed at every
        // isolation level, and waits for a row in the making.
        let inserted = sqlx::query("insert into mainstay_inbox (consumer, message) values (?, ?)")
            .bind(consumer)
            .bind(message)
            .execute(conn)
            .await;
        match inserted {
            Ok(_) => Ok(Seen::First),
            Err(refused) if number_of(&refused) == Some(1062) => Ok(Seen::Duplicate),
            Err(other) => Err(error(other)),
        }
    }

    async fn inbox_try(
        conn: &mut MySqlConnection,
        consumer: &[u8],
        message: &[u8],
        idle_max: Duration,
    ) -> Result<Option<Seen>, Error> {
        let message_lock = lock(b"mainstay inbox 1\0", &[consumer, message]);
        name_locks(conn, message_lock, message_lock, idle_max).await?;
        // The same lock twice, which its holder may.
        if lock_request_then_key(conn, Duration::ZERO).await? != Held::Both {
            return Ok(None);
        }
        Self::inbox_once(conn, consumer, message).await.map(Some)
    }

    async fn reap(pool: &MySqlPool, older_than: Duration, batch_max: u32) -> Result<u64, Error> {
        let deleted = sqlx::query(
            "delete from mainstay_key where created_at < utc_timestamp(6) - interval ? second order by created_at limit ?",
        )
        .bind(interval_secs(older_than))
        .bind(batch_max)
        .execute(pool)
        .await
        .map_err(error)?;
        Ok(deleted.rows_affected())
    }

    async fn reap_inbox(
        pool: &MySqlPool,
        older_than: Duration,
        batch_max: u32,
    ) -> Result<u64, Error> {
        let deleted = sqlx::query(
            "delete from mainstay_inbox where created_at < utc_timestamp(6) - interval ? second order by created_at limit ?",
        )
        .bind(interval_secs(older_than))
        .bind(batch_max)
        .execute(pool)
        .await
        .map_err(error)?;
        Ok(deleted.rows_affected())
    }
}

/// One migrating process at a time. DDL commits by itself here, so each step is written to be repeated.
async fn migrate(conn: &mut MySqlConnection) -> Result<(), Error> {
    let locked: Option<i64> = sqlx::query_scalar(
        "select get_lock(sha2(concat('mainstay migrations ', ifnull(database(), '')), 256), 60)",
    )
    .fetch_one(&mut *conn)
    .await
    .map_err(error)?;
    if locked != Some(1) {
        return Err(ErrorKind::Busy.into());
    }
    sqlx::raw_sql(
        "create table if not exists mainstay_idempotency_migrations \
         (version int not null primary key, applied_at datetime(6) not null default (utc_timestamp(6))) engine = InnoDB",
    )
    .execute(&mut *conn)
    .await
    .map_err(error)?;
    let applied: Vec<i32> =
        sqlx::query_scalar("select version from mainstay_idempotency_migrations")
            .fetch_all(&mut *conn)
            .await
            .map_err(error)?;
    for (version, sql) in MIGRATIONS
        .iter()
        .filter(|(version, _)| !applied.contains(version))
    {
        sqlx::raw_sql(*sql)
            .execute(&mut *conn)
            .await
            .map_err(error)?;
        sqlx::query("insert into mainstay_idempotency_migrations (version) values (?)")
            .bind(version)
            .execute(&mut *conn)
            .await
            .map_err(error)?;
    }
    Ok(())
}

/// Which of a claim's two locks this connection has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Both,
    Request,
    Nothing,
}

/// Remembers the names of the two locks in the session, for those who let go of them. Names are the server's, not the
/// database's, so the database is part of them.
async fn name_locks(
    conn: &mut MySqlConnection,
    request: i64,
    key: i64,
    idle_max: Duration,
) -> Result<(), Error> {
    sqlx::query(
        "set @mainstay_request = sha2(concat(?, ifnull(database(), '')), 256), @mainstay_key = sha2(concat(?, ifnull(database(), '')), 256), \
         @mainstay_wait_timeout = ifnull(@mainstay_wait_timeout, @@session.wait_timeout), session wait_timeout = ?",
    )
    .bind(format!("{request:016x}"))
    .bind(format!("{key:016x}"))
    .bind(setting_secs(idle_max))
    .execute(conn)
    .await
    .map(|_| ())
    .map_err(error)
}

/// For a transaction that holds rows and no named locks: `wait_timeout` alone, put back by COMMIT and ROLLBACK.
pub(crate) async fn limit_idle(
    conn: &mut MySqlConnection,
    idle_max: Duration,
) -> Result<(), Error> {
    sqlx::query(
        "set @mainstay_wait_timeout = ifnull(@mainstay_wait_timeout, @@session.wait_timeout), session wait_timeout = ?",
    )
    .bind(setting_secs(idle_max))
    .execute(conn)
    .await
    .map(|_| ())
    .map_err(error)
}

/// Always in this order, so nobody waits in a circle.
async fn lock_request_then_key(conn: &mut MySqlConnection, time: Duration) -> Result<Held, Error> {
    let held: Option<i64> = sqlx::query_scalar(
        "select case when get_lock(@mainstay_request, ?) = 1 then get_lock(@mainstay_key, ?) = 1 end",
    )
    .bind(time.as_secs_f64())
    .bind(time.as_secs_f64())
    .fetch_one(conn)
    .await
    .map_err(error)?;
    Ok(match held {
        Some(1) => Held::Both,
        Some(_) => Held::Request,
        None => Held::Nothing,
    })
}

/// Whether the key's lock is held by one and the same connection at two moments, while the request's is ours: then it
/// is held for another request. Caught while it lets go of its locks one by one, it would not be there the second time.
async fn holder_stays(conn: &mut MySqlConnection) -> Result<bool, Error> {
    let mut holders = [None; 2];
    for holder in &mut holders {
        *holder = sqlx::query_scalar::<_, Option<i64>>(
            "select cast(is_used_lock(@mainstay_key) as signed)",
        )
        .fetch_one(&mut *conn)
        .await
        .map_err(error)?;
    }
    let [before, after] = holders;
    Ok(before.is_some() && before == after)
}

/// The record, else what the locks say.
async fn read(
    tx: &mut Transaction<'static, MySql>,
    claim: &Claim,
    otherwise: Claimed,
) -> Result<Claimed, Error> {
    // A statement of its own after the locks, and not a locking one: those who replay must not be in each other's way.
    // At READ COMMITTED it sees what the lock's last holder committed before letting go.
    let row = sqlx::query(
        "select k.fingerprint, cast(k.status as signed), k.headers, k.body, cast(unix_timestamp(now(6)) * 1000 as signed) \
         from (select 1) one left join mainstay_key k on k.scope = ? and k.`key` = ?",
    )
    .bind(claim.scope.as_bytes())
    .bind(claim.key.as_bytes())
    .fetch_one(&mut **tx)
    .await
    .map_err(error)?;
    match (record_of(&row)?, otherwise) {
        (Some((fingerprint, recorded)), _) => Ok(Claimed::Recorded {
            fingerprint,
            recorded,
        }),
        (None, Claimed::Fresh { .. }) => {
            let now_ms: i64 = row.try_get(4).map_err(error)?;
            Ok(Claimed::Fresh {
                now_ms: now_ms.try_into().unwrap_or(0),
            })
        }
        (None, otherwise) => Ok(otherwise),
    }
}

/// Whole seconds, at least one: as `wait_timeout` takes it, up to its largest.
fn setting_secs(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_add(u64::from(duration.subsec_nanos() > 0))
        .clamp(1, 2_147_483)
}

/// At most a hundred years: dates, and times before now, have an end.
fn interval_secs(duration: Duration) -> f64 {
    duration.as_secs_f64().min(100.0 * 365.0 * 86_400.0)
}

fn record_of(row: &sqlx::mysql::MySqlRow) -> Result<Option<(Fingerprint, Recorded)>, Error> {
    let Some(fingerprint) = row.try_get::<Option<&[u8]>, _>(0).map_err(error)? else {
        return Ok(None);
    };
    let fingerprint = Fingerprint::from_bytes(fingerprint).ok_or(ErrorKind::Corrupt)?;
    let (status, headers, body) = (
        row.try_get(1).map_err(error)?,
        row.try_get::<&[u8], _>(2).map_err(error)?,
        row.try_get(3).map_err(error)?,
    );
    let recorded = Recorded::decode(status, headers, body)
        .map_err(|reason| Error::new(ErrorKind::Corrupt, reason))?;
    Ok(Some((fingerprint, recorded)))
}

pub(crate) fn number_of(error: &sqlx::Error) -> Option<u16> {
    let refused = error
        .as_database_error()?
        .try_downcast_ref::<MySqlDatabaseError>()?;
    Some(refused.number())
}

pub(crate) fn error(error: sqlx::Error) -> Error {
    let kind = match &error {
        sqlx::Error::Database(_) => number_of(&error).map_or(ErrorKind::Database, kind_of),
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => ErrorKind::Unavailable,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => ErrorKind::Corrupt,
        _ => ErrorKind::Database,
    };
    Error::new(kind, error)
}

fn kind_of(number: u16) -> ErrorKind {
    match number {
        // Lock wait timeout, deadlock (of rows, of named locks), statement interrupted or out of time.
        1205 | 1213 | 3058 | 3572 | 1317 | 1969 | 3024 => ErrorKind::Busy,
        // Too many connections (of the server, of the user), shutdown, killed or idle too long, read-only.
        1040 | 1203 | 1226 | 1053 | 1927 | 4031 | 1290 | 1792 | 1836 => ErrorKind::Unavailable,
        _ => ErrorKind::Database,
    }
}

/// A deadlock that only the commit finds (certification in a cluster) is the one refusal there is. Whatever else answers
/// a COMMIT does not say on which side of it the server was.
fn not_committed(lost: sqlx::Error) -> Error {
    if number_of(&lost) == Some(1213) {
        error(lost)
    } else {
        Error::new(ErrorKind::Unavailable, lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_told_apart_from_what_does_not() {
        for (number, kind) in [
            (1213, ErrorKind::Busy),
            (1205, ErrorKind::Busy),
            (1040, ErrorKind::Unavailable),
            (1927, ErrorKind::Unavailable),
            (1290, ErrorKind::Unavailable),
            (1146, ErrorKind::Database),
            (1062, ErrorKind::Database),
        ] {
            assert_eq!(kind_of(number), kind, "{number}");
        }
    }

    #[test]
    fn a_timeout_is_whole_seconds_and_never_none() {
        for (duration, seconds) in [
            (Duration::ZERO, 1),
            (Duration::from_millis(1), 1),
            (Duration::from_millis(1001), 2),
            (Duration::MAX, 2_147_483),
        ] {
            assert_eq!(setting_secs(duration), seconds, "{duration:?}");
        }
    }
}
