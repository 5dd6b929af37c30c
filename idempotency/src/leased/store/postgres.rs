//! Postgres. A live lease is seen by a plain read, and what is to be taken over is locked with SKIP LOCKED: nobody waits
//! for a step that has the row locked.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{PgPool, Postgres, Transaction};

use crate::leased::sql::{self, AbandonedRow, LeasedDb, Row};
use crate::leased::{Abandoned, Holder, Retention, Taken, Work};
use crate::store::Claim;
use crate::store::postgres::{error, interval_secs, setting_ms};
use crate::{Error, ErrorKind, Key, Recorded, Scope};

impl LeasedDb for Postgres {
    async fn lease_guard(
        tx: &mut Transaction<'static, Postgres>,
        holder: &Holder,
        idle_max: Duration,
    ) -> Result<Option<Vec<u8>>, Error> {
        // A frozen process would hold the row for ever, and with it the key.
        sqlx::query_scalar(
            "select journal from mainstay_lease, set_config('idle_in_transaction_session_timeout', $4, true) \
             where scope = $1 and key = $2 and token = $3 and state = 0 for update of mainstay_lease",
        )
        .bind(holder.scope.as_bytes())
        .bind(holder.key.as_bytes())
        .bind(sql::number(holder))
        .bind(setting_ms(idle_max))
        .fetch_optional(&mut **tx)
        .await
        .map_err(error)
    }

    async fn lease_append(
        conn: &mut PgConnection,
        holder: &Holder,
        entry: &[u8],
        lease: Duration,
    ) -> Result<bool, Error> {
        let updated = sqlx::query(
            "update mainstay_lease set journal = journal || $4, lease_until = clock_timestamp() + make_interval(secs => $5) \
             where scope = $1 and key = $2 and token = $3 and state = 0",
        )
        .bind(holder.scope.as_bytes())
        .bind(holder.key.as_bytes())
        .bind(sql::number(holder))
        .bind(entry)
        .bind(interval_secs(lease))
        .execute(conn)
        .await
        .map_err(error)?;
        Ok(updated.rows_affected() == 1)
    }

    async fn lease_claim(
        pool: &PgPool,
        claim: &Claim,
        work: &Work,
        lease: Duration,
    ) -> Result<Taken, Error> {
        // Tokens follow the clock where they can, so that a key that was reaped and comes again has larger ones than before.
        let taken = sqlx::query_as(
            "with ours as (insert into mainstay_lease (scope, key, fingerprint, handler, input, token, lease_until) \
             values ($1, $2, $3, $4, $5, (extract(epoch from clock_timestamp()) * 1000)::bigint, clock_timestamp() + make_interval(secs => $6)) \
             on conflict do nothing returning token, journal), \
             free as (select scope, key, state from mainstay_lease where scope = $1 and key = $2 and (state = 3 or \
             (state = 0 and lease_until <= clock_timestamp() and (fingerprint = $3 or \
             (substr(fingerprint, 1, 1) <> substr($3, 1, 1) and substr(fingerprint, 2, 8) = substr($3, 2, 8))))) \
             for update skip locked), \
             over as (update mainstay_lease l set state = 0, token = greatest(l.token + 1, (extract(epoch from clock_timestamp()) * 1000)::bigint), \
             lease_until = clock_timestamp() + make_interval(secs => $6), \
             fingerprint = case free.state when 3 then $3 else l.fingerprint end, \
             handler = case free.state when 3 then $4 else l.handler end, \
             input = case free.state when 3 then $5 else l.input end \
             from free where l.scope = free.scope and l.key = free.key returning l.token, l.journal) \
             select token, journal from ours union all select token, journal from over",
        )
        .bind(claim.scope.as_bytes())
        .bind(claim.key.as_bytes())
        .bind(claim.fingerprint.as_bytes())
        .bind(work.handler.as_bytes())
        .bind(&work.input[..])
        .bind(interval_secs(lease))
        .fetch_optional(pool)
        .await
        .map_err(error)?;
        if let Some(taken) = taken {
            return Ok(sql::ours(taken));
        }
        // A statement of its own: the one above has not seen what committed while it ran.
        let row: Option<Row> = sqlx::query_as(
            "select fingerprint, state::bigint, (greatest(0, extract(epoch from lease_until - clock_timestamp())) * 1000)::bigint, \
             status::bigint, headers, body from mainstay_lease where scope = $1 and key = $2",
        )
        .bind(claim.scope.as_bytes())
        .bind(claim.key.as_bytes())
        .fetch_optional(pool)
        .await
        .map_err(error)?;
        sql::taken_by_another(row, claim)
    }

