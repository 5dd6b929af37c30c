//! MySQL and MariaDB. A live lease is seen by a plain read, and what is to be taken over is locked with SKIP LOCKED (MySQL
//! 8.0, MariaDB 10.6): nobody waits for a step that has the row locked.

use std::time::Duration;

use sqlx::mysql::MySqlConnection;
use sqlx::{MySql, MySqlPool, Transaction};

use crate::leased::sql::{self, AbandonedRow, LeasedDb, Row};
use crate::leased::{Abandoned, Holder, Retention, Taken, Work};
use crate::store::Claim;
use crate::store::mysql::{error, limit_idle, number_of};
use crate::{Error, ErrorKind, IdempotencyDb, Key, Recorded, Scope};

impl LeasedDb for MySql {
    async fn lease_guard(
        tx: &mut Transaction<'static, MySql>,
        holder: &Holder,
        idle_max: Duration,
    ) -> Result<Option<Vec<u8>>, Error> {
        // A frozen process would hold the row for ever, and with it the key.
        limit_idle(tx, idle_max).await?;
        sqlx::query_scalar(
            "select journal from mainstay_lease where scope = ? and `key` = ? and token = ? and state = 0 for update",
        )
        .bind(holder.scope.as_bytes())
        .bind(holder.key.as_bytes())
        .bind(sql::number(holder))
        .fetch_optional(&mut **tx)
        .await
        .map_err(error)
    }

    async fn lease_append(
        conn: &mut MySqlConnection,
        holder: &Holder,
        entry: &[u8],
        lease: Duration,
    ) -> Result<bool, Error> {
        let updated = sqlx::query(
            "update mainstay_lease set journal = concat(journal, ?), lease_until = utc_timestamp(6) + interval ? microsecond \
             where scope = ? and `key` = ? and token = ? and state = 0",
        )
        .bind(entry)
        .bind(micros(lease))
        .bind(holder.scope.as_bytes())
        .bind(holder.key.as_bytes())
        .bind(sql::number(holder))
        .execute(conn)
        .await
        .map_err(error)?;
        Ok(updated.rows_affected() == 1)
    }

    async fn lease_claim(
        pool: &MySqlPool,
        claim: &Claim,
        work: &Work,
        lease: Duration,
    ) -> Result<Taken, Error> {
        // Not an upsert: it would wait for a step that has the row locked. A row that comes or goes between the statements
        // is looked at once more.
        for _ in 0..2 {
            match look(pool, claim).await? {
                Found::Nothing => {
                    if let Some(token) = insert(pool, claim, work, lease).await? {
                        return Ok(sql::ours((token, Vec::new())));
                    }
                }
                Found::Free(token) => {
                    return match take_over(pool, claim, work, token, lease).await? {
                        Some(taken) => Ok(sql::ours(taken)),
                        None => sql::taken_by_another(None, claim),
                    };
                }
                Found::Other(row) => return sql::taken_by_another(Some(row), claim),
            }
        }
        sql::taken_by_another(None, claim)
    }

    async fn lease_now_ms(pool: &MySqlPool) -> Result<u64, Error> {
        let now: i64 = sqlx::query_scalar("select cast(unix_timestamp(now(6)) * 1000 as signed)")
            .fetch_one(pool)
            .await
            .map_err(error)?;
        Ok(now.try_into().unwrap_or(0))
    }

    async fn lease_exists(pool: &MySqlPool, scope: &Scope, key: &Key) -> Result<bool, Error> {
        sqlx::query_scalar(
            "select exists (select 1 from mainstay_lease where scope = ? and `key` = ? and state <> 3)",
        )
        .bind(scope.as_bytes())
        .bind(key.as_bytes())
        .fetch_one(pool)
        .await
        .map_err(error)
    }

    async fn lease_renew(
        pool: &MySqlPool,
        holder: &Holder,
        lease: Duration,
    ) -> Result<bool, Error> {
        let updated = sqlx::query(
            "update mainstay_lease set lease_until = utc_timestamp(6) + interval ? microsecond \
             where scope = ? and `key` = ? and token = ? and state = 0",
        )
        .bind(micros(lease))
        .bind(holder.scope.as_bytes())
        .bind(holder.key.as_bytes())
        .bind(sql::number(holder))
        .execute(pool)
        .await
        .map_err(error)?;
        Ok(updated.rows_affected() == 1)
    }

    async fn lease_complete(
        pool: &MySqlPool,
        holder: &Holder,
        recorded: &Recorded,
    ) -> Result<bool, Error> {
        let headers = recorded
            .encode_headers()
            .map_err(|reason| Error::new(ErrorKind::Database, reason))?;
        // The steps' results and the input have served; what replays need stays.
        let updated = sqlx::query(
            "update mainstay_lease set state = 1, status = ?, headers = ?, body = ?, journal = '', input = '', \
             lease_until = utc_timestamp(6) \
             where scope = ? and `key` = ? and token = ? and state = 0",
        )
        .bind(i64::from(recorded.status))
        .bind(headers)
        .bind(&recorded.body[..])
        .bind(holder.scope.as_bytes())
        .bind(holder.key.as_bytes())
        .bind(sql::number(holder))
        .execute(pool)
        .await
        .map_err(error)?;
        Ok(updated.rows_affected() == 1)
    }

