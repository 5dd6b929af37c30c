//! SQLite. One writer at a time: `BEGIN IMMEDIATE` takes that place before the claim reads, so a claim never meets
//! another holder; it waits for it (the connection's `busy_timeout`) or gives up with [`ErrorKind::Busy`].

use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Row, Sqlite, SqlitePool, Transaction};

use super::{Claim, Claimed, IdempotencyDb, Inserted, Seen};
use crate::{Error, ErrorKind, Fingerprint, Key, Recorded, Scope, Wait};

const MIGRATIONS: &[(i32, &str)] = &[
    (
        1,
        include_str!("../../migrations/sqlite/0001_keys_and_inbox.sql"),
    ),
    (2, include_str!("../../migrations/sqlite/0002_leases.sql")),
];

/// A deferred transaction that reads before it writes fails with `SQLITE_BUSY_SNAPSHOT` at once, whatever the timeout.
const BEGIN: &str = "begin immediate";

impl IdempotencyDb for Sqlite {
    async fn migrate(pool: &SqlitePool) -> Result<(), Error> {
        // One migrating process at a time: the writer's place is the lock.
        let mut tx = pool.begin_with(BEGIN).await.map_err(error)?;
        sqlx::query(
            "create table if not exists mainstay_idempotency_migrations \
             (version integer primary key, applied_at integer not null default (cast(unixepoch('subsec') * 1000 as integer))) strict",
        )
        .execute(&mut *tx)
        .await
        .map_err(error)?;
        let applied: Vec<i32> =
            sqlx::query_scalar("select version from mainstay_idempotency_migrations")
                .fetch_all(&mut *tx)
                .await
                .map_err(error)?;
        for (version, sql) in MIGRATIONS
            .iter()
            .filter(|(version, _)| !applied.contains(version))
        {
            sqlx::raw_sql(*sql).execute(&mut *tx).await.map_err(error)?;
            sqlx::query("insert into mainstay_idempotency_migrations (version) values ($1)")
                .bind(version)
                .execute(&mut *tx)
                .await
                .map_err(error)?;
        }
        tx.commit().await.map_err(error)
    }

