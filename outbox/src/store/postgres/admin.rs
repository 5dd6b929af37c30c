//! The outbox on Postgres: what operators change.

use futures_util::future::BoxFuture;
use sqlx::{PgConnection, PgPool, Postgres};

use super::{
    super::{Entry, Operate, Step, Stepped},
    column,
};
use crate::error::{Error, ErrorKind};

impl Operate for Postgres {
    async fn redrive(pool: PgPool, step: Step) -> Result<Stepped, Error> {
        transaction(pool, |tx| Box::pin(redrive(tx, step))).await
    }

    async fn discard(pool: PgPool, step: Step) -> Result<Stepped, Error> {
        transaction(pool, |tx| Box::pin(discard(tx, step))).await
    }

    async fn replay(pool: PgPool, step: Step) -> Result<Stepped, Error> {
        transaction(pool, |tx| Box::pin(replay(tx, step))).await
    }

    async fn pause(pool: PgPool, pattern: String, actor: String) -> Result<bool, Error> {
        let done = sqlx::query(
            "WITH new AS (
                 INSERT INTO mainstay_outbox_pause (pattern, actor) VALUES ($1, $2)
                 ON CONFLICT DO NOTHING
                 RETURNING pattern
             )
             INSERT INTO mainstay_outbox_audit (actor, action, detail, affected)
             SELECT $2, 'pause', json_build_object('pattern', pattern)::text, 1 FROM new",
        )
        .bind(pattern)
        .bind(actor)
        .execute(&pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn resume(pool: PgPool, pattern: String, actor: String) -> Result<bool, Error> {
        let done = sqlx::query(
            "WITH old AS (
                 DELETE FROM mainstay_outbox_pause WHERE pattern = $1 RETURNING pattern
             )
             INSERT INTO mainstay_outbox_audit (actor, action, detail, affected)
             SELECT $2, 'resume', json_build_object('pattern', pattern)::text, 1 FROM old",
        )
        .bind(pattern)
        .bind(actor)
        .execute(&pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }
}

/// Runs `work` in a transaction in a task of its own, so that dropping the caller cuts nothing in half, and with limits on
/// the server, so that lanes are neither waited for nor held for long.
async fn transaction<T, F>(pool: PgPool, work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, sqlx::Error>>
        + Send
        + 'static,
{
    let task = tokio::spawn(async move {
        let mut tx = pool.begin().await?;
        sqlx::raw_sql(
            "SET LOCAL lock_timeout = '10s'; SET LOCAL idle_in_transaction_session_timeout = '10s'",
        )
        .execute(&mut *tx)
        .await?;
        let done = work(&mut tx).await?;
        tx.commit().await?;
        Ok(done)
    });
    task.await.map_err(|_| Error::new(ErrorKind::Shutdown))?
}

async fn redrive(tx: &mut PgConnection, step: Step) -> Result<Stepped, sqlx::Error> {
    let at_micros = now(&mut *tx).await?;
    let ids = pick_dead(&mut *tx, &step, true).await?;
    // Parked keys are raised to the last that goes, or forgotten when nothing of them stays.
    let affected: i64 = sqlx::query_scalar(
        "WITH back AS (
             DELETE FROM mainstay_outbox_dead WHERE id = ANY ($1) RETURNING *
         ), put AS (
             INSERT INTO mainstay_outbox_message
                 (id, lane, event_id, source, type, topic, subject, time, content_type, key, ordered, headers, payload,
                  enqueued_at, failures)
             SELECT id, lane, event_id, source, type, topic, subject, time, content_type, key, ordered, headers, payload,
                 enqueued_at, failures
             FROM back
         ), rewound AS (
             UPDATE mainstay_outbox_lane SET rewinds = rewinds + 1 WHERE lane IN (SELECT lane FROM back)
         ), freed AS (
             DELETE FROM mainstay_outbox_parked k
             USING (SELECT DISTINCT lane, topic, key FROM back) b
             WHERE k.lane = b.lane AND k.topic = b.topic AND k.key = b.key
                 AND NOT EXISTS (
                     SELECT FROM mainstay_outbox_dead d
                     WHERE d.lane = k.lane AND d.key = k.key AND d.id >= k.first AND d.topic = k.topic
                         AND d.id <> ALL ($1))
         ), raised AS (
             UPDATE mainstay_outbox_parked k SET above = greatest(k.above, b.last)
             FROM (SELECT lane, topic, key, max(id) AS last FROM back GROUP BY lane, topic, key) b
             WHERE k.lane = b.lane AND k.topic = b.topic AND k.key = b.key
                 AND EXISTS (
                     SELECT FROM mainstay_outbox_dead d
                     WHERE d.lane = k.lane AND d.key = k.key AND d.id >= k.first AND d.topic = k.topic
                         AND d.id <> ALL ($1))
         )
         SELECT count(*) FROM back",
    )
    .bind(&ids)
    .fetch_one(&mut *tx)
    .await?;
    let affected = affected.unsigned_abs();
    Ok(Stepped {
        affected,
        audit: audited(tx, "redrive", affected, step.entry).await?,
        at_micros,
        freed: Vec::new(),
    })
}

async fn discard(tx: &mut PgConnection, step: Step) -> Result<Stepped, sqlx::Error> {
    let at_micros = now(&mut *tx).await?;
    let ids = pick_dead(&mut *tx, &step, false).await?;
    let gone: Vec<(i32, String, Option<Vec<u8>>)> = sqlx::query_as(
        "DELETE FROM mainstay_outbox_dead WHERE id = ANY ($1) RETURNING lane, topic, key",
    )
    .bind(&ids)
    .fetch_all(&mut *tx)
    .await?;
    let lanes = column(&gone, |row| row.0);
    let topics = column(&gone, |row| row.1.as_str());
    let keys = column(&gone, |row| row.2.as_deref());
    // A statement of its own, which sees what is left.
    sqlx::query(
        "DELETE FROM mainstay_outbox_parked k
         USING (SELECT DISTINCT * FROM unnest($1::integer[], $2::text[], $3::bytea[])) AS b(lane, topic, key)
         WHERE k.lane = b.lane AND k.topic = b.topic AND k.key = b.key
             AND NOT EXISTS (
                 SELECT FROM mainstay_outbox_dead d
                 WHERE d.lane = k.lane AND d.key = k.key AND d.id >= k.first AND d.topic = k.topic)",
    )
    .bind(&lanes)
    .bind(&topics)
    .bind(&keys)
    .execute(&mut *tx)
    .await?;
    let freed = sqlx::query_as(
        "SELECT DISTINCT k.topic, k.key FROM mainstay_outbox_parked k
         JOIN unnest($1::integer[], $2::text[], $3::bytea[]) AS b(lane, topic, key)
             ON k.lane = b.lane AND k.topic = b.topic AND k.key = b.key
         WHERE NOT EXISTS (
             SELECT FROM mainstay_outbox_dead d
             WHERE d.lane = k.lane AND d.key = k.key AND d.id >= k.first AND d.topic = k.topic
                 AND d.cause <> 'parked')",
    )
    .bind(&lanes)
    .bind(&topics)
    .bind(&keys)
    .fetch_all(&mut *tx)
    .await?;
    let affected = gone.len() as u64;
    Ok(Stepped {
        affected,
        audit: audited(tx, "discard", affected, step.entry).await?,
        at_micros,
        freed,
    })
}

async fn replay(tx: &mut PgConnection, step: Step) -> Result<Stepped, sqlx::Error> {
    let at_micros = now(&mut *tx).await?;
    let mut lanes: Option<Vec<i32>> = None;
    let picked = loop {
        // SKIP LOCKED: what clean-up or another replay takes at this moment is not there. Rows are named by where they
        // are: nothing updates them, and their locks are held.
        let picked: Vec<(String, i32)> = sqlx::query_as(
            "SELECT ctid::text, lane FROM mainstay_outbox_delivered
             WHERE ($1::text IS NULL OR topic = $1 OR ($2 AND starts_with(topic, $1)))
                 AND ($3::bytea IS NULL OR key = $3)
                 AND ($4::uuid IS NULL OR event_id = $4)
                 AND $5::text IS NULL
                 AND ($6::bigint IS NULL OR delivered_at >= 'epoch'::timestamptz + $6 * interval '1 microsecond')
                 AND ($7::bigint IS NULL OR delivered_at < 'epoch'::timestamptz + $7 * interval '1 microsecond')
                 AND ($8::bigint IS NULL OR delivered_at < 'epoch'::timestamptz + $8 * interval '1 microsecond')
                 AND ($10::integer[] IS NULL OR lane = ANY ($10))
             ORDER BY delivered_at, id LIMIT $9
             FOR UPDATE SKIP LOCKED",
        )
        .bind(&step.select.topic)
        .bind(step.select.prefix)
        .bind(&step.select.key)
        .bind(step.select.event_id)
        .bind(step.select.cause)
        .bind(step.select.since_micros)
        .bind(step.select.until_micros)
        .bind(step.started_micros)
        .bind(i64::from(step.limit))
        .bind(&lanes)
        .fetch_all(&mut *tx)
        .await?;
        if lanes.is_some() {
            break picked;
        }
        lanes = Some(locked(&mut *tx, column(&picked, |row| row.1)).await?);
    };
    let affected: i64 = sqlx::query_scalar(
        "WITH back AS (
             DELETE FROM mainstay_outbox_delivered WHERE ctid = ANY ($1::text[]::tid[]) RETURNING *
         ), put AS (
             INSERT INTO mainstay_outbox_message
                 (id, lane, event_id, source, type, topic, subject, time, content_type, key, ordered, headers, payload,
                  enqueued_at)
             SELECT id, lane, event_id, source, type, topic, subject, time, content_type, key, ordered, headers, payload,
                 enqueued_at
             FROM back
         ), rewound AS (
             UPDATE mainstay_outbox_lane SET rewinds = rewinds + 1 WHERE lane IN (SELECT lane FROM back)
         )
         SELECT count(*) FROM back",
    )
    .bind(column(&picked, |row| row.0.as_str()))
    .fetch_one(&mut *tx)
    .await?;
    let affected = affected.unsigned_abs();
    Ok(Stepped {
        affected,
        audit: audited(tx, "replay", affected, step.entry).await?,
        at_micros,
        freed: Vec::new(),
    })
}

