//! Claims: by advisory locks, which go with the transaction. The lock of the request is taken before that of its key, so
//! whoever holds a key also shows what for.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgPool, Postgres, Row, SqlSafeStr, SqlStr, Transaction};

use super::error::{code_of, error, not_begun};
use super::{BEGIN, days, record_of, setting_ms};
use crate::store::{Claim, Claimed, IdempotencyDb, Inserted};
use crate::{Error, ErrorKind, Recorded, Wait};

/// A record is read without a transaction: one round trip, and nothing in the log. Else the claim comes with the BEGIN
/// that makes a transaction of it: a second one.
pub(super) async fn begin_claim(
    pool: &PgPool,
    claim: &Claim,
    idle_max: Duration,
    wait: Wait,
) -> Result<(Option<Transaction<'static, Postgres>>, Claimed), Error> {
    for _ in 0..2 {
        // Of this round only: who holds a connection and asks for another may wait for one that waits for him.
        let mut conn = pool.acquire().await.map_err(error)?;
        let row = sqlx::query(days::look(days::day_of(&claim.key)))
            .bind(claim.scope.as_bytes())
            .bind(claim.key.as_bytes())
            .bind(claim.lock())
            .fetch_one(&mut *conn)
            .await
            .map_err(error)?;
        if let Some((fingerprint, recorded)) = record_of(&row)? {
            let found = Claimed::Recorded {
                fingerprint,
                recorded,
            };
            return Ok((None, found));
        }
        if row.try_get::<Option<bool>, _>(5).map_err(error)? == Some(false) {
            break;
        }
        match Transaction::begin(conn, Some(claim_and_begin(claim, idle_max))).await {
            Ok(tx) => {
                let now_ms: i64 = row.try_get(4).map_err(error)?;
                let now_ms = now_ms.try_into().unwrap_or(0);
                return Ok((Some(tx), Claimed::Fresh { now_ms }));
            }
            Err(refused) => match code_of(&refused).as_deref() {
                Some("MS001") => break,
                Some("MS002") => {}
                _ => return Err(not_begun(refused)),
            },
        }
    }
    let mut tx = Postgres::begin(pool).await?;
    match self::claim(&mut tx, claim, idle_max, wait).await {
        Ok(claimed) => Ok((Some(tx), claimed)),
        Err(error) => {
            Postgres::rollback(tx).await;
            Err(error)
        }
    }
}

pub(super) async fn claim(
    tx: &mut Transaction<'static, Postgres>,
    claim: &Claim,
    idle_max: Duration,
    wait: Wait,
) -> Result<Claimed, Error> {
    // CASE fixes the order. Neither lock waits.
    let mut held: bool = sqlx::query(
        "select case when pg_try_advisory_xact_lock_shared($1) then pg_try_advisory_xact_lock($2) else false end, \
         set_config('idle_in_transaction_session_timeout', $3, true), set_config('mainstay.claim', $2::bigint::text, true)",
    )
    .bind(claim.request_lock())
    .bind(claim.lock())
    .bind(setting_ms(idle_max))
    .fetch_one(&mut **tx)
    .await
    .and_then(|row| row.try_get(0))
    .map_err(error)?;
    let other = !held && holder_runs_another(tx, claim).await?;
    if let Some(time) = wait.time()
        && !held
        && !other
    {
        held = wait_for_holder(tx, claim, time).await?;
        if !held {
            return Ok(Claimed::InFlight);
        }
    }
    // A statement of its own, after the locks: in one statement its snapshot would be older than they are, and a
    // record that committed in between would be missed.
    let row = sqlx::query(days::read(days::day_of(&claim.key)))
        .bind(claim.scope.as_bytes())
        .bind(claim.key.as_bytes())
        .fetch_one(&mut **tx)
        .await
        .map_err(error)?;
    match (record_of(&row)?, held, other) {
        (Some((fingerprint, recorded)), ..) => Ok(Claimed::Recorded {
            fingerprint,
            recorded,
        }),
        (None, true, _) => {
            let now_ms: i64 = row.try_get(4).map_err(error)?;
            Ok(Claimed::Fresh {
                now_ms: now_ms.try_into().unwrap_or(0),
            })
        }
        (None, false, false) => Ok(Claimed::InFlight),
        (None, false, true) => Ok(Claimed::OtherInFlight),
    }
}

/// The two settings that a claim makes, with the BEGIN.
pub(super) async fn begin_unclaimed(
    pool: &PgPool,
    claim: &Claim,
    idle_max: Duration,
) -> Result<Transaction<'static, Postgres>, Error> {
    let (key, idle_ms) = (claim.lock(), setting_ms(idle_max));
    let begin = AssertSqlSafe(format!(
        "{BEGIN}; set local mainstay.claim = '{key}'; set local idle_in_transaction_session_timeout = '{idle_ms}'"
    ));
    pool.begin_with(begin).await.map_err(not_begun)
}