    async fn begin(pool: &SqlitePool) -> Result<Transaction<'static, Sqlite>, Error> {
        pool.begin_with(BEGIN).await.map_err(error)
    }

    async fn claim(
        tx: &mut Transaction<'static, Sqlite>,
        claim: &Claim,
        _idle_max: Duration,
        _wait: Wait,
    ) -> Result<Claimed, Error> {
        // There is no server that could outlive this process, so nothing to bound there. And there is nobody to wait
        // for: BEGIN IMMEDIATE has waited.
        let row = sqlx::query(
            "select k.fingerprint, k.status, k.headers, k.body, cast(unixepoch('subsec') * 1000 as integer) \
             from (select 1) one left join mainstay_key k on k.scope = $1 and k.key = $2",
        )
        .bind(claim.scope.as_bytes())
        .bind(claim.key.as_bytes())
        .fetch_one(&mut **tx)
        .await
        .map_err(error)?;
        match record_of(&row)? {
            Some((fingerprint, recorded)) => Ok(Claimed::Recorded {
                fingerprint,
                recorded,
            }),
            None => {
                let now_ms: i64 = row.try_get(4).map_err(error)?;
                Ok(Claimed::Fresh {
                    now_ms: now_ms.try_into().unwrap_or(0),
                })
            }
        }
    }

    async fn record(
        tx: &mut Transaction<'static, Sqlite>,
        claim: &Claim,
        recorded: &Recorded,
    ) -> Result<Inserted, Error> {
        let headers = recorded
            .encode_headers()
            .map_err(|reason| Error::new(ErrorKind::Database, reason))?;
        // `INSERT OR ROLLBACK` or a full disk may have ended the transaction under the handler: outside it this insert
        // would commit alone, and claim effects that are gone.
        Self::check_open(tx).await?;
        let inserted = sqlx::query(
            "insert into mainstay_key (scope, key, fingerprint, status, headers, body) values ($1, $2, $3, $4, $5, $6)",
        )
        .bind(claim.scope.as_bytes())
        .bind(claim.key.as_bytes())
        .bind(claim.fingerprint.as_bytes())
        .bind(i64::from(recorded.status))
        .bind(headers)
        .bind(&recorded.body[..])
        .execute(&mut **tx)
        .await;
        match inserted {
            Ok(_) => Ok(Inserted::Stored),
            Err(sqlx::Error::Database(refused)) if refused.is_unique_violation() => {
                Ok(Inserted::Taken)
            }
            Err(other) => Err(error(other)),
        }
    }

    async fn commit(tx: Transaction<'static, Sqlite>) -> Result<(), Error> {
        tx.commit().await.map_err(|lost| {
            // 5 and 19 in the low byte: a reader is in the way, a deferred constraint does not hold. Both leave the
            // transaction open, to be rolled back by its drop. An error of the disk may have come too late for that.
            let refused = primary_code(&lost).is_some_and(|code| matches!(code, 5 | 19));
            if refused {
                error(lost)
            } else {
                Error::new(ErrorKind::Unavailable, lost)
            }
        })
    }

    async fn rollback(mut tx: Transaction<'static, Sqlite>) {
        // sqlx counts a transaction until a ROLLBACK succeeds. If SQLite ended it by itself, none would, and the pooled
        // connection could never begin again: the check leaves one to be ended.
        _ = Self::check_open(&mut tx).await;
        if let Err(error) = tx.rollback().await {
            tracing::debug!(%error, "rollback failed");
        }
    }

    async fn check_open(tx: &mut Transaction<'static, Sqlite>) -> Result<(), Error> {
        // No statement asks SQLite whether it is in a transaction, but BEGIN within one is refused and changes nothing.
        // Where it is not refused, the transaction it began stands in for the one that sqlx still counts.
        match sqlx::query("begin").execute(&mut **tx).await {
            Err(sqlx::Error::Database(_)) => Ok(()),
            Err(other) => Err(error(other)),
            Ok(_) => Err(ErrorKind::TransactionEnded.into()),
        }
    }

    async fn lookup(
        pool: &SqlitePool,
        scope: &Scope,
        key: &Key,
    ) -> Result<Option<(Fingerprint, Recorded)>, Error> {
        let row = sqlx::query("select fingerprint, status, headers, body from mainstay_key where scope = $1 and key = $2")
            .bind(scope.as_bytes())
            .bind(key.as_bytes())
            .fetch_optional(pool)
            .await
            .map_err(error)?;
        row.as_ref().map_or(Ok(None), record_of)
    }

    async fn inbox_once(
        conn: &mut SqliteConnection,
        consumer: &[u8],
        message: &[u8],
    ) -> Result<Seen, Error> {
        let inserted = sqlx::query(
            "insert into mainstay_inbox (consumer, message) values ($1, $2) on conflict do nothing",
        )
        .bind(consumer)
        .bind(message)
        .execute(conn)
        .await
        .map_err(error)?;
        Ok(if inserted.rows_affected() == 1 {
            Seen::First
        } else {
            Seen::Duplicate
        })
    }

    async fn inbox_try(
        conn: &mut SqliteConnection,
        consumer: &[u8],
        message: &[u8],
        _idle_max: Duration,
    ) -> Result<Option<Seen>, Error> {
        // Inside BEGIN IMMEDIATE nobody else can be noting anything.
        Self::inbox_once(conn, consumer, message).await.map(Some)
    }

    async fn reap(pool: &SqlitePool, older_than: Duration, batch_max: u32) -> Result<u64, Error> {
        let deleted = sqlx::query(
            "delete from mainstay_key where rowid in (select rowid from mainstay_key \
             where created_at < cast(unixepoch('subsec') * 1000 as integer) - $1 limit $2)",
        )
        .bind(i64::try_from(older_than.as_millis()).unwrap_or(i64::MAX))
        .bind(i64::from(batch_max))
        .execute(pool)
        .await
        .map_err(error)?;
        Ok(deleted.rows_affected())
    }

    async fn reap_inbox(
        pool: &SqlitePool,
        older_than: Duration,
        batch_max: u32,
    ) -> Result<u64, Error> {
        let deleted = sqlx::query(
            "delete from mainstay_inbox where rowid in (select rowid from mainstay_inbox \
             where created_at < cast(unixepoch('subsec') * 1000 as integer) - $1 limit $2)",
        )
        .bind(i64::try_from(older_than.as_millis()).unwrap_or(i64::MAX))
        .bind(i64::from(batch_max))
        .execute(pool)
        .await
        .map_err(error)?;
        Ok(deleted.rows_affected())
    }
}

fn record_of(row: &sqlx::sqlite::SqliteRow) -> Result<Option<(Fingerprint, Recorded)>, Error> {
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

/// Extended codes keep the primary one in their low byte.
fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let code = error.as_database_error()?.code()?;
    Some(code.parse::<u32>().ok()? & 0xff)
}

pub(crate) fn error(error: sqlx::Error) -> Error {
    let kind = match &error {
        // SQLITE_BUSY and SQLITE_LOCKED.
        sqlx::Error::Database(_) => match primary_code(&error) {
            Some(5 | 6) => ErrorKind::Busy,
            _ => ErrorKind::Database,
        },
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => ErrorKind::Unavailable,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => ErrorKind::Corrupt,
        _ => ErrorKind::Database,
    };
    Error::new(kind, error)
}
