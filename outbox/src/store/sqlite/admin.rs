//! The outbox on SQLite: what operators change. One writer at a time: the lanes need no locks of their own, and who looks
//! for what is meant does not hold the one there is.

use sqlx::{Sqlite, SqliteConnection, SqlitePool};

use super::{
    super::{
        Entry, Operate, Step, Stepped,
        step::{Found, Meant, Taken, look_then_take},
    },
    immediate, json,
};
use crate::error::Error;

impl Operate for Sqlite {
    async fn redrive(pool: SqlitePool, step: Step) -> Result<Stepped, Error> {
        look_then_take(
            step.entry.id,
            || letters(pool.clone(), step.clone(), true),
            |meant| {
                let entry = step.entry.clone();
                immediate(pool.clone(), |tx| Box::pin(redrive(tx, meant, entry)))
            },
        )
        .await
    }

    async fn discard(pool: SqlitePool, step: Step) -> Result<Stepped, Error> {
        look_then_take(
            step.entry.id,
            || letters(pool.clone(), step.clone(), false),
            |meant| {
                let entry = step.entry.clone();
                immediate(pool.clone(), |tx| Box::pin(discard(tx, meant, entry)))
            },
        )
        .await
    }

    async fn replay(pool: SqlitePool, step: Step) -> Result<Stepped, Error> {
        look_then_take(
            step.entry.id,
            || kept(pool.clone(), step.clone()),
            |meant| {
                let entry = step.entry.clone();
                immediate(pool.clone(), |tx| Box::pin(replay(tx, meant, entry)))
            },
        )
        .await
    }

    async fn pause(pool: SqlitePool, pattern: String, actor: String) -> Result<bool, Error> {
        immediate(pool, |tx| {
            Box::pin(async move {
                let done = sqlx::query(
                    "INSERT INTO mainstay_outbox_pause (pattern, actor, since)
                     VALUES (?1, ?2, CAST(round(unixepoch('subsec') * 1000000) AS INTEGER))
                     ON CONFLICT DO NOTHING",
                )
                .bind(&pattern)
                .bind(&actor)
                .execute(&mut *tx)
                .await?;
                let new = done.rows_affected() == 1;
                audited(tx, "pause", u64::from(new), pattern_entry(&pattern, actor)).await?;
                Ok(new)
            })
        })
        .await
    }

    async fn resume(pool: SqlitePool, pattern: String, actor: String) -> Result<bool, Error> {
        immediate(pool, |tx| {
            Box::pin(async move {
                let done = sqlx::query("DELETE FROM mainstay_outbox_pause WHERE pattern = ?1")
                    .bind(&pattern)
                    .execute(&mut *tx)
                    .await?;
                let old = done.rows_affected() == 1;
                audited(tx, "resume", u64::from(old), pattern_entry(&pattern, actor)).await?;
                Ok(old)
            })
        })
        .await
    }
}

