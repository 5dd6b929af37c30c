//! SQLite. One writer at a time: a step in progress makes everybody else wait, for the connection's `busy_timeout`.

use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Sqlite, SqlitePool, Transaction};

use crate::leased::sql::{self, AbandonedRow, LeasedDb, Row};
use crate::leased::{Abandoned, Holder, Retention, Taken, Work};
use crate::store::Claim;
use crate::store::sqlite::error;
use crate::{Error, ErrorKind, Key, Recorded, Scope};

impl LeasedDb for Sqlite {
    async fn lease_guard(
        tx: &mut Transaction<'static, Sqlite>,
        holder: &Holder,
        _idle_max: Duration,
    ) -> Result<Option<Vec<u8>>, Error> {
        // BEGIN IMMEDIATE has locked more than the row already.
        sqlx::query_scalar(
            "select journal from mainstay_lease where scope = $1 and key = $2 and token = $3 and state = 0",
        )
        .bind(holder.scope.as_bytes())
        .bind(holder.key.as_bytes())
        .bind(sql::number(holder))
        .fetch_optional(&mut **tx)
        .await
        .map_err(error)
    }

    async fn lease_append(
        conn: &mut SqliteConnection,
        holder: &Holder,
        entry: &[u8],
        lease: Duration,
    ) -> Result<bool, Error> {
        // `||` makes text of blobs.
        let updated = sqlx::query(
            "update mainstay_lease set journal = cast(journal || $4 as blob), lease_until = cast(unixepoch('subsec') * 1000 as integer) + $5 \
             where scope = $1 and key = $2 and token = $3 and state = 0",
        )
        .bind(holder.scope.as_bytes())
        .bind(holder.key.as_bytes())
        .bind(sql::number(holder))
        .bind(entry)
        .bind(millis(lease))
        .execute(conn)
        .await
        .map_err(error)?;
        Ok(updated.rows_affected() == 1)
    }

    async fn lease_claim(
        pool: &SqlitePool,
        claim: &Claim,
        work: &Work,
        lease: Duration,
    ) -> Result<Taken, Error> {
        // Tokens follow the clock where they can, so that a key that was reaped and comes again has larger ones than before.
        let taken = sqlx::query_as(
            "insert into mainstay_lease as l (scope, key, fingerprint, handler, input, token, lease_until) \
             values ($1, $2, $3, $4, $5, cast(unixepoch('subsec') * 1000 as integer), cast(unixepoch('subsec') * 1000 as integer) + $6) \
             on conflict (scope, key) do update set state = 0, token = max(l.token + 1, excluded.token), lease_until = excluded.lease_until, \
             fingerprint = iif(l.state = 3, excluded.fingerprint, l.fingerprint), \
             handler = iif(l.state = 3, excluded.handler, l.handler), input = iif(l.state = 3, excluded.input, l.input) \
             where l.state = 3 or (l.state = 0 and l.lease_until <= cast(unixepoch('subsec') * 1000 as integer) \
             and (l.fingerprint = excluded.fingerprint or (substr(l.fingerprint, 1, 1) <> substr(excluded.fingerprint, 1, 1) \
             and substr(l.fingerprint, 2, 8) = substr(excluded.fingerprint, 2, 8)))) \
             returning token, journal",
        )
        .bind(claim.scope.as_bytes())
        .bind(claim.key.as_bytes())
        .bind(claim.fingerprint.as_bytes())
        .bind(work.handler.as_bytes())
        .bind(&work.input[..])
        .bind(millis(lease))
        .fetch_optional(pool)
        .await
        .map_err(error)?;
        if let Some(taken) = taken {
            return Ok(sql::ours(taken));
        }
        let row: Option<Row> = sqlx::query_as(
            "select fingerprint, state, max(0, lease_until - cast(unixepoch('subsec') * 1000 as integer)), \
             status, headers, body from mainstay_lease where scope = $1 and key = $2",
        )
        .bind(claim.scope.as_bytes())
        .bind(claim.key.as_bytes())
        .fetch_optional(pool)
        .await
        .map_err(error)?;
        sql::taken_by_another(row, claim)
    }

    async fn lease_now_ms(pool: &SqlitePool) -> Result<u64, Error> {
        let now: i64 = sqlx::query_scalar("select cast(unixepoch('subsec') * 1000 as integer)")
            .fetch_one(pool)
            .await
            .map_err(error)?;
        Ok(now.try_into().unwrap_or(0))
    }

    async fn lease_exists(pool: &SqlitePool, scope: &Scope, key: &Key) -> Result<bool, Error> {
        sqlx::query_scalar(
            "select exists (select 1 from mainstay_lease where scope = $1 and key = $2 and state <> 3)",
        )
        .bind(scope.as_bytes())
        .bind(key.as_bytes())
        .fetch_one(pool)
        .await
        .map_err(error)
    }

