//! The outbox on SQLite: for operators.

use sqlx::{Sqlite, SqlitePool};

use super::{
    super::{DeadRow, LagRow, Operate},
    dead_row, immediate, json,
};
use crate::error::Error;

impl Operate for Sqlite {
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
