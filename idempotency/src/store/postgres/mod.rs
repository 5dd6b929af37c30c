//! Postgres. Everything runs at READ COMMITTED: a claim must see what committed after its transaction began.

mod claim;
mod days;
mod error;

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{PgPool, Postgres, Row, Transaction};

pub(crate) use self::error::error;
use self::error::{not_begun, not_committed};
use super::{Claim, Claimed, IdempotencyDb, Inserted, Seen, lock};
use crate::{Error, ErrorKind, Fingerprint, Key, Recorded, Scope, Wait};

const MIGRATIONS: &[(i32, &str)] = &[
    (
        1,
        include_str!("../../../migrations/postgres/0001_keys_and_inbox.sql"),
    ),
    (
        2,
        include_str!("../../../migrations/postgres/0002_leases.sql"),
    ),
    (
        3,
        include_str!("../../../migrations/postgres/0003_claim.sql"),
    ),
    (
        4,
        include_str!("../../../migrations/postgres/0004_days.sql"),
    ),
    (
        5,
        include_str!("../../../migrations/postgres/0005_claim_last.sql"),
    ),
];

/// `READ WRITE` refuses a standby: its snapshot may lack the record that the primary has.
const BEGIN: &str = "begin isolation level read committed read write";

impl IdempotencyDb for Postgres {
    async fn migrate(pool: &PgPool) -> Result<(), Error> {
        let mut tx = pool.begin_with(BEGIN).await.map_err(error)?;
        // One migrating process at a time; the lock goes with the transaction. The number spells "mainstay".
        sqlx::query("select pg_advisory_xact_lock(7881702313497879929)")
            .execute(&mut *tx)
            .await
            .map_err(error)?;
        sqlx::query(
            "create table if not exists mainstay_idempotency_migrations \
             (version integer primary key, applied_at timestamptz not null default now())",
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

    async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>, Error> {
        pool.begin_with(BEGIN).await.map_err(not_begun)
    }

    async fn begin_claim(
        pool: &PgPool,
        claim: &Claim,
        idle_max: Duration,
        wait: Wait,
    ) -> Result<(Option<Transaction<'static, Postgres>>, Claimed), Error> {
        claim::begin_claim(pool, claim, idle_max, wait).await
    }

    async fn claim(
        tx: &mut Transaction<'static, Postgres>,
        claim: &Claim,
        idle_max: Duration,
        wait: Wait,
    ) -> Result<Claimed, Error> {
        claim::claim(tx, claim, idle_max, wait).await
    }

    async fn record(
        tx: &mut Transaction<'static, Postgres>,
        claim: &Claim,
        recorded: &Recorded,
    ) -> Result<Inserted, Error> {
        let headers = recorded
            .encode_headers()
            .map_err(|reason| Error::new(ErrorKind::Database, reason))?;
        let inserted = sqlx::query(days::insert(days::day_of(&claim.key)))
            .bind(claim.scope.as_bytes())
            .bind(claim.key.as_bytes())
            .bind(claim.fingerprint.as_bytes())
            .bind(recorded.status.cast_signed())
            .bind(headers)
            .bind(&recorded.body[..])
            .bind(claim.lock().to_string())
            .execute(&mut **tx)
            .await;
        match inserted {
            Ok(done) if done.rows_affected() == 1 => Ok(Inserted::Stored),
            Ok(_) => Err(ErrorKind::TransactionEnded.into()),
            Err(sqlx::Error::Database(refused)) if days::is_of_record(refused.constraint()) => {
                Ok(Inserted::Taken)
            }
            Err(other) => Err(error(other)),
        }
    }

    async fn begin_unclaimed(
        pool: &PgPool,
        claim: &Claim,
        idle_max: Duration,
    ) -> Result<Transaction<'static, Postgres>, Error> {
        claim::begin_unclaimed(pool, claim, idle_max).await
    }

    async fn claim_and_record(
        tx: &mut Transaction<'static, Postgres>,
        claim: &Claim,
        recorded: &Recorded,
        _: Duration,
    ) -> Result<(Inserted, u64), Error> {
        claim::claim_and_record(tx, claim, recorded).await
    }

    async fn commit(tx: Transaction<'static, Postgres>) -> Result<(), Error> {
        tx.commit().await.map_err(not_committed)
    }

    async fn rollback(tx: Transaction<'static, Postgres>) {
        if let Err(error) = tx.rollback().await {
            tracing::debug!(%error, "rollback failed");
        }
    }

    async fn check_open(tx: &mut Transaction<'static, Postgres>) -> Result<(), Error> {
        // COMMIT of an aborted transaction succeeds and rolls back; any statement in it fails, so ask with one. Outside
        // a transaction block a simple query's two times are one; within one, BEGIN had its own, which is later when the
        // clock was set back.
        let open: bool = sqlx::raw_sql("select transaction_timestamp() <> statement_timestamp()")
            .fetch_one(&mut **tx)
            .await
            .and_then(|row| row.try_get(0))
            .map_err(error)?;
        if open {
            Ok(())
        } else {
            Err(ErrorKind::TransactionEnded.into())
        }
    }

    async fn lookup(
        pool: &PgPool,
        scope: &Scope,
        key: &Key,
    ) -> Result<Option<(Fingerprint, Recorded)>, Error> {
        let row = sqlx::query(days::read(days::day_of(key)))
            .bind(scope.as_bytes())
            .bind(key.as_bytes())
            .fetch_one(pool)
            .await
            .map_err(error)?;
        record_of(&row)
    }

    async fn inbox_once(
        conn: &mut PgConnection,
        consumer: &[u8],
        message: &[u8],
    ) -> Result<Seen, Error> {
        // At READ COMMITTED a row in the making is waited for: no row inserted means that it committed.
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
        conn: &mut PgConnection,
        consumer: &[u8],
        message: &[u8],
        idle_max: Duration,
    ) -> Result<Option<Seen>, Error> {
        // The conflict is found in the index, not in the statement's snapshot, so lock and insert may share a statement.
        let row = sqlx::query(
            "with held as materialized (select pg_try_advisory_xact_lock($3) as yes), \
             noted as (insert into mainstay_inbox (consumer, message) select $1, $2 from held where yes on conflict do nothing returning 1) \
             select (select yes from held), exists (select from noted), \
             set_config('idle_in_transaction_session_timeout', $4, true)",
        )
        .bind(consumer)
        .bind(message)
        .bind(lock(b"mainstay inbox 1\0", &[consumer, message]))
        .bind(setting_ms(idle_max))
        .fetch_one(conn)
        .await
        .map_err(error)?;
        let (held, first): (bool, bool) = (
            row.try_get(0).map_err(error)?,
            row.try_get(1).map_err(error)?,
        );
        Ok(held.then_some(if first { Seen::First } else { Seen::Duplicate }))
    }

    async fn reap(pool: &PgPool, older_than: Duration, batch_max: u32) -> Result<u64, Error> {
        days::reap(pool, older_than, batch_max).await
    }

    async fn empty_days(pool: &PgPool, older_than: Duration) -> Result<u64, Error> {
        days::empty(pool, older_than).await
    }

    async fn reap_inbox(pool: &PgPool, older_than: Duration, batch_max: u32) -> Result<u64, Error> {
        let deleted = sqlx::query(
            "delete from mainstay_inbox where ctid = any (array(select ctid from mainstay_inbox \
             where created_at < now() - make_interval(secs => $1) limit $2 for update skip locked))",
        )
        .bind(interval_secs(older_than))
        .bind(i64::from(batch_max))
        .execute(pool)
        .await
        .map_err(error)?;
        Ok(deleted.rows_affected())
    }
}

/// As a setting takes it: 0 would mean no limit, and there is a largest.
pub(crate) fn setting_ms(duration: Duration) -> String {
    duration.as_millis().clamp(1, 2_147_483_647).to_string()
}

/// At most a hundred years: intervals, and times before now, have an end.
pub(crate) fn interval_secs(duration: Duration) -> f64 {
    duration.as_secs_f64().min(100.0 * 365.0 * 86_400.0)
}

fn record_of(row: &sqlx::postgres::PgRow) -> Result<Option<(Fingerprint, Recorded)>, Error> {
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
