//! The outbox on Postgres: what operators change.

use futures_util::future::BoxFuture;
use sqlx::{PgConnection, PgPool, Postgres};

use super::{
    super::{
        Entry, Operate, Step, Stepped,
        step::{Found, Meant, Taken, look_then_take},
    },
    column,
};
use crate::error::{Error, ErrorKind};

impl Operate for Postgres {
    async fn redrive(pool: PgPool, step: Step) -> Result<Stepped, Error> {
        look_then_take(
            step.entry.id,
            || letters(pool.clone(), step.clone(), true),
            |meant| {
                let entry = step.entry.clone();
                transaction(pool.clone(), |tx| Box::pin(redrive(tx, meant, entry)))
            },
        )
        .await
    }

    async fn discard(pool: PgPool, step: Step) -> Result<Stepped, Error> {
        look_then_take(
            step.entry.id,
            || letters(pool.clone(), step.clone(), false),
            |meant| {
                let entry = step.entry.clone();
                transaction(pool.clone(), |tx| Box::pin(discard(tx, meant, entry)))
            },
        )
        .await
    }

    async fn replay(pool: PgPool, step: Step) -> Result<Stepped, Error> {
        look_then_take(
            step.entry.id,
            || kept(pool.clone(), step.clone()),
            |meant| {
                let entry = step.entry.clone();
                transaction(pool.clone(), |tx| Box::pin(replay(tx, meant, entry)))
            },
        )
        .await
    }

    async fn pause(pool: PgPool, pattern: String, actor: String) -> Result<bool, Error> {
        transaction(pool, |tx| {
            Box::pin(async move {
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
                .execute(tx)
                .await?;
                Ok(done.rows_affected() == 1)
            })
        })
        .await
    }

    async fn resume(pool: PgPool, pattern: String, actor: String) -> Result<bool, Error> {
        transaction(pool, |tx| {
            Box::pin(async move {
                let done = sqlx::query(
                    "WITH old AS (
                         DELETE FROM mainstay_outbox_pause WHERE pattern = $1 RETURNING pattern
                     )
                     INSERT INTO mainstay_outbox_audit (actor, action, detail, affected)
                     SELECT $2, 'resume', json_build_object('pattern', pattern)::text, 1 FROM old",
                )
                .bind(pattern)
                .bind(actor)
                .execute(tx)
                .await?;
                Ok(done.rows_affected() == 1)
            })
        })
        .await
    }
}

/// Whatever the application's default is: at a stricter level a lane that was settled meanwhile could not be locked.
///
/// Who waits for a lane may hold others already, and who holds lanes holds up relays. A statement may take longer than the
/// wait for a lock, which is therefore what ends first and is told.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
    SET LOCAL lock_timeout = '5s';
    SET LOCAL statement_timeout = '6s';
    SET LOCAL idle_in_transaction_session_timeout = '10s'";

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
        let mut tx = pool.begin_with(BEGIN).await?;
        let done = work(&mut tx).await?;
        tx.commit().await?;
        Ok(done)
    });
    task.await.map_err(|_| Error::new(ErrorKind::Shutdown))?
}

async fn redrive(
    tx: &mut PgConnection,
    meant: Vec<Meant>,
    entry: Entry,
) -> Result<Taken, sqlx::Error> {
    let ids = still_dead(&mut *tx, &meant, true).await?;
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
    Ok(Taken {
        affected,
        audit: audited(tx, "redrive", affected, entry).await?,
        freed: Vec::new(),
    })
}

async fn discard(
    tx: &mut PgConnection,
    meant: Vec<Meant>,
    entry: Entry,
) -> Result<Taken, sqlx::Error> {
    let ids = still_dead(&mut *tx, &meant, false).await?;
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
    Ok(Taken {
        affected,
        audit: audited(tx, "discard", affected, entry).await?,
        freed,
    })
}