/// Locks the lanes of the letters that are meant, in order, and says which letters they are by a statement that began after
/// that: what a settlement was burying meanwhile is seen, and from here on none buries or looks at parked keys there.
///
/// With `in_front`, a letter of a parked key is only meant when none of the key before it stays. The limit cuts off later
/// ones, so only the rest of the filter is asked again.
async fn pick_dead(
    tx: &mut PgConnection,
    step: &Step,
    in_front: bool,
) -> Result<Vec<i64>, sqlx::Error> {
    let mut lanes: Option<Vec<i32>> = None;
    loop {
        let picked: Vec<(i64, i32)> = sqlx::query_as(
            "SELECT d.id, d.lane FROM mainstay_outbox_dead d
             WHERE ($1::text IS NULL OR d.topic = $1 OR ($2 AND starts_with(d.topic, $1)))
                 AND ($3::bytea IS NULL OR d.key = $3)
                 AND ($4::uuid IS NULL OR d.event_id = $4)
                 AND ($5::text IS NULL OR d.cause = $5)
                 AND ($6::bigint IS NULL OR d.died_at >= 'epoch'::timestamptz + $6 * interval '1 microsecond')
                 AND ($7::bigint IS NULL OR d.died_at < 'epoch'::timestamptz + $7 * interval '1 microsecond')
                 AND ($8::bigint IS NULL OR d.cause = 'parked'
                     OR d.died_at < 'epoch'::timestamptz + $8 * interval '1 microsecond')
                 AND ($10::integer[] IS NULL OR d.lane = ANY ($10))
                 AND NOT ($11 AND EXISTS (
                     SELECT FROM mainstay_outbox_parked k
                     JOIN mainstay_outbox_dead e
                         ON e.lane = k.lane AND e.key = k.key AND e.id >= k.first AND e.topic = k.topic
                     WHERE k.lane = d.lane AND k.topic = d.topic AND k.key = d.key AND e.id < d.id AND NOT (
                         ($4::uuid IS NULL OR e.event_id = $4)
                         AND ($5::text IS NULL OR e.cause = $5)
                         AND ($6::bigint IS NULL OR e.died_at >= 'epoch'::timestamptz + $6 * interval '1 microsecond')
                         AND ($7::bigint IS NULL OR e.died_at < 'epoch'::timestamptz + $7 * interval '1 microsecond')
                         AND ($8::bigint IS NULL OR e.cause = 'parked'
                             OR e.died_at < 'epoch'::timestamptz + $8 * interval '1 microsecond'))))
             ORDER BY d.id LIMIT $9",
        )
        .bind(&step.select.topic)
        .bind(step.select.prefix)
        .bind(&step.select.key)
        .bind(step.select.event_id)
        .bind(step.select.cause)
        .bind(step.select.since_micros)
        .bind(step.select.until_micros)
        .bind(step.started_micros)
        .bind(i64::from(step.limit))
        .bind(&lanes)
        .bind(in_front)
        .fetch_all(&mut *tx)
        .await?;
        if lanes.is_some() {
            return Ok(column(&picked, |row| row.0));
        }
        lanes = Some(locked(&mut *tx, column(&picked, |row| row.1)).await?);
    }
}

