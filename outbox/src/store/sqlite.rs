//! The outbox on SQLite. What writes more than one row does so in a BEGIN IMMEDIATE transaction in a task of its own:
//! it takes the one write lock at the start, so it never has to give up half way, and it is short.

use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::{Row, Sqlite, SqliteConnection, SqlitePool, sqlite::SqliteRow};
use uuid::Uuid;

use super::{
    Ask, Candidate, DeadRow, Grant, Held, InFlight, LagRow, NewRow, OutboxDb, Settlement, Survey,
    micros, parse_headers,
};
use crate::{
    error::{Error, ErrorKind},
    message::{Message, from_micros},
};

/// The scripts in order; a database's version is how many of them it has seen.
const SCRIPTS: [&str; 1] = [include_str!("../../migrations/sqlite/0001_outbox.sql")];

impl OutboxDb for Sqlite {
    async fn migrate(pool: SqlitePool, lanes: u16, exact: bool) -> Result<(), Error> {
        let task = tokio::spawn(async move {
            // The write lock makes processes that start together migrate one after the other.
            let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
            sqlx::query(
                "CREATE TABLE IF NOT EXISTS mainstay_outbox_migrations (
                    version    INTEGER PRIMARY KEY,
                    applied_at INTEGER NOT NULL DEFAULT (CAST(round(unixepoch('subsec') * 1000000) AS INTEGER))
                ) STRICT",
            )
            .execute(&mut *tx)
            .await?;
            let found: i32 = sqlx::query_scalar(
                "SELECT coalesce(max(version), 0) FROM mainstay_outbox_migrations",
            )
            .fetch_one(&mut *tx)
            .await?;
            let known = SCRIPTS.len() as i32;
            if found > known {
                return Err(Error::new(ErrorKind::NewerSchema { found, known }));
            }
            for (version, script) in (1..=known).zip(SCRIPTS).skip(found.unsigned_abs() as usize) {
                sqlx::raw_sql(script).execute(&mut *tx).await?;
                sqlx::query("INSERT INTO mainstay_outbox_migrations (version) VALUES (?1)")
                    .bind(version)
                    .execute(&mut *tx)
                    .await?;
            }
            let wanted = i32::from(lanes);
            sqlx::query(
                "INSERT INTO mainstay_outbox_settings (one, lanes) VALUES (1, ?1) ON CONFLICT DO NOTHING",
            )
            .bind(wanted)
            .execute(&mut *tx)
            .await?;
            let stored: i32 = sqlx::query_scalar("SELECT lanes FROM mainstay_outbox_settings")
                .fetch_one(&mut *tx)
                .await?;
            if exact && stored != wanted {
                return Err(lane_count(stored, wanted));
            }
            sqlx::query(
                "WITH RECURSIVE n(lane) AS (SELECT 0 UNION ALL SELECT lane + 1 FROM n WHERE lane + 1 < ?1)
                 INSERT INTO mainstay_outbox_lane (lane) SELECT lane FROM n WHERE true ON CONFLICT DO NOTHING",
            )
            .bind(stored)
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(())
        });
        task.await.map_err(|_| Error::new(ErrorKind::Shutdown))?
    }

    async fn lanes(pool: SqlitePool) -> Result<u16, Error> {
        // Asked first without naming the table, which may not exist.
        let there: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'mainstay_outbox_migrations')",
        )
        .fetch_one(&pool)
        .await?;
        if !there {
            return Err(Error::new(ErrorKind::NotMigrated));
        }
        let found: i32 =
            sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM mainstay_outbox_migrations")
                .fetch_one(&pool)
                .await?;
        let known = SCRIPTS.len() as i32;
        if found > known {
            return Err(Error::new(ErrorKind::NewerSchema { found, known }));
        }
        if found < known {
            return Err(Error::new(ErrorKind::NotMigrated));
        }
        let stored: i32 = sqlx::query_scalar("SELECT lanes FROM mainstay_outbox_settings")
            .fetch_one(&pool)
            .await?;
        Ok(stored as u16)
    }

    async fn insert(conn: &mut SqliteConnection, row: &NewRow<'_>) -> Result<u64, sqlx::Error> {
        let done = sqlx::query(
            "INSERT INTO mainstay_outbox_message
                 (lane, event_id, source, type, topic, subject, time, content_type, key, headers, payload, enqueued_at)
             SELECT ?1 % s.lanes, ?2, ?3, ?4, ?5, ?6,
                 coalesce(?7, CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)),
                 ?8, ?9, ?10, ?11, CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)
             FROM mainstay_outbox_settings s",
        )
        .bind(row.hash)
        .bind(row.event_id)
        .bind(row.source)
        .bind(row.event_type)
        .bind(row.topic)
        .bind(row.subject)
        .bind(row.time_micros)
        .bind(row.content_type)
        .bind(row.key)
        .bind(&row.headers)
        .bind(row.payload)
        .execute(conn)
        .await?;
        Ok(done.rows_affected())
    }

    async fn insert_many(
        conn: &mut SqliteConnection,
        rows: &[NewRow<'_>],
    ) -> Result<u64, sqlx::Error> {
        // Text goes as one JSON list and bytes as one blob that the list points into: one statement for any number of
        // events, and no bytes are spelled out as text.
        // One byte in front that nothing points at: substr of an empty blob is NULL, not empty.
        let mut bytes = vec![0];
        let mut list = Vec::with_capacity(rows.len());
        for row in rows {
            let key_at = bytes.len() + 1;
            bytes.extend_from_slice(row.key.unwrap_or_default());
            let payload_at = bytes.len() + 1;
            bytes.extend_from_slice(row.payload);
            list.push(serde_json::json!([
                row.hash,
                row.event_id.simple().to_string(),
                row.event_type,
                row.topic,
                row.subject,
                row.time_micros,
                row.content_type,
                key_at,
                row.key.map(<[u8]>::len),
                row.headers,
                payload_at,
                row.payload.len(),
            ]));
        }
        // A NULL length makes a NULL key. Rows are inserted in the order of the list, so ids are as well.
        let done = sqlx::query(
            "INSERT INTO mainstay_outbox_message
                 (lane, event_id, source, type, topic, subject, time, content_type, key, headers, payload, enqueued_at)
             SELECT (e.value ->> 0) % s.lanes, unhex(e.value ->> 1), ?1, e.value ->> 2, e.value ->> 3, e.value ->> 4,
                 coalesce(e.value ->> 5, CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)),
                 e.value ->> 6,
                 substr(?3, e.value ->> 7, e.value ->> 8),
                 e.value ->> 9,
                 substr(?3, e.value ->> 10, e.value ->> 11),
                 CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)
             FROM json_each(?2) e CROSS JOIN mainstay_outbox_settings s
             ORDER BY e.key",
        )
        .bind(rows.first().map_or("", |row| row.source))
        .bind(serde_json::Value::Array(list).to_string())
        .bind(bytes)
        .execute(conn)
        .await?;
        Ok(done.rows_affected())
    }

    async fn heartbeat(pool: SqlitePool, relay: Uuid, lease: Duration) -> Result<(), Error> {
        immediate(pool, move |tx| Box::pin(async move {
            sqlx::query(
                "DELETE FROM mainstay_outbox_relay
                 WHERE alive_until < CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) - 60000000 AND id <> ?1",
            )
            .bind(relay)
            .execute(&mut *tx)
            .await?;
            sqlx::query(
                "INSERT INTO mainstay_outbox_relay (id, alive_until)
                 VALUES (?1, CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) + ?2)
                 ON CONFLICT (id) DO UPDATE SET alive_until = excluded.alive_until",
            )
            .bind(relay)
            .bind(micros(lease))
            .execute(&mut *tx)
            .await?;
            Ok(())
        }))
        .await
    }

    async fn survey(pool: SqlitePool) -> Result<Survey, Error> {
        let (relays, free): (i64, i64) = sqlx::query_as(
            "SELECT
                 (SELECT count(*) FROM mainstay_outbox_relay
                  WHERE alive_until > CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)),
                 (SELECT count(*) FROM mainstay_outbox_lane
                  WHERE lease_until IS NULL
                      OR lease_until <= CAST(round(unixepoch('subsec') * 1000000) AS INTEGER))",
        )
        .fetch_one(&pool)
        .await?;
        Ok(Survey {
            relays: relays as u16,
            free: free as u16,
        })
    }

    async fn acquire(
        pool: SqlitePool,
        relay: Uuid,
        lease: Duration,
        count: u16,
    ) -> Result<Vec<Grant>, Error> {
        immediate(pool, move |tx| {
            Box::pin(async move {
                let free: Vec<(i32, Option<String>)> = sqlx::query_as(
                    "SELECT lane, in_flight FROM mainstay_outbox_lane
                 WHERE lease_until IS NULL
                     OR lease_until <= CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)
                 ORDER BY lane LIMIT ?1",
                )
                .bind(i64::from(count))
                .fetch_all(&mut *tx)
                .await?;
                let mut grants = Vec::with_capacity(free.len());
                for (lane, in_flight) in free {
                    let mut charged = 0;
                    if let Some(ids) = in_flight {
                        let done = sqlx::query(
                            "UPDATE mainstay_outbox_message
                         SET attempts = attempts + 1, suspect = 1,
                             last_reason = 'the relay lost its lane while publishing'
                         WHERE lane = ?1 AND id IN (SELECT value FROM json_each(?2))",
                        )
                        .bind(lane)
                        .bind(ids)
                        .execute(&mut *tx)
                        .await?;
                        charged = done.rows_affected() as u32;
                    }
                    let epoch = sqlx::query_scalar(
                        "UPDATE mainstay_outbox_lane
                     SET owner = ?1, epoch = epoch + 1, in_flight = NULL,
                         lease_until = CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) + ?2
                     WHERE lane = ?3
                     RETURNING epoch",
                    )
                    .bind(relay)
                    .bind(micros(lease))
                    .bind(lane)
                    .fetch_one(&mut *tx)
                    .await?;
                    grants.push(Grant {
                        lane,
                        epoch,
                        charged,
                    });
                }
                Ok(grants)
            })
        })
        .await
    }

    async fn renew(pool: SqlitePool, lease: Duration, held: Vec<Held>) -> Result<Vec<i32>, Error> {
        immediate(pool, move |tx| {
            Box::pin(async move {
                let mut lanes = Vec::with_capacity(held.len());
                for Held { lane, epoch } in held {
                    let done = sqlx::query(
                        "UPDATE mainstay_outbox_lane
                     SET lease_until = CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) + ?3
                     WHERE lane = ?1 AND epoch = ?2",
                    )
                    .bind(lane)
                    .bind(epoch)
                    .bind(micros(lease))
                    .execute(&mut *tx)
                    .await?;
                    if done.rows_affected() == 1 {
                        lanes.push(lane);
                    }
                }
                Ok(lanes)
            })
        })
        .await
    }

    async fn release(pool: SqlitePool, held: Vec<Held>) -> Result<(), Error> {
        immediate(pool, move |tx| {
            Box::pin(async move {
                for Held { lane, epoch } in held {
                    sqlx::query(
                        "UPDATE mainstay_outbox_lane SET owner = NULL, lease_until = NULL
                     WHERE lane = ?1 AND epoch = ?2",
                    )
                    .bind(lane)
                    .bind(epoch)
                    .execute(&mut *tx)
                    .await?;
                }
                Ok(())
            })
        })
        .await
    }

    async fn retire(pool: SqlitePool, relay: Uuid) -> Result<(), Error> {
        sqlx::query("DELETE FROM mainstay_outbox_relay WHERE id = ?1")
            .bind(relay)
            .execute(&pool)
            .await?;
        Ok(())
    }

    async fn candidates(pool: SqlitePool, ask: Ask) -> Result<Vec<Candidate>, Error> {
        // A read of its own: it blocks no writer in WAL mode. The inner list is worked out per lane along the index
        // (lane, id) and stops at the batch, so the cost does not depend on the backlog.
        let rows = sqlx::query(
            "SELECT c.lane, c.id, c.attempts, c.suspect, c.event_id, c.source, c.type, c.topic, c.subject,
                 c.time AS time_micros, c.content_type, c.key, c.headers, c.payload
             FROM (
                 SELECT m.*, w.key AS place,
                     sum(length(m.payload)) OVER (ORDER BY w.key, m.id ROWS UNBOUNDED PRECEDING)
                         - length(m.payload) AS bytes_before
                 FROM json_each(?1) w
                 CROSS JOIN mainstay_outbox_message m ON m.id IN (
                     SELECT h.id FROM mainstay_outbox_message h
                     WHERE h.lane = w.value
                         AND (h.retry_at IS NULL
                             OR h.retry_at <= CAST(round(unixepoch('subsec') * 1000000) AS INTEGER))
                         AND h.topic NOT IN (SELECT value FROM json_each(?5))
                         AND NOT (?6 AND EXISTS (
                             SELECT 1 FROM mainstay_outbox_message b
                             WHERE b.lane = h.lane AND b.key = h.key AND b.id < h.id
                                 AND b.retry_at > CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)))
                     ORDER BY h.id LIMIT ?2)
             ) c
             WHERE c.bytes_before < ?4
             ORDER BY c.place, c.id LIMIT ?3",
        )
        .bind(json(&ask.lanes))
        .bind(i64::from(ask.batch))
        .bind(i64::from(ask.total))
        .bind(i64::try_from(ask.bytes).unwrap_or(i64::MAX))
        .bind(json(&ask.skip_topics))
        .bind(ask.block_keys)
        .fetch_all(&pool)
        .await?;
        rows.iter()
            .map(candidate)
            .collect::<Result<_, _>>()
            .map_err(Error::from)
    }

    async fn record(
        pool: SqlitePool,
        lease: Duration,
        batches: Vec<InFlight>,
    ) -> Result<Vec<i32>, Error> {
        immediate(pool, move |tx| {
            Box::pin(async move {
                let mut lanes = Vec::with_capacity(batches.len());
                for InFlight { held, ids } in batches {
                    let done = sqlx::query(
                        "UPDATE mainstay_outbox_lane
                     SET in_flight = ?3,
                         lease_until = CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) + ?4
                     WHERE lane = ?1 AND epoch = ?2",
                    )
                    .bind(held.lane)
                    .bind(held.epoch)
                    .bind(json(&ids))
                    .bind(micros(lease))
                    .execute(&mut *tx)
                    .await?;
                    if done.rows_affected() == 1 {
                        lanes.push(held.lane);
                    }
                }
                Ok(lanes)
            })
        })
        .await
    }

    async fn settle(pool: SqlitePool, settlements: Vec<Settlement>) -> Result<Vec<i32>, Error> {
        immediate(pool, move |tx| {
            Box::pin(async move {
                let mut lanes = Vec::with_capacity(settlements.len());
                for settlement in settlements {
                    if settle_lane(&mut *tx, &settlement).await? {
                        lanes.push(settlement.held.lane);
                    }
                }
                Ok(lanes)
            })
        })
        .await
    }

    async fn lag(pool: SqlitePool, cap: i64) -> Result<LagRow, Error> {
        // The oldest of a lane is taken to be its head: one probe of the index per lane, not a scan.
        let (pending, dead, oldest_micros) = sqlx::query_as(
            "SELECT
                 (SELECT count(*) FROM (SELECT 1 FROM mainstay_outbox_message LIMIT ?1)),
                 (SELECT count(*) FROM (SELECT 1 FROM mainstay_outbox_dead LIMIT ?1)),
                 (SELECT CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) - min(h.enqueued_at)
                  FROM mainstay_outbox_lane l
                  CROSS JOIN mainstay_outbox_message h ON h.id = (
                      SELECT m.id FROM mainstay_outbox_message m WHERE m.lane = l.lane ORDER BY m.id LIMIT 1))",
        )
        .bind(cap)
        .fetch_one(&pool)
        .await?;
        Ok(LagRow {
            pending,
            dead,
            oldest_micros,
        })
    }

    async fn dead(
        pool: SqlitePool,
        topic: Option<String>,
        limit: u32,
    ) -> Result<Vec<DeadRow>, Error> {
        let rows = sqlx::query(
            "SELECT id, attempts, event_id, source, type, topic, subject, time AS time_micros, content_type, key,
                 headers, payload, cause, reason, died_at AS died_micros
             FROM mainstay_outbox_dead
             WHERE ?1 IS NULL OR topic = ?1
             ORDER BY id LIMIT ?2",
        )
        .bind(topic)
        .bind(i64::from(limit))
        .fetch_all(&pool)
        .await?;
        rows.iter()
            .map(dead_row)
            .collect::<Result<_, _>>()
            .map_err(Error::from)
    }

    async fn redrive(pool: SqlitePool, topic: Option<String>, limit: u32) -> Result<u64, Error> {
        immediate(pool, move |tx| Box::pin(async move {
            let ids: Vec<i64> = sqlx::query_scalar(
                "SELECT id FROM mainstay_outbox_dead WHERE ?1 IS NULL OR topic = ?1 ORDER BY id LIMIT ?2",
            )
            .bind(topic)
            .bind(i64::from(limit))
            .fetch_all(&mut *tx)
            .await?;
            let ids = json(&ids);
            let done = sqlx::query(
                "INSERT INTO mainstay_outbox_message
                     (id, lane, event_id, source, type, topic, subject, time, content_type, key, headers, payload,
                      enqueued_at)
                 SELECT id, lane, event_id, source, type, topic, subject, time, content_type, key, headers, payload,
                     enqueued_at
                 FROM mainstay_outbox_dead WHERE id IN (SELECT value FROM json_each(?1))",
            )
            .bind(&ids)
            .execute(&mut *tx)
            .await?;
            sqlx::query("DELETE FROM mainstay_outbox_dead WHERE id IN (SELECT value FROM json_each(?1))")
                .bind(&ids)
                .execute(&mut *tx)
                .await?;
            Ok(done.rows_affected())
        }))
        .await
    }
}