    async fn lease_now_ms(pool: &PgPool) -> Result<u64, Error> {
        let now: i64 =
            sqlx::query_scalar("select (extract(epoch from clock_timestamp()) * 1000)::bigint")
                .fetch_one(pool)
                .await
                .map_err(error)?;
        Ok(now.try_into().unwrap_or(0))
    }

    async fn lease_exists(pool: &PgPool, scope: &Scope, key: &Key) -> Result<bool, Error> {
        sqlx::query_scalar(
            "select exists (select from mainstay_lease where scope = $1 and key = $2 and state <> 3)",
        )
        .bind(scope.as_bytes())
        .bind(key.as_bytes())
        .fetch_one(pool)
        .await
        .map_err(error)
    }

    async fn lease_renew(pool: &PgPool, holder: &Holder, lease: Duration) -> Result<bool, Error> {
        let updated = sqlx::query(
            "update mainstay_lease set lease_until = clock_timestamp() + make_interval(secs => $4) \
             where scope = $1 and key = $2 and token = $3 and state = 0",
        )
        .bind(holder.scope.as_bytes())
        .bind(holder.key.as_bytes())
        .bind(sql::number(holder))
        .bind(interval_secs(lease))
        .execute(pool)
        .await
        .map_err(error)?;
        Ok(updated.rows_affected() == 1)
    }

    async fn lease_complete(
        pool: &PgPool,
        holder: &Holder,
        recorded: &Recorded,
    ) -> Result<bool, Error> {
        let headers = recorded
            .encode_headers()
            .map_err(|reason| Error::new(ErrorKind::Database, reason))?;
        // The steps' results and the input have served; what replays need stays.
        let updated = sqlx::query(
            "update mainstay_lease set state = 1, status = $4, headers = $5, body = $6, journal = ''::bytea, input = ''::bytea, \
             lease_until = clock_timestamp() \
             where scope = $1 and key = $2 and token = $3 and state = 0",
        )
        .bind(holder.scope.as_bytes())
        .bind(holder.key.as_bytes())
        .bind(sql::number(holder))
        .bind(recorded.status.cast_signed())
        .bind(headers)
        .bind(&recorded.body[..])
        .execute(pool)
        .await
        .map_err(error)?;
        Ok(updated.rows_affected() == 1)
    }

    async fn lease_release(pool: &PgPool, holder: &Holder) -> Result<bool, Error> {
        let updated = sqlx::query(
            "update mainstay_lease set state = case when journal = ''::bytea then 3 else 0 end, lease_until = clock_timestamp(), \
             input = case when journal = ''::bytea then ''::bytea else input end \
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

    async fn lease_lose(pool: &PgPool, holder: &Holder) -> Result<bool, Error> {
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

    async fn lease_reopen(pool: &PgPool, scope: &Scope, key: &Key) -> Result<bool, Error> {
        let updated = sqlx::query(
            "update mainstay_lease set state = 0, lease_until = clock_timestamp() where scope = $1 and key = $2 and state = 2",
        )
        .bind(scope.as_bytes())
        .bind(key.as_bytes())
        .execute(pool)
        .await
        .map_err(error)?;
        Ok(updated.rows_affected() == 1)
    }

    async fn lease_abandoned(
        pool: &PgPool,
        handler: &str,
        max: u32,
    ) -> Result<Vec<Abandoned>, Error> {
        let rows: Vec<AbandonedRow> = sqlx::query_as(
            "select scope, key, fingerprint, handler, input from mainstay_lease \
             where state = 0 and handler <> ''::bytea and handler = $1 and lease_until <= clock_timestamp() \
             order by lease_until limit $2",
        )
        .bind(handler.as_bytes())
        .bind(i64::from(max))
        .fetch_all(pool)
        .await
        .map_err(error)?;
        Ok(sql::abandoned(rows))
    }

    async fn lease_reap(pool: &PgPool, retention: Retention, batch_max: u32) -> Result<u64, Error> {
        // No lease ends before its key was first claimed, so what ended long enough ago is old enough too: one index serves.
        let deleted = sqlx::query(
            "delete from mainstay_lease where ctid = any (array(select ctid from mainstay_lease \
             where created_at < now() - make_interval(secs => $1) and ((state in (1, 3) and lease_until < now() - make_interval(secs => $1)) \
             or (state = 0 and lease_until <= now() and journal = ''::bytea and handler = ''::bytea) \
             or (state in (0, 2) and lease_until < now() - make_interval(secs => $2))) limit $3 for update skip locked))",
        )
        .bind(interval_secs(retention.ended))
        .bind(interval_secs(retention.unfinished))
        .bind(i64::from(batch_max))
        .execute(pool)
        .await
        .map_err(error)?;
        Ok(deleted.rows_affected())
    }
}