    async fn lease_release(pool: &MySqlPool, holder: &Holder) -> Result<bool, Error> {
        let updated = sqlx::query(
            "update mainstay_lease set state = if(length(journal) = 0, 3, 0), input = if(length(journal) = 0, '', input), lease_until = utc_timestamp(6) \
             where scope = ? and `key` = ? and token = ? and state = 0",
        )
        .bind(holder.scope.as_bytes())
        .bind(holder.key.as_bytes())
        .bind(sql::number(holder))
        .execute(pool)
        .await
        .map_err(error)?;
        Ok(updated.rows_affected() == 1)
    }

    async fn lease_lose(pool: &MySqlPool, holder: &Holder) -> Result<bool, Error> {
        let updated = sqlx::query(
            "update mainstay_lease set state = 2 where scope = ? and `key` = ? and token = ? and state = 0",
        )
        .bind(holder.scope.as_bytes())
        .bind(holder.key.as_bytes())
        .bind(sql::number(holder))
        .execute(pool)
        .await
        .map_err(error)?;
        Ok(updated.rows_affected() == 1)
    }

    async fn lease_reopen(pool: &MySqlPool, scope: &Scope, key: &Key) -> Result<bool, Error> {
        let updated = sqlx::query(
            "update mainstay_lease set state = 0, lease_until = utc_timestamp(6) \
             where scope = ? and `key` = ? and state = 2",
        )
        .bind(scope.as_bytes())
        .bind(key.as_bytes())
        .execute(pool)
        .await
        .map_err(error)?;
        Ok(updated.rows_affected() == 1)
    }

    async fn lease_abandoned(
        pool: &MySqlPool,
        handler: &str,
        max: u32,
    ) -> Result<Vec<Abandoned>, Error> {
        let rows: Vec<AbandonedRow> = sqlx::query_as(
            "select scope, `key`, fingerprint, handler, input from mainstay_lease \
             where state = 0 and handler <> '' and handler = ? and lease_until <= utc_timestamp(6) \
             order by lease_until limit ?",
        )
        .bind(handler.as_bytes())
        .bind(i64::from(max))
        .fetch_all(pool)
        .await
        .map_err(error)?;
        Ok(sql::abandoned(rows))
    }

    async fn lease_reap(
        pool: &MySqlPool,
        retention: Retention,
        batch_max: u32,
    ) -> Result<u64, Error> {
        // Not one DELETE: it would wait for a step that has one of the rows locked, and outside READ COMMITTED lock every row it
        // has looked at. No lease ends before its key was first claimed, so what ended long enough ago is old enough too: one
        // index serves.
        let mut tx = MySql::begin(pool).await?;
        match reap(&mut tx, retention, batch_max).await {
            Ok(reaped) => MySql::commit(tx).await.map(|()| reaped),
            Err(failed) => {
                MySql::rollback(tx).await;
                Err(error(failed))
            }
        }
    }
}

async fn reap(
    tx: &mut Transaction<'static, MySql>,
    retention: Retention,
    batch_max: u32,
) -> sqlx::Result<u64> {
    let keys: Vec<(Vec<u8>, Vec<u8>)> = sqlx::query_as(
        "select scope, `key` from mainstay_lease where created_at < utc_timestamp(6) - interval ? microsecond \
         and ((state in (1, 3) and lease_until < utc_timestamp(6) - interval ? microsecond) \
         or (state = 0 and lease_until <= utc_timestamp(6) and length(journal) = 0 and handler = '') \
         or (state in (0, 2) and lease_until < utc_timestamp(6) - interval ? microsecond)) \
         order by created_at limit ? for update skip locked",
    )
    .bind(micros(retention.ended))
    .bind(micros(retention.ended))
    .bind(micros(retention.unfinished))
    .bind(i64::from(batch_max))
    .fetch_all(&mut **tx)
    .await?;
    let mut reaped = 0;
    for (scope, key) in keys {
        let deleted = sqlx::query("delete from mainstay_lease where scope = ? and `key` = ?")
            .bind(scope)
            .bind(key)
            .execute(&mut **tx)
            .await?;
        reaped += deleted.rows_affected();
    }
    Ok(reaped)
}

enum Found {
    Nothing,
    /// Released, or its lease is over, under this token.
    Free(i64),
    Other(Row),
}

/// A [`Row`], its token, and whether it is free.
type FullRow = (
    Vec<u8>,
    i64,
    i64,
    Option<i64>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    i64,
    i64,
);