/// Settles one lane if it is still in its epoch. Says whether it was.
async fn settle_lane(
    tx: &mut SqliteConnection,
    settlement: &Settlement,
) -> Result<bool, sqlx::Error> {
    let Held { lane, epoch } = settlement.held;
    let held = sqlx::query(
        "UPDATE mainstay_outbox_lane SET in_flight = NULL WHERE lane = ?1 AND epoch = ?2",
    )
    .bind(lane)
    .bind(epoch)
    .execute(&mut *tx)
    .await?;
    if held.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query(
        "DELETE FROM mainstay_outbox_message WHERE lane = ?1 AND id IN (SELECT value FROM json_each(?2))",
    )
    .bind(lane)
    .bind(json(&settlement.acked))
    .execute(&mut *tx)
    .await?;
    for one in &settlement.failed {
        sqlx::query(
            "UPDATE mainstay_outbox_message
             SET attempts = attempts + 1, suspect = ?4, last_reason = ?5,
                 retry_at = CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) + ?6
             WHERE lane = ?1 AND id = ?2 AND attempts = ?3",
        )
        .bind(lane)
        .bind(one.id)
        .bind(one.attempts)
        .bind(one.suspect)
        .bind(&one.reason)
        .bind(micros(one.delay))
        .execute(&mut *tx)
        .await?;
    }
    for one in &settlement.dead {
        sqlx::query(
            "INSERT INTO mainstay_outbox_dead
                 (id, lane, event_id, source, type, topic, subject, time, content_type, key, headers, payload,
                  enqueued_at, attempts, cause, reason, died_at)
             SELECT id, lane, event_id, source, type, topic, subject, time, content_type, key, headers, payload,
                 enqueued_at, ?3, ?4, ?5, CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)
             FROM mainstay_outbox_message WHERE lane = ?1 AND id = ?2",
        )
        .bind(lane)
        .bind(one.id)
        .bind(one.attempts)
        .bind(one.cause.as_str())
        .bind(&one.reason)
        .execute(&mut *tx)
        .await?;
        sqlx::query("DELETE FROM mainstay_outbox_message WHERE lane = ?1 AND id = ?2")
            .bind(lane)
            .bind(one.id)
            .execute(&mut *tx)
            .await?;
    }
    Ok(true)
}