async fn redrive(
    tx: &mut SqliteConnection,
    meant: Vec<Meant>,
    entry: Entry,
) -> Result<Taken, sqlx::Error> {
    let ids = json(&still_dead(&mut *tx, &meant, true).await?);
    sqlx::query(
        "UPDATE mainstay_outbox_lane SET rewinds = rewinds + 1
         WHERE lane IN (SELECT lane FROM mainstay_outbox_dead WHERE id IN (SELECT value FROM json_each(?1)))",
    )
    .bind(&ids)
    .execute(&mut *tx)
    .await?;
    // Parked keys are raised to the last that goes, or forgotten when nothing of them stays.
    sqlx::query(
        "DELETE FROM mainstay_outbox_parked
         WHERE (lane, topic, key) IN (
                 SELECT lane, topic, key FROM mainstay_outbox_dead WHERE id IN (SELECT value FROM json_each(?1)))
             AND NOT EXISTS (
                 SELECT 1 FROM mainstay_outbox_dead d
                 WHERE d.lane = mainstay_outbox_parked.lane AND d.key = mainstay_outbox_parked.key
                     AND d.id >= mainstay_outbox_parked.first AND d.topic = mainstay_outbox_parked.topic
                     AND d.id NOT IN (SELECT value FROM json_each(?1)))",
    )
    .bind(&ids)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE mainstay_outbox_parked SET above = max(above, b.last)
         FROM (
             SELECT lane, topic, key, max(id) AS last FROM mainstay_outbox_dead
             WHERE id IN (SELECT value FROM json_each(?1)) GROUP BY lane, topic, key) b
         WHERE mainstay_outbox_parked.lane = b.lane AND mainstay_outbox_parked.topic = b.topic
             AND mainstay_outbox_parked.key = b.key",
    )
    .bind(&ids)
    .execute(&mut *tx)
    .await?;
    sqlx::query(concat!(
        "INSERT INTO mainstay_outbox_message (",
        event_columns!(),
        ", failures)
         SELECT ",
        event_columns!(),
        ", failures
         FROM mainstay_outbox_dead WHERE id IN (SELECT value FROM json_each(?1))"
    ))
    .bind(&ids)
    .execute(&mut *tx)
    .await?;
    let gone = sqlx::query(
        "DELETE FROM mainstay_outbox_dead WHERE id IN (SELECT value FROM json_each(?1))",
    )
    .bind(&ids)
    .execute(&mut *tx)
    .await?;
    let affected = gone.rows_affected();
    Ok(Taken {
        affected,
        audit: audited(tx, "redrive", affected, entry).await?,
        freed: Vec::new(),
    })
}

async fn discard(
    tx: &mut SqliteConnection,
    meant: Vec<Meant>,
    entry: Entry,
) -> Result<Taken, sqlx::Error> {
    let ids = json(&still_dead(&mut *tx, &meant, false).await?);
    sqlx::query(
        "DELETE FROM mainstay_outbox_parked
         WHERE (lane, topic, key) IN (
                 SELECT lane, topic, key FROM mainstay_outbox_dead WHERE id IN (SELECT value FROM json_each(?1)))
             AND NOT EXISTS (
                 SELECT 1 FROM mainstay_outbox_dead d
                 WHERE d.lane = mainstay_outbox_parked.lane AND d.key = mainstay_outbox_parked.key
                     AND d.id >= mainstay_outbox_parked.first AND d.topic = mainstay_outbox_parked.topic
                     AND d.id NOT IN (SELECT value FROM json_each(?1)))",
    )
    .bind(&ids)
    .execute(&mut *tx)
    .await?;
    let freed = sqlx::query_as(
        "SELECT k.topic, k.key FROM mainstay_outbox_parked k
         WHERE (k.lane, k.topic, k.key) IN (
                 SELECT lane, topic, key FROM mainstay_outbox_dead WHERE id IN (SELECT value FROM json_each(?1)))
             AND NOT EXISTS (
                 SELECT 1 FROM mainstay_outbox_dead d
                 WHERE d.lane = k.lane AND d.key = k.key AND d.id >= k.first AND d.topic = k.topic
                     AND d.cause <> 'parked' AND d.id NOT IN (SELECT value FROM json_each(?1)))",
    )
    .bind(&ids)
    .fetch_all(&mut *tx)
    .await?;
    let gone = sqlx::query(
        "DELETE FROM mainstay_outbox_dead WHERE id IN (SELECT value FROM json_each(?1))",
    )
    .bind(&ids)
    .execute(&mut *tx)
    .await?;
    let affected = gone.rows_affected();
    Ok(Taken {
        affected,
        audit: audited(tx, "discard", affected, entry).await?,
        freed,
    })
}