    async fn lease_renew(
        pool: &SqlitePool,
        holder: &Holder,
        lease: Duration,
    ) -> Result<bool, Error> {
        let updated = sqlx::query(
            "update mainstay_lease set lease_until = cast(unixepoch('subsec') * 1000 as integer) + $4 \
             where scope = $1 and key = $2 and token = $3 and state = 0",
        )
        .bind(holder.scope.as_bytes())
        .bind(holder.key.as_bytes())
        .bind(sql::number(holder))
        .bind(millis(lease))
        .execute(pool)
        .await
        .map_err(error)?;
        Ok(updated.rows_affected() == 1)
    }

    async fn lease_complete(
        pool: &SqlitePool,
        holder: &Holder,
        recorded: &Recorded,
    ) -> Result<bool, Error> {
        let headers = recorded
            .encode_headers()
            .map_err(|reason| Error::new(ErrorKind::Database, reason))?;
        // The steps' results and the input have served; what replays need stays.
        let updated = sqlx::query(
            "update mainstay_lease set state = 1, status = $4, headers = $5, body = $6, journal = x'', input = x'', \
             lease_until = cast(unixepoch('subsec') * 1000 as integer) \
             where scope = $1 and key = $2 and token = $3 and state = 0",
        )
        .bind(holder.scope.as_bytes())
        .bind(holder.key.as_bytes())
        .bind(sql::number(holder))
        .bind(i64::from(recorded.status))
        .bind(headers)
        .bind(&recorded.body[..])
        .execute(pool)
        .await
        .map_err(error)?;
        Ok(updated.rows_affected() == 1)
    }

    async fn lease_release(pool: &SqlitePool, holder: &Holder) -> Result<bool, Error> {
        let updated = sqlx::query(
            "update mainstay_lease set state = iif(length(journal) = 0, 3, 0), lease_until = cast(unixepoch('subsec') * 1000 as integer), \
             input = iif(length(journal) = 0, x'', input) \
             where scope = $1 and key = $2 and token = $3 and state = 0",
        )
        .bind(holder.scope.as_bytes())
        .bind(holder.key.as_bytes())
        .bind(sql::number(holder))
        .execute(pool)
        .await
        .map_err(error)?;
        Ok(updated.rows_affected() == 1)
    }

    async fn lease_lose(pool: &SqlitePool, holder: &Holder) -> Result<bool, Error> {
        let updated = sqlx::query(
            "update mainstay_lease set state = 2 where scope = $1 and key = $2 and token = $3 and state = 0",
        )
        .bind(holder.scope.as_bytes())
        .bind(holder.key.as_bytes())
        .bind(sql::number(holder))
        .execute(pool)
        .await
        .map_err(error)?;
        Ok(updated.rows_affected() == 1)
    }

    async fn lease_reopen(pool: &SqlitePool, scope: &Scope, key: &Key) -> Result<bool, Error> {
        let updated = sqlx::query(
            "update mainstay_lease set state = 0, lease_until = cast(unixepoch('subsec') * 1000 as integer) \
             where scope = $1 and key = $2 and state = 2",
        )
        .bind(scope.as_bytes())
        .bind(key.as_bytes())
        .execute(pool)
        .await
        .map_err(error)?;
        Ok(updated.rows_affected() == 1)
    }

    async fn lease_abandoned(
        pool: &SqlitePool,
        handler: &str,
        max: u32,
    ) -> Result<Vec<Abandoned>, Error> {
        let rows: Vec<AbandonedRow> = sqlx::query_as(
            "select scope, key, fingerprint, handler, input from mainstay_lease \
             where state = 0 and handler <> x'' and handler = $1 and lease_until <= cast(unixepoch('subsec') * 1000 as integer) \
             order by lease_until limit $2",
        )
        .bind(handler.as_bytes())
        .bind(i64::from(max))
        .fetch_all(pool)
        .await
        .map_err(error)?;
        Ok(sql::abandoned(rows))
    }

    async fn lease_reap(
        pool: &SqlitePool,
        retention: Retention,
        batch_max: u32,
    ) -> Result<u64, Error> {
        // No lease ends before its key was first claimed, so what ended long enough ago is old enough too: one index serves.
        let deleted = sqlx::query(
            "delete from mainstay_lease where rowid in (select rowid from mainstay_lease \
             where created_at < cast(unixepoch('subsec') * 1000 as integer) - $1 and ((state in (1, 3) and lease_until < cast(unixepoch('subsec') * 1000 as integer) - $1) \
             or (state = 0 and lease_until <= cast(unixepoch('subsec') * 1000 as integer) and length(journal) = 0 and handler = x'') \
             or (state in (0, 2) and lease_until < cast(unixepoch('subsec') * 1000 as integer) - $2)) limit $3)",
        )
        .bind(millis(retention.ended))
        .bind(millis(retention.unfinished))
        .bind(i64::from(batch_max))
        .execute(pool)
        .await
        .map_err(error)?;
        Ok(deleted.rows_affected())
    }
}

/// At most a hundred years, so that no sum with a time of now overflows.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).map_or(HUNDRED_YEARS_MS, |ms| ms.min(HUNDRED_YEARS_MS))
}

const HUNDRED_YEARS_MS: i64 = 100 * 365 * 86_400_000;