/// One statement takes the locks of a claim, which waits for who holds them, and then writes. Its snapshot is older than the
/// locks; but a record that was committed in between is found by the index, which knows no snapshots.
pub(super) async fn claim_and_record(
    tx: &mut Transaction<'static, Postgres>,
    claim: &Claim,
    recorded: &Recorded,
) -> Result<(Inserted, u64), Error> {
    let day = days::day_of(&claim.key);
    let headers = recorded
        .encode_headers()
        .map_err(|reason| Error::new(ErrorKind::Database, reason))?;
    let inserted = sqlx::query_scalar::<_, i64>(days::claim_and_insert(day))
        .bind(claim.scope.as_bytes())
        .bind(claim.key.as_bytes())
        .bind(claim.fingerprint.as_bytes())
        .bind(recorded.status.cast_signed())
        .bind(headers)
        .bind(&recorded.body[..])
        .bind(claim.lock().to_string())
        .bind(claim.request_lock())
        .bind(claim.lock())
        .fetch_optional(&mut **tx)
        .await;
    match inserted {
        Ok(Some(now_ms)) => Ok((Inserted::Stored, now_ms.try_into().unwrap_or(0))),
        // Not the claim's transaction, or a record of this key's that is older than the days' tables.
        Ok(None) => {
            let row = sqlx::query(days::read(day))
                .bind(claim.scope.as_bytes())
                .bind(claim.key.as_bytes())
                .fetch_one(&mut **tx)
                .await
                .map_err(error)?;
            match record_of(&row)? {
                Some(_) => Ok((Inserted::Taken, 0)),
                None => Err(ErrorKind::TransactionEnded.into()),
            }
        }
        Err(sqlx::Error::Database(refused)) if days::is_of_record(refused.constraint()) => {
            Ok((Inserted::Taken, 0))
        }
        Err(other) => Err(error(other)),
    }
}

/// One simple query: its statements share a transaction, which the BEGIN at the end keeps open. Where the claim fails there
/// is none to keep, and the connection is as clean as before. Its arguments are numbers and hexadecimal digits.
fn claim_and_begin(claim: &Claim, idle_max: Duration) -> SqlStr {
    let (request, key) = (claim.request_lock(), claim.lock());
    let (scope_hex, key_hex) = (hex(claim.scope.as_bytes()), hex(claim.key.as_bytes()));
    let day = days::day_of(&claim.key).map_or_else(|| "null".to_owned(), |day| day.to_string());
    let idle_ms = setting_ms(idle_max);
    AssertSqlSafe(format!(
        "set transaction isolation level read committed read write; \
         select mainstay_claim({request}, {key}, decode('{scope_hex}', 'hex'), decode('{key_hex}', 'hex'), {day}, '{idle_ms}'); begin"
    ))
    .into_sql_str()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut hex, byte| {
        _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Waits for the key's lock in the server's queue. `false` when the time is over, and the transaction aborted with it.
///
/// `lock_timeout` is read when a wait begins, so a setting made earlier in the same statement counts; CASE fixes the
/// order. It is put back at once: the handler's own statements wait as the service has configured.
async fn wait_for_holder(
    tx: &mut Transaction<'static, Postgres>,
    claim: &Claim,
    time: Duration,
) -> Result<bool, Error> {
    let waited = sqlx::query(
        "with before as materialized (select current_setting('lock_timeout') as setting), \
         locked as materialized (select case when set_config('lock_timeout', $3, true) is not null \
         then pg_advisory_xact_lock_shared($1) end, pg_advisory_xact_lock($2) from before) \
         select set_config('lock_timeout', before.setting, true) from before, locked",
    )
    .bind(claim.request_lock())
    .bind(claim.lock())
    .bind(setting_ms(time))
    .execute(&mut **tx)
    .await
    .map_err(error);
    match waited {
        Ok(_) => Ok(true),
        // 55P03, or a deadlock with a transaction that took locks of ours in an order of its own.
        Err(busy) if busy.kind() == ErrorKind::Busy => Ok(false),
        Err(other) => Err(other),
    }
}

/// Whether the key's holder certainly runs a different request. In doubt it does not: a client that is told "in flight"
/// asks again, one that is told "reused" never does.
async fn holder_runs_another(
    tx: &mut Transaction<'static, Postgres>,
    claim: &Claim,
) -> Result<bool, Error> {
    // One reading of pg_locks is consistent in itself: who holds the key's lock without this request's?
    let holder: Option<i32> = sqlx::query_scalar(
        "select k.pid from pg_locks k where k.locktype = 'advisory' and k.granted and k.objsubid = 1 and k.mode = 'ExclusiveLock' \
         and k.database = (select oid from pg_database where datname = current_database()) \
         and k.classid::bigint = ($1::bigint >> 32) & 4294967295 and k.objid::bigint = $1::bigint & 4294967295 \
         and not exists (select from pg_locks r where r.pid = k.pid and r.locktype = 'advisory' and r.granted and r.objsubid = 1 \
         and r.database = k.database and r.classid::bigint = ($2::bigint >> 32) & 4294967295 and r.objid::bigint = $2::bigint & 4294967295)",
    )
    .bind(claim.lock())
    .bind(claim.request_lock())
    .fetch_optional(&mut **tx)
    .await
    .map_err(error)?;
    let Some(holder) = holder else {
        return Ok(false);
    };
    // A transaction that is ending lets go of its locks one by one, and may have been caught between the two. One that
    // is idle now and older than this one was not ending then. A statement of its own, because it must look later.
    sqlx::query_scalar(
        "select exists (select from pg_stat_activity where pid = $1 and state like 'idle in transaction%' \
         and xact_start < transaction_timestamp())",
    )
    .bind(holder)
    .fetch_one(&mut **tx)
    .await
    .map_err(error)
}