async fn replay(
    tx: &mut PgConnection,
    meant: Vec<Meant>,
    entry: Entry,
) -> Result<Taken, sqlx::Error> {
    lock_lanes(&mut *tx, &meant).await?;
    // What clean-up or another replay has taken meanwhile is not there any more.
    let affected: i64 = sqlx::query_scalar(
        "WITH back AS (
             DELETE FROM mainstay_outbox_delivered d
             USING unnest($1::bigint[], $2::bigint[]) AS w(at, id)
             WHERE d.delivered_at = 'epoch'::timestamptz + w.at * interval '1 microsecond' AND d.id = w.id
             RETURNING d.*
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
    .bind(column(&meant, |row| row.at_micros))
    .bind(column(&meant, |row| row.id))
    .fetch_one(&mut *tx)
    .await?;
    let affected = affected.unsigned_abs();
    Ok(Taken {
        affected,
        audit: audited(tx, "replay", affected, entry).await?,
        freed: Vec::new(),
    })
}

/// Looks for kept deliveries, in the order in which they were delivered. Locks nothing, and takes no transaction number, for
/// which relays' marks would wait.
///
/// Not persistent: planned for each call with what is asked, so that times, and an index that operators may have made for
/// other things, are made use of.
async fn kept(pool: PgPool, step: Step) -> Result<Found, Error> {
    let at_micros = now(&pool).await?;
    let since = step.after.map(|reached| reached.delivered_micros);
    let rows: Vec<(i64, i32, i64)> = sqlx::query_as(
        "SELECT id, lane, (extract(epoch FROM delivered_at) * 1000000)::bigint
         FROM mainstay_outbox_delivered
         WHERE ($1::text IS NULL OR topic = $1 OR ($2 AND starts_with(topic, $1)))
             AND ($3::bytea IS NULL OR key = $3)
             AND ($4::uuid IS NULL OR event_id = $4)
             AND $5::text IS NULL
             AND ($6::bigint IS NULL OR delivered_at >= 'epoch'::timestamptz + $6 * interval '1 microsecond')
             AND ($7::bigint IS NULL OR delivered_at < 'epoch'::timestamptz + $7 * interval '1 microsecond')
             AND ($8::bigint IS NULL OR delivered_at < 'epoch'::timestamptz + $8 * interval '1 microsecond')
             AND ($10::bigint IS NULL OR id > $10
                 OR delivered_at > 'epoch'::timestamptz + $6 * interval '1 microsecond')
         ORDER BY delivered_at, id LIMIT $9",
    )
    .bind(&step.select.topic)
    .bind(step.select.prefix)
    .bind(&step.select.key)
    .bind(step.select.event_id)
    .bind(step.select.cause)
    .bind(since.or(step.select.since_micros))
    .bind(step.select.until_micros)
    .bind(step.started_micros)
    .bind(i64::from(step.limit))
    .bind(step.after.map(|reached| reached.id))
    .persistent(false)
    .fetch_all(&pool)
    .await?;
    Ok(Found {
        at_micros,
        ends: rows.len() < step.limit as usize,
        meant: column(&rows, meant),
    })
}

/// Looks for dead letters, in the order of their places. Locks nothing.
///
/// With `in_front`, a letter of a parked key is only meant when none of the key before it stays. The limit cuts off later
/// ones, so only the rest of the filter is asked again.
async fn letters(pool: PgPool, step: Step, in_front: bool) -> Result<Found, Error> {
    let at_micros = now(&pool).await?;
    let rows: Vec<(i64, i32, i64)> = sqlx::query_as(
        "SELECT d.id, d.lane, (extract(epoch FROM d.died_at) * 1000000)::bigint
         FROM mainstay_outbox_dead d
         WHERE ($1::text IS NULL OR d.topic = $1 OR ($2 AND starts_with(d.topic, $1)))
             AND ($3::bytea IS NULL OR d.key = $3)
             AND ($4::uuid IS NULL OR d.event_id = $4)
             AND ($5::text IS NULL OR d.cause = $5)
             AND ($6::bigint IS NULL OR d.died_at >= 'epoch'::timestamptz + $6 * interval '1 microsecond')
             AND ($7::bigint IS NULL OR d.died_at < 'epoch'::timestamptz + $7 * interval '1 microsecond')
             AND ($8::bigint IS NULL OR d.cause = 'parked'
                 OR d.died_at < 'epoch'::timestamptz + $8 * interval '1 microsecond')
             AND NOT ($10 AND EXISTS (
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
    .bind(in_front)
    .persistent(false)
    .fetch_all(&pool)
    .await?;
    Ok(Found {
        at_micros,
        meant: column(&rows, meant),
        // More of parked keys may have been set aside since.
        ends: false,
    })
}

fn meant(row: &(i64, i32, i64)) -> Meant {
    let (id, lane, at_micros) = *row;
    Meant {
        id,
        lane,
        at_micros,
    }
}

/// Locks the lanes of these letters, in order, and says which of them may be taken by a statement that began after that: what
/// a settlement was burying meanwhile is seen, and from here on none buries or looks at parked keys there.
///
/// With `in_front`, of a parked key only those before which no other stays, be it that this one died after the look.
async fn still_dead(
    tx: &mut PgConnection,
    meant: &[Meant],
    in_front: bool,
) -> Result<Vec<i64>, sqlx::Error> {
    lock_lanes(&mut *tx, meant).await?;
    sqlx::query_scalar(
        "WITH same AS (
             SELECT d.id, d.lane, d.topic, d.key
             FROM unnest($1::bigint[], $2::bigint[]) AS w(id, at)
             JOIN mainstay_outbox_dead d
                 ON d.id = w.id AND (extract(epoch FROM d.died_at) * 1000000)::bigint = w.at
         )
         SELECT s.id FROM same s
         WHERE NOT ($3 AND EXISTS (
             SELECT FROM mainstay_outbox_parked k
             JOIN mainstay_outbox_dead e
                 ON e.lane = k.lane AND e.key = k.key AND e.id >= k.first AND e.topic = k.topic
             WHERE k.lane = s.lane AND k.topic = s.topic AND k.key = s.key AND e.id < s.id
                 AND e.id NOT IN (SELECT id FROM same)))
         ORDER BY s.id",
    )
    .bind(column(meant, |row| row.id))
    .bind(column(meant, |row| row.at_micros))
    .bind(in_front)
    .fetch_all(tx)
    .await
}

/// Locks the lanes of these rows, in order, as settlements do.
async fn lock_lanes(tx: &mut PgConnection, meant: &[Meant]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "SELECT lane FROM mainstay_outbox_lane WHERE lane = ANY ($1) ORDER BY lane FOR UPDATE",
    )
    .bind(column(meant, |row| row.lane))
    .execute(tx)
    .await?;
    Ok(())
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
async fn now(pool: &PgPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        .fetch_one(pool)
        .await
}