async fn replay(
    tx: &mut SqliteConnection,
    meant: Vec<Meant>,
    entry: Entry,
) -> Result<Taken, sqlx::Error> {
    let meant: Vec<_> = meant.iter().map(|row| (row.at_micros, row.id)).collect();
    // What clean-up or another replay has taken meanwhile is not there any more. From here on rows are named by where they
    // are: nobody else writes.
    let rows: Vec<i64> = sqlx::query_scalar(
        "SELECT d.rowid FROM json_each(?1) w
         CROSS JOIN mainstay_outbox_delivered d ON d.delivered_at = w.value ->> 0 AND d.id = w.value ->> 1",
    )
    .bind(json(&meant))
    .fetch_all(&mut *tx)
    .await?;
    let rows = json(&rows);
    sqlx::query(
        "UPDATE mainstay_outbox_lane SET rewinds = rewinds + 1
         WHERE lane IN (SELECT lane FROM mainstay_outbox_delivered WHERE rowid IN (SELECT value FROM json_each(?1)))",
    )
    .bind(&rows)
    .execute(&mut *tx)
    .await?;
    sqlx::query(concat!(
        "INSERT INTO mainstay_outbox_message (",
        event_columns!(),
        ")
         SELECT ",
        event_columns!(),
        " FROM mainstay_outbox_delivered WHERE rowid IN (SELECT value FROM json_each(?1))"
    ))
    .bind(&rows)
    .execute(&mut *tx)
    .await?;
    let gone = sqlx::query(
        "DELETE FROM mainstay_outbox_delivered WHERE rowid IN (SELECT value FROM json_each(?1))",
    )
    .bind(&rows)
    .execute(&mut *tx)
    .await?;
    let affected = gone.rows_affected();
    Ok(Taken {
        affected,
        audit: audited(tx, "replay", affected, entry).await?,
        freed: Vec::new(),
    })
}

/// Looks for kept deliveries, in the order in which they were delivered, from the beginning of the times that are meant to
/// their end.
async fn kept(pool: SqlitePool, step: Step) -> Result<Found, Error> {
    let at_micros = now(&pool).await?;
    let since = step.after.map(|reached| reached.delivered_micros);
    let untils = [step.select.until_micros, step.started_micros];
    let rows: Vec<(i64, i32, i64)> = sqlx::query_as(
        "SELECT id, lane, delivered_at FROM mainstay_outbox_delivered
         WHERE (?1 IS NULL OR topic = ?1 OR (?2 AND substr(topic, 1, length(?1)) = ?1))
             AND (?3 IS NULL OR key = ?3)
             AND (?4 IS NULL OR event_id = ?4)
             AND ?5 IS NULL
             AND delivered_at >= ?6 AND delivered_at < ?7
             AND (?8 IS NULL OR id > ?8 OR delivered_at > ?6)
         ORDER BY delivered_at, id LIMIT ?9",
    )
    .bind(&step.select.topic)
    .bind(step.select.prefix)
    .bind(&step.select.key)
    .bind(step.select.event_id)
    .bind(step.select.cause)
    .bind(since.or(step.select.since_micros).unwrap_or(i64::MIN))
    .bind(untils.into_iter().flatten().min().unwrap_or(i64::MAX))
    .bind(step.after.map(|reached| reached.id))
    .bind(i64::from(step.limit))
    .fetch_all(&pool)
    .await?;
    Ok(Found {
        at_micros,
        ends: rows.len() < step.limit as usize,
        meant: rows.iter().map(meant).collect(),
    })
}

