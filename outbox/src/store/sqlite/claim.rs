//! The outbox on SQLite: what is due, what is in flight, what became of it.

use std::time::Duration;

use sqlx::{Sqlite, SqliteConnection, SqlitePool};

use super::{
    super::{Ask, Candidate, Claim, Held, InFlight, Settlement, micros},
    candidate, immediate, json,
};
use crate::error::Error;

impl Claim for Sqlite {
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