async fn look(pool: &MySqlPool, claim: &Claim) -> Result<Found, Error> {
    let row: Option<FullRow> = sqlx::query_as(
        "select fingerprint, cast(state as signed), cast(greatest(0, timestampdiff(microsecond, utc_timestamp(6), lease_until) / 1000) as signed), \
         cast(status as signed), headers, body, token, cast(state = 3 or (state = 0 and lease_until <= utc_timestamp(6) \
         and (fingerprint = ? or (substr(fingerprint, 1, 1) <> substr(?, 1, 1) and substr(fingerprint, 2, 8) = substr(?, 2, 8)))) as signed) \
         from mainstay_lease where scope = ? and `key` = ?",
    )
    .bind(claim.fingerprint.as_bytes())
    .bind(claim.fingerprint.as_bytes())
    .bind(claim.fingerprint.as_bytes())
    .bind(claim.scope.as_bytes())
    .bind(claim.key.as_bytes())
    .fetch_optional(pool)
    .await
    .map_err(error)?;
    Ok(match row {
        None => Found::Nothing,
        Some((.., token, 1)) => Found::Free(token),
        Some((fingerprint, state, left, status, headers, body, ..)) => {
            Found::Other((fingerprint, state, left, status, headers, body))
        }
    })
}

/// The token; `None` when somebody was faster. Tokens follow the clock where they can, so that a key that was reaped and
/// comes again has larger ones than before.
///
/// It is known before the row is there, not read from it: by then another attempt may have taken over.
async fn insert(
    pool: &MySqlPool,
    claim: &Claim,
    work: &Work,
    lease: Duration,
) -> Result<Option<i64>, Error> {
    let token = MySql::lease_now_ms(pool).await?.cast_signed();
    let inserted = sqlx::query(
        "insert into mainstay_lease (scope, `key`, fingerprint, journal, handler, input, token, lease_until) \
         values (?, ?, ?, '', ?, ?, ?, utc_timestamp(6) + interval ? microsecond)",
    )
    .bind(claim.scope.as_bytes())
    .bind(claim.key.as_bytes())
    .bind(claim.fingerprint.as_bytes())
    .bind(work.handler.as_bytes())
    .bind(&work.input[..])
    .bind(token)
    .bind(micros(lease))
    .execute(pool)
    .await;
    match inserted {
        Ok(_) => Ok(Some(token)),
        Err(refused) if number_of(&refused) == Some(1062) => Ok(None),
        Err(other) => Err(error(other)),
    }
}

/// The token and the journal; `None` when somebody was faster, or has the row locked.
async fn take_over(
    pool: &MySqlPool,
    claim: &Claim,
    work: &Work,
    token: i64,
    lease: Duration,
) -> Result<Option<(i64, Vec<u8>)>, Error> {
    let mut tx = MySql::begin(pool).await?;
    let locked: Result<Option<i64>, Error> = sqlx::query_scalar(
        "select token from mainstay_lease where scope = ? and `key` = ? and token = ? and (state = 3 or (state = 0 and lease_until <= utc_timestamp(6))) \
         for update skip locked",
    )
    .bind(claim.scope.as_bytes())
    .bind(claim.key.as_bytes())
    .bind(token)
    .fetch_optional(&mut *tx)
    .await
    .map_err(error);
    if !matches!(locked, Ok(Some(_))) {
        MySql::rollback(tx).await;
        return locked.map(|_| None);
    }
    // Assignments are made from left to right, each seeing those before it: the state comes last.
    let updated = sqlx::query(
        "update mainstay_lease set token = greatest(token + 1, cast(unix_timestamp(now(6)) * 1000 as signed)), \
         lease_until = utc_timestamp(6) + interval ? microsecond, fingerprint = if(state = 3, ?, fingerprint), \
         handler = if(state = 3, ?, handler), input = if(state = 3, ?, input), state = 0 where scope = ? and `key` = ?",
    )
    .bind(micros(lease))
    .bind(claim.fingerprint.as_bytes())
    .bind(work.handler.as_bytes())
    .bind(&work.input[..])
    .bind(claim.scope.as_bytes())
    .bind(claim.key.as_bytes())
    .execute(&mut *tx)
    .await;
    // Read while the row is locked: behind the commit another attempt may have taken over, and its token would be ours too.
    let taken = match updated {
        Ok(_) => {
            sqlx::query_as(
                "select token, journal from mainstay_lease where scope = ? and `key` = ?",
            )
            .bind(claim.scope.as_bytes())
            .bind(claim.key.as_bytes())
            .fetch_one(&mut *tx)
            .await
        }
        Err(failed) => Err(failed),
    };
    match taken {
        Ok(taken) => MySql::commit(tx).await.map(|()| Some(taken)),
        Err(failed) => {
            MySql::rollback(tx).await;
            Err(error(failed))
        }
    }
}

/// At most a hundred years: dates have an end.
fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).map_or(HUNDRED_YEARS_US, |us| us.min(HUNDRED_YEARS_US))
}

const HUNDRED_YEARS_US: i64 = 100 * 365 * 86_400_000_000;
