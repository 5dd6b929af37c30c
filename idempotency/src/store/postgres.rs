//! Postgres. Everything runs at READ COMMITTED: a claim must see what committed after its transaction began.

use std::borrow::Cow;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, PgPool, Postgres, Row, SqlSafeStr, SqlStr, Transaction};

use super::{Claim, Claimed, IdempotencyDb, Inserted, Seen, lock};
use crate::{Error, ErrorKind, Fingerprint, Key, Recorded, Scope, Wait};

const MIGRATIONS: &[(i32, &str)] = &[
    (
        1,
        include_str!("../../migrations/postgres/0001_keys_and_inbox.sql"),
    ),
    (2, include_str!("../../migrations/postgres/0002_leases.sql")),
    (3, include_str!("../../migrations/postgres/0003_claim.sql")),
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

    /// A record is read without a transaction: one round trip, and nothing in the log. Else the claim comes with the BEGIN
    /// that makes a transaction of it: a second one.
    async fn begin_claim(
        pool: &PgPool,
        claim: &Claim,
        idle_max: Duration,
        wait: Wait,
    ) -> Result<(Option<Transaction<'static, Postgres>>, Claimed), Error> {
        for _ in 0..2 {
            // Of this round only: who holds a connection and asks for another may wait for one that waits for him.
            let mut conn = pool.acquire().await.map_err(error)?;
            // A lock that is held is seen by failing to share it, so that an error in the server's log remains for races.
            let row = sqlx::query(
                "select k.fingerprint, k.status::bigint, k.headers, k.body, (extract(epoch from clock_timestamp()) * 1000)::bigint, \
                 case when k.fingerprint is null then pg_try_advisory_xact_lock_shared($3) end \
                 from (select 1) one left join mainstay_key k on k.scope = $1 and k.key = $2",
            )
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
        let mut tx = Self::begin(pool).await?;
        match Self::claim(&mut tx, claim, idle_max, wait).await {
            Ok(claimed) => Ok((Some(tx), claimed)),
            Err(error) => {
                Self::rollback(tx).await;
                Err(error)
            }
        }
    }

    async fn claim(
        tx: &mut Transaction<'static, Postgres>,
        claim: &Claim,
        idle_max: Duration,
        wait: Wait,
    ) -> Result<Claimed, Error> {
        // The lock of the request is taken before the lock of the key, so whoever holds a key also shows what for.
        // CASE fixes the order. Both are advisory and go with the transaction; neither waits.
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
        let row = sqlx::query(
            "select k.fingerprint, k.status::bigint, k.headers, k.body, (extract(epoch from clock_timestamp()) * 1000)::bigint \
             from (select 1) one left join mainstay_key k on k.scope = $1 and k.key = $2",
        )
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

    async fn record(
        tx: &mut Transaction<'static, Postgres>,
        claim: &Claim,
        recorded: &Recorded,
    ) -> Result<Inserted, Error> {
        let headers = recorded
            .encode_headers()
            .map_err(|reason| Error::new(ErrorKind::Database, reason))?;
        // Waits for a transaction that inserts the same key without the lock, then fails with 23505: the index decides.
        // The setting lives as long as the claim's transaction: if the handler ended that, nothing is inserted.
        let inserted = sqlx::query(
            "insert into mainstay_key (scope, key, fingerprint, status, headers, body) \
             select $1, $2, $3, $4, $5, $6 where current_setting('mainstay.claim', true) = $7",
        )
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
            Err(sqlx::Error::Database(refused))
                if refused.constraint() == Some("mainstay_key_pkey") =>
            {
                Ok(Inserted::Taken)
            }
            Err(other) => Err(error(other)),
        }
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
        let row = sqlx::query("select fingerprint, status::bigint, headers, body from mainstay_key where scope = $1 and key = $2")
            .bind(scope.as_bytes())
            .bind(key.as_bytes())
            .fetch_optional(pool)
            .await
            .map_err(error)?;
        row.as_ref().map_or(Ok(None), record_of)
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
        // SKIP LOCKED: two reapers share the work instead of waiting for each other.
        let deleted = sqlx::query(
            "delete from mainstay_key where ctid = any (array(select ctid from mainstay_key \
             where created_at < now() - make_interval(secs => $1) limit $2 for update skip locked))",
        )
        .bind(interval_secs(older_than))
        .bind(i64::from(batch_max))
        .execute(pool)
        .await
        .map_err(error)?;
        Ok(deleted.rows_affected())
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

/// One simple query: its statements share a transaction, which the BEGIN at the end keeps open. Where the claim fails there
/// is none to keep, and the connection is as clean as before. Its arguments are numbers and hexadecimal digits.
fn claim_and_begin(claim: &Claim, idle_max: Duration) -> SqlStr {
    let (request, key) = (claim.request_lock(), claim.lock());
    let (scope_hex, key_hex) = (hex(claim.scope.as_bytes()), hex(claim.key.as_bytes()));
    let idle_ms = setting_ms(idle_max);
    AssertSqlSafe(format!(
        "set transaction isolation level read committed read write; \
         select mainstay_claim({request}, {key}, decode('{scope_hex}', 'hex'), decode('{key_hex}', 'hex'), '{idle_ms}'); begin"
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

/// As a setting takes it: 0 would mean no limit, and there is a largest.
pub(crate) fn setting_ms(duration: Duration) -> String {
    duration.as_millis().clamp(1, 2_147_483_647).to_string()
}

/// At most a hundred years: intervals, and times before now, have an end.
pub(crate) fn interval_secs(duration: Duration) -> f64 {
    duration.as_secs_f64().min(100.0 * 365.0 * 86_400.0)
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

pub(crate) fn error(error: sqlx::Error) -> Error {
    let kind = match &error {
        sqlx::Error::Database(refused) => match refused.code().as_deref() {
            Some("40001" | "40P01" | "55P03" | "57014") => ErrorKind::Busy,
            Some("25P02") => ErrorKind::TransactionEnded,
            Some(code)
                if code.starts_with("08")
                    || code.starts_with("53")
                    || code.starts_with("57P")
                    || code == "25006"
                    || code == "25P03" =>
            {
                ErrorKind::Unavailable
            }
            _ => ErrorKind::Database,
        },
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

/// A standby refuses `READ WRITE` as a feature that it lacks: the database to write to is elsewhere.
fn not_begun(refused: sqlx::Error) -> Error {
    if code_of(&refused).is_some_and(|code| code == "0A000") {
        Error::new(ErrorKind::Unavailable, refused)
    } else {
        error(refused)
    }
}

/// A deferred constraint or its trigger, a serialization failure, a deadlock: refused. What else may be sent in answer
/// to a COMMIT, such as a shutdown or a failing disk, does not say on which side of it the server was; 40003 even says
/// that nobody knows.
fn not_committed(lost: sqlx::Error) -> Error {
    const REFUSED: [&str; 4] = ["23", "40001", "40P01", "P0"];
    if code_of(&lost).is_some_and(|code| REFUSED.iter().any(|start| code.starts_with(start))) {
        error(lost)
    } else {
        Error::new(ErrorKind::Unavailable, lost)
    }
}

fn code_of(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(DatabaseError::code)
}

#[cfg(test)]
mod tests {
    use std::error::Error as StdError;
    use std::fmt;

    use sqlx::error::ErrorKind as SqlKind;

    use super::*;

    #[derive(Debug)]
    struct Answer(&'static str);

    impl fmt::Display for Answer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl StdError for Answer {}

    impl DatabaseError for Answer {
        fn message(&self) -> &str {
            self.0
        }
        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
        }
        fn kind(&self) -> SqlKind {
            SqlKind::Other
        }
        fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
            self
        }
        fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
            self
        }
        fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
            self
        }
    }

    fn answer(code: &'static str) -> sqlx::Error {
        sqlx::Error::Database(Box::new(Answer(code)))
    }

    #[test]
    fn a_standby_is_a_database_that_cannot_be_reached() {
        assert_eq!(not_begun(answer("0A000")).kind(), ErrorKind::Unavailable);
        assert_eq!(not_begun(answer("57P03")).kind(), ErrorKind::Unavailable);
        assert_eq!(error(answer("0A000")).kind(), ErrorKind::Database);
    }

    #[test]
    fn only_a_refusal_says_that_nothing_was_committed() {
        for (code, kind) in [
            ("23503", ErrorKind::Database),
            ("P0001", ErrorKind::Database),
            ("40001", ErrorKind::Busy),
            ("40P01", ErrorKind::Busy),
            ("40003", ErrorKind::Unavailable),
            ("57P01", ErrorKind::Unavailable),
            ("58030", ErrorKind::Unavailable),
            ("XX000", ErrorKind::Unavailable),
        ] {
            assert_eq!(not_committed(answer(code)).kind(), kind, "{code}");
        }
    }
}