/// Looks for dead letters, in the order of their places.
///
/// With `in_front`, a letter of a parked key is only meant when none of the key before it stays. The limit cuts off later
/// ones, so only the rest of the filter is asked again.
async fn letters(pool: SqlitePool, step: Step, in_front: bool) -> Result<Found, Error> {
    let at_micros = now(&pool).await?;
    let rows: Vec<(i64, i32, i64)> = sqlx::query_as(
        "SELECT d.id, d.lane, d.died_at FROM mainstay_outbox_dead d
         WHERE (?1 IS NULL OR d.topic = ?1 OR (?2 AND substr(d.topic, 1, length(?1)) = ?1))
             AND (?3 IS NULL OR d.key = ?3)
             AND (?4 IS NULL OR d.event_id = ?4)
             AND (?5 IS NULL OR d.cause = ?5)
             AND (?6 IS NULL OR d.died_at >= ?6)
             AND (?7 IS NULL OR d.died_at < ?7)
             AND (?8 IS NULL OR d.cause = 'parked' OR d.died_at < ?8)
             AND NOT (?10 AND EXISTS (
                 SELECT 1 FROM mainstay_outbox_parked k
                 CROSS JOIN mainstay_outbox_dead e
                     ON e.lane = k.lane AND e.key = k.key AND e.id >= k.first AND e.topic = k.topic
                 WHERE k.lane = d.lane AND k.topic = d.topic AND k.key = d.key AND e.id < d.id AND NOT (
                     (?4 IS NULL OR e.event_id = ?4)
                     AND (?5 IS NULL OR e.cause = ?5)
                     AND (?6 IS NULL OR e.died_at >= ?6)
                     AND (?7 IS NULL OR e.died_at < ?7)
                     AND (?8 IS NULL OR e.cause = 'parked' OR e.died_at < ?8))))
         ORDER BY d.id LIMIT ?9",
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
    .fetch_all(&pool)
    .await?;
    Ok(Found {
        at_micros,
        meant: rows.iter().map(meant).collect(),
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

/// Which of these letters may be taken, now that nobody else writes.
///
/// With `in_front`, of a parked key only those before which no other stays, be it that this one died after the look.
async fn still_dead(
    tx: &mut SqliteConnection,
    meant: &[Meant],
    in_front: bool,
) -> Result<Vec<i64>, sqlx::Error> {
    let meant: Vec<_> = meant.iter().map(|row| (row.id, row.at_micros)).collect();
    sqlx::query_scalar(
        "WITH same AS MATERIALIZED (
             SELECT d.id, d.lane, d.topic, d.key
             FROM json_each(?1) w
             CROSS JOIN mainstay_outbox_dead d ON d.id = w.value ->> 0 AND d.died_at = w.value ->> 1
         )
         SELECT s.id FROM same s
         WHERE NOT (?2 AND EXISTS (
             SELECT 1 FROM mainstay_outbox_parked k
             CROSS JOIN mainstay_outbox_dead e
                 ON e.lane = k.lane AND e.key = k.key AND e.id >= k.first AND e.topic = k.topic
             WHERE k.lane = s.lane AND k.topic = s.topic AND k.key = s.key AND e.id < s.id
                 AND e.id NOT IN (SELECT id FROM same)))
         ORDER BY s.id",
    )
    .bind(json(&meant))
    .bind(in_front)
    .fetch_all(tx)
    .await
}

/// Writes the change down, in the row its first step wrote if there is one. Nothing changed, nothing written.
async fn audited(
    tx: &mut SqliteConnection,
    action: &'static str,
    affected: u64,
    entry: Entry,
) -> Result<Option<i64>, sqlx::Error> {
    let affected = i64::try_from(affected).unwrap_or(i64::MAX);
    match entry.id {
        _ if affected == 0 => Ok(entry.id),
        Some(id) => {
            sqlx::query("UPDATE mainstay_outbox_audit SET affected = affected + ?2 WHERE id = ?1")
                .bind(id)
                .bind(affected)
                .execute(tx)
                .await?;
            Ok(Some(id))
        }
        None => {
            let id = sqlx::query_scalar(
                "INSERT INTO mainstay_outbox_audit (at, actor, action, detail, affected)
                 VALUES (CAST(round(unixepoch('subsec') * 1000000) AS INTEGER), ?1, ?2, ?3, ?4)
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

fn pattern_entry(pattern: &str, actor: String) -> Entry {
    Entry {
        actor,
        detail: serde_json::json!({ "pattern": pattern }).to_string(),
        id: None,
    }
}

/// The database's clock, microseconds since 1970.
async fn now(pool: &SqlitePool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)")
        .fetch_one(pool)
        .await
}
