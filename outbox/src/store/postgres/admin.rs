//! The outbox on Postgres: for operators.

use sqlx::{PgPool, Postgres};

use super::{
    super::{DeadRow, LagRow, Operate},
    dead_row,
};
use crate::error::Error;

impl Operate for Postgres {
    async fn lag(pool: PgPool, cap: i64) -> Result<LagRow, Error> {
        // The oldest of a lane is taken to be its head: one probe of the primary key per lane, not a scan.
        let (pending, dead, oldest_micros) = sqlx::query_as(
            "SELECT
                 (SELECT count(*) FROM (SELECT FROM mainstay_outbox_message LIMIT $1) p),
                 (SELECT count(*) FROM (SELECT FROM mainstay_outbox_dead LIMIT $1) d),
                 (SELECT (extract(epoch FROM clock_timestamp() - min(h.enqueued_at)) * 1000000)::bigint
                  FROM mainstay_outbox_lane l
                  CROSS JOIN LATERAL (
                      SELECT m.enqueued_at FROM mainstay_outbox_message m
                      WHERE m.lane = l.lane ORDER BY m.id LIMIT 1) h)",
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

    async fn dead(pool: PgPool, topic: Option<String>, limit: u32) -> Result<Vec<DeadRow>, Error> {
        let rows = sqlx::query(
            "SELECT id, attempts, event_id, source, type, topic, subject,
                 (extract(epoch FROM time) * 1000000)::bigint AS time_micros, content_type, key, headers, payload,
                 cause, reason, (extract(epoch FROM died_at) * 1000000)::bigint AS died_micros
             FROM mainstay_outbox_dead
             WHERE $1::text IS NULL OR topic = $1
             ORDER BY id LIMIT $2",
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

    async fn redrive(pool: PgPool, topic: Option<String>, limit: u32) -> Result<u64, Error> {
        // SKIP LOCKED: two operators at once bring back different letters instead of waiting for each other.
        let done = sqlx::query(
            "WITH back AS (
                 DELETE FROM mainstay_outbox_dead
                 WHERE id IN (
                     SELECT id FROM mainstay_outbox_dead
                     WHERE $1::text IS NULL OR topic = $1
                     ORDER BY id LIMIT $2
                     FOR UPDATE SKIP LOCKED)
                 RETURNING *
             )
             INSERT INTO mainstay_outbox_message
                 (id, lane, event_id, source, type, topic, subject, time, content_type, key, headers, payload,
                  enqueued_at)
             SELECT id, lane, event_id, source, type, topic, subject, time, content_type, key, headers, payload,
                 enqueued_at
             FROM back",
        )
        .bind(topic)
        .bind(i64::from(limit))
        .execute(&pool)
        .await?;
        Ok(done.rows_affected())
    }
}