/// Runs `work` in a BEGIN IMMEDIATE transaction in a task of its own, so that dropping the caller cuts nothing in half.
async fn immediate<T, F>(pool: SqlitePool, work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, sqlx::Error>>
        + Send
        + 'static,
{
    let task = tokio::spawn(async move {
        let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
        let done = work(&mut tx).await?;
        tx.commit().await?;
        Ok(done)
    });
    task.await.map_err(|_| Error::new(ErrorKind::Shutdown))?
}

/// A list of numbers or texts as the JSON that `json_each` takes apart again.
fn json<T: serde::Serialize>(list: &[T]) -> String {
    serde_json::to_string(list).unwrap_or_else(|_| "[]".to_owned())
}

fn lane_count(stored: i32, asked: i32) -> Error {
    Error::new(ErrorKind::LaneCount {
        stored: stored as u16,
        asked: asked as u16,
    })
}

fn candidate(row: &SqliteRow) -> Result<Candidate, sqlx::Error> {
    Ok(Candidate {
        lane: row.try_get("lane")?,
        id: row.try_get("id")?,
        attempts: row.try_get("attempts")?,
        suspect: row.try_get("suspect")?,
        message: message(row, 1)?,
    })
}

fn dead_row(row: &SqliteRow) -> Result<DeadRow, sqlx::Error> {
    Ok(DeadRow {
        message: message(row, 0)?,
        attempts: row.try_get("attempts")?,
        cause: row.try_get("cause")?,
        reason: row.try_get("reason")?,
        died_micros: row.try_get("died_micros")?,
    })
}

/// A message from a row of either table; its attempt is the row's plus `next`.
fn message(row: &SqliteRow, next: u32) -> Result<Message, sqlx::Error> {
    let attempts: i32 = row.try_get("attempts")?;
    Ok(Message {
        id: row.try_get::<Uuid, _>("event_id")?.into(),
        source: row.try_get("source")?,
        event_type: row.try_get("type")?,
        topic: row.try_get("topic")?,
        subject: row.try_get("subject")?,
        time: from_micros(row.try_get("time_micros")?),
        content_type: row.try_get("content_type")?,
        key: row.try_get("key")?,
        headers: parse_headers(row.try_get("headers")?),
        payload: row.try_get::<Vec<u8>, _>("payload")?.into(),
        attempt: attempts.unsigned_abs().saturating_add(next),
    })
}
