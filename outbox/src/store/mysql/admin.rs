//! The outbox on MySQL and MariaDB: for operators.

use sqlx::{MySql, MySqlPool};

use super::{
    super::{DeadRow, LagRow, Operate},
    apart, dead_row, json, transaction,
};
use crate::error::Error;

impl Operate for MySql {
    async fn lag(pool: MySqlPool, cap: i64) -> Result<LagRow, Error> {
        // The oldest of a lane is taken to be its head: one probe of the primary key per lane, not a scan.
        apart(async move {
            let (pending, dead, oldest_micros) = sqlx::query_as(
                "SELECT
                     (SELECT count(*) FROM (SELECT 1 FROM mainstay_outbox_message LIMIT ?) p),
                     (SELECT count(*) FROM (SELECT 1 FROM mainstay_outbox_dead LIMIT ?) d),
                     (SELECT timestampdiff(MICROSECOND, min(h.enqueued_at), utc_timestamp(6))
                      FROM (
                          SELECT (SELECT m.enqueued_at FROM mainstay_outbox_message m
                                  WHERE m.lane = l.lane ORDER BY m.id LIMIT 1) AS enqueued_at
                          FROM mainstay_outbox_lane l) h)",
            )
            .bind(cap)
            .bind(cap)
            .fetch_one(&pool)
            .await?;
            Ok(LagRow {
                pending,
                dead,
                oldest_micros,
            })
        })
        .await
    }

    async fn dead(
        pool: MySqlPool,
        topic: Option<String>,
        limit: u32,
    ) -> Result<Vec<DeadRow>, Error> {
        apart(async move {
            let topic = topic.map(String::into_bytes);
            let rows = sqlx::query(
                "SELECT id, attempts, event_id, source, type, topic, subject,
                     timestampdiff(MICROSECOND, '1970-01-01', time) AS time_micros, content_type, `key`, headers, payload,
                     cause, reason, timestampdiff(MICROSECOND, '1970-01-01', died_at) AS died_micros
                 FROM mainstay_outbox_dead
                 WHERE ? IS NULL OR topic = ?
                 ORDER BY id LIMIT ?",
            )
            .bind(&topic)
            .bind(&topic)
            .bind(limit)
            .fetch_all(&pool)
            .await?;
            rows.iter().map(dead_row).collect()
        })
        .await
    }

    async fn redrive(pool: MySqlPool, topic: Option<String>, limit: u32) -> Result<u64, Error> {
        transaction(pool, move |tx| Box::pin(async move {
            let topic = topic.map(String::into_bytes);
            // SKIP LOCKED: two operators at once bring back different letters instead of waiting for each other.
            let ids: Vec<i64> = sqlx::query_scalar(
                "SELECT id FROM mainstay_outbox_dead WHERE ? IS NULL OR topic = ? ORDER BY id LIMIT ?
                 FOR UPDATE SKIP LOCKED",
            )
            .bind(&topic)
            .bind(&topic)
            .bind(limit)
            .fetch_all(&mut *tx)
            .await?;
            let ids = json(&ids);
            let done = sqlx::query(
                "INSERT INTO mainstay_outbox_message
                     (hash, id, lane, event_id, source, type, topic, subject, time, content_type, `key`, ordered, headers,
                      payload, enqueued_at)
                 SELECT d.lane, d.id, d.lane, d.event_id, d.source, d.type, d.topic, d.subject, d.time, d.content_type,
                     d.`key`, d.ordered, d.headers, d.payload, d.enqueued_at
                 FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) w
                 STRAIGHT_JOIN mainstay_outbox_dead d ON d.id = w.id",
            )
            .bind(&ids)
            .execute(&mut *tx)
            .await?;
            sqlx::query(
                "DELETE d FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) w
                 STRAIGHT_JOIN mainstay_outbox_dead d ON d.id = w.id",
            )
            .bind(&ids)
            .execute(&mut *tx)
            .await?;
            Ok(done.rows_affected())
        }))
        .await
    }
}