/// Locks these lanes, in order, as settlements do.
async fn locked(tx: &mut PgConnection, lanes: Vec<i32>) -> Result<Vec<i32>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT lane FROM mainstay_outbox_lane WHERE lane = ANY ($1) ORDER BY lane FOR UPDATE",
    )
    .bind(lanes)
    .fetch_all(tx)
    .await
}

/// Writes the change down, in the row its first step wrote if there is one. Nothing changed, nothing written.
async fn audited(
    tx: &mut PgConnection,
    action: &'static str,
    affected: u64,
    entry: Entry,
) -> Result<Option<i64>, sqlx::Error> {
    let affected = i64::try_from(affected).unwrap_or(i64::MAX);
    match entry.id {
        _ if affected == 0 => Ok(entry.id),
        Some(id) => {
            sqlx::query("UPDATE mainstay_outbox_audit SET affected = affected + $2 WHERE id = $1")
                .bind(id)
                .bind(affected)
                .execute(tx)
                .await?;
            Ok(Some(id))
        }
        None => {
            let id = sqlx::query_scalar(
                "INSERT INTO mainstay_outbox_audit (actor, action, detail, affected) VALUES ($1, $2, $3, $4)
                 RETURNING id",
            )
            .bind(entry.actor)
            .bind(action)
            .bind(entry.detail)
            .bind(affected)
            .fetch_one(tx)
            .await?;
            Ok(Some(id))
        }
    }
}

/// The database's clock, microseconds since 1970.
async fn now(tx: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        .fetch_one(tx)
        .await
}
