//! The outbox on MySQL and MariaDB: what is due, what is in flight, what became of it.

use std::time::Duration;

use sqlx::{MySql, MySqlConnection, MySqlPool};

use super::{
    super::{Ask, Candidate, Claim, InFlight, Settlement, micros},
    apart, candidate, json,
    lanes::{pairs, still_held},
    transaction,
};
use crate::error::Error;

/// How many rows a look at all lanes at once takes in. Fewer than that, and the lanes that they are in are all there is.
const GLANCE: i64 = 1_000;

impl Claim for MySql {
    async fn candidates(pool: MySqlPool, ask: Ask) -> Result<Vec<Candidate>, Error> {
        // No locks: only a lane's owner reads it here, and `record` checks that it still is. There is no LATERAL in MariaDB,
        // and only a range that is written into the statement seeks: one statement for each lane that may have something,
        // which a look along the index of the ids finds out while there is little.
        apart(async move {
            let mut conn = pool.acquire().await?;
            let glance = glance(&mut conn).await?;
            let mut rows = Vec::new();
            let mut bytes = 0u64;
            for lane in &ask.lanes {
                let left = (ask.total as usize).saturating_sub(rows.len());
                if left == 0 || (bytes >= ask.bytes && !rows.is_empty()) {
                    break;
                }
                if glance.as_ref().is_some_and(|lanes| !lanes.contains(lane)) {
                    continue;
                }
                let of_lane = head(
                    &mut conn,
                    &ask,
                    *lane,
                    left,
                    ask.bytes - bytes.min(ask.bytes),
                )
                .await?;
                bytes += of_lane
                    .iter()
                    .map(|row| row.message.payload.len() as u64)
                    .sum::<u64>();
                rows.extend(of_lane);
            }
            Ok(rows)
        })
        .await
    }

    async fn record(
        pool: MySqlPool,
        lease: Duration,
        batches: Vec<InFlight>,
    ) -> Result<Vec<i32>, Error> {
        apart(async move {
            let mut list: Vec<(i32, i64, String)> = batches
                .iter()
                .map(|batch| (batch.held.lane, batch.held.epoch, json(&batch.ids)))
                .collect();
            list.sort_unstable();
            let done = sqlx::query(
                "UPDATE JSON_TABLE(?, '$[*]' COLUMNS
                     (lane INT PATH '$[0]', epoch BIGINT PATH '$[1]', ids LONGTEXT PATH '$[2]')) w
                 STRAIGHT_JOIN mainstay_outbox_lane l ON l.lane = w.lane
                 SET l.in_flight = w.ids, l.lease_until = utc_timestamp(6) + INTERVAL ? MICROSECOND
                 WHERE l.epoch = w.epoch",
            )
            .bind(json(&list))
            .bind(micros(lease))
            .execute(&pool)
            .await?;
            if done.rows_affected() == batches.len() as u64 {
                return Ok(batches.iter().map(|batch| batch.held.lane).collect());
            }
            let held: Vec<_> = batches.iter().map(|batch| batch.held).collect();
            still_held(&pool, pairs(&held)).await
        })
        .await
    }

    async fn settle(pool: MySqlPool, settlements: Vec<Settlement>) -> Result<Vec<i32>, Error> {
        transaction(pool, move |tx| {
            Box::pin(async move {
                // The lanes are locked first, in order, and looked at in their newest versions: from there on no takeover
                // can come between, and of a lane that has changed hands nothing is touched.
                let wanted: Vec<_> = settlements.iter().map(|settlement| settlement.held).collect();
                let held: Vec<i32> = sqlx::query_scalar(
                    "SELECT l.lane
                     FROM JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$[0]', epoch BIGINT PATH '$[1]')) w
                     STRAIGHT_JOIN mainstay_outbox_lane l ON l.lane = w.lane
                     WHERE l.epoch = w.epoch
                     FOR UPDATE",
                )
                .bind(pairs(&wanted))
                .fetch_all(&mut *tx)
                .await?;
                let settlements: Vec<_> = settlements
                    .iter()
                    .filter(|settlement| held.contains(&settlement.held.lane))
                    .collect();
                delivered(&mut *tx, &settlements).await?;
                failed(&mut *tx, &settlements).await?;
                buried(&mut *tx, &settlements).await?;
                sqlx::query(
                    "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$')) w
                     STRAIGHT_JOIN mainstay_outbox_lane l ON l.lane = w.lane
                     SET l.in_flight = NULL, l.settled_at = utc_timestamp(6)",
                )
                .bind(json(&held))
                .execute(&mut *tx)
                .await?;
                Ok(held)
            })
        })
        .await
    }
}

/// The lanes that have rows at all, if those are few.
async fn glance(conn: &mut MySqlConnection) -> Result<Option<Vec<i32>>, sqlx::Error> {
    let lanes: Vec<(i32, i64)> = sqlx::query_as(
        "SELECT p.lane, count(*)
         FROM (
             SELECT m.lane FROM mainstay_outbox_message m FORCE INDEX (mainstay_outbox_message_id)
             WHERE m.id > ? ORDER BY m.id LIMIT ?
         ) p
         GROUP BY p.lane",
    )
    .bind(0)
    .bind(GLANCE)
    .fetch_all(conn)
    .await?;
    let rows: i64 = lanes.iter().map(|(_, rows)| rows).sum();
    Ok((rows < GLANCE).then(|| lanes.into_iter().map(|(lane, _)| lane).collect()))
}

/// What is due at one lane's head, in order.
async fn head(
    conn: &mut MySqlConnection,
    ask: &Ask,
    lane: i32,
    left: usize,
    bytes: u64,
) -> Result<Vec<Candidate>, sqlx::Error> {
    // Ids and sizes come first, so that only those rows are read whole that are taken. The topics that are passed over are
    // one text, each between zero bytes, which no topic holds.
    let rows = sqlx::query(
        "SELECT m.lane, m.id, m.attempts, m.suspect, m.event_id, m.source, m.type, m.topic, m.subject,
             timestampdiff(MICROSECOND, '1970-01-01', m.time) AS time_micros, m.content_type, m.`key`, m.headers,
             m.payload
         FROM (
             SELECT p.id, sum(p.bytes) OVER (ORDER BY p.id ROWS UNBOUNDED PRECEDING) - p.bytes AS bytes_before
             FROM (
                 SELECT h.id, h.bytes FROM mainstay_outbox_message h
                 WHERE h.lane = ? AND h.id > ?
                     AND (h.retry_at IS NULL OR h.retry_at <= utc_timestamp(6))
                     AND locate(concat(0x00, h.topic, 0x00), ?) = 0
                     AND NOT (? AND EXISTS (
                         SELECT 1 FROM mainstay_outbox_waiting b
                         WHERE b.lane = h.lane AND b.`key` = h.`key` AND b.id < h.id AND b.retry_at > utc_timestamp(6)))
                 ORDER BY h.id LIMIT ?
             ) p
         ) c
         STRAIGHT_JOIN mainstay_outbox_message m ON m.lane = ? AND m.id = c.id
         WHERE c.bytes_before < ?
         ORDER BY c.id",
    )
    .bind(lane)
    .bind(0)
    .bind(between_zeros(&ask.skip_topics))
    .bind(ask.block_keys)
    .bind(left.min(ask.batch as usize) as u64)
    .bind(lane)
    .bind(bytes)
    .fetch_all(conn)
    .await?;
    rows.iter().map(candidate).collect()
}

fn between_zeros(topics: &[String]) -> Vec<u8> {
    let mut list = vec![0];
    for topic in topics {
        list.extend_from_slice(topic.as_bytes());
        list.push(0);
    }
    list
}

async fn delivered(
    tx: &mut MySqlConnection,
    settlements: &[&Settlement],
) -> Result<(), sqlx::Error> {
    let mut rows: Vec<(i32, i64)> = Vec::new();
    for settlement in settlements {
        rows.extend(
            settlement
                .acked
                .iter()
                .map(|id| (settlement.held.lane, *id)),
        );
    }
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "DELETE m
         FROM JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$[0]', id BIGINT PATH '$[1]')) a
         STRAIGHT_JOIN mainstay_outbox_message m ON m.lane = a.lane AND m.id = a.id",
    )
    .bind(json(&rows))
    .execute(tx)
    .await?;
    Ok(())
}

async fn failed(tx: &mut MySqlConnection, settlements: &[&Settlement]) -> Result<(), sqlx::Error> {
    let mut rows = Vec::new();
    for settlement in settlements {
        for one in &settlement.failed {
            let lane = settlement.held.lane;
            rows.push((
                lane,
                one.id,
                one.attempts,
                micros(one.delay),
                u8::from(one.suspect),
                &one.reason,
            ));
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    let rows = json(&rows);
    sqlx::query(
        "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$[0]', id BIGINT PATH '$[1]', attempts INT PATH '$[2]',
             delay BIGINT PATH '$[3]', suspect TINYINT PATH '$[4]', reason LONGTEXT PATH '$[5]')) f
         STRAIGHT_JOIN mainstay_outbox_message m ON m.lane = f.lane AND m.id = f.id
         SET m.attempts = m.attempts + 1, m.suspect = f.suspect, m.last_reason = f.reason,
             m.retry_at = utc_timestamp(6) + INTERVAL f.delay MICROSECOND
         WHERE m.attempts = f.attempts",
    )
    .bind(&rows)
    .execute(&mut *tx)
    .await?;
    let lanes: Vec<i32> = settlements
        .iter()
        .map(|settlement| settlement.held.lane)
        .collect();
    sqlx::query(
        "DELETE b FROM JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$')) w
         STRAIGHT_JOIN mainstay_outbox_waiting b ON b.lane = w.lane
         WHERE b.retry_at <= utc_timestamp(6)",
    )
    .bind(json(&lanes))
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "REPLACE INTO mainstay_outbox_waiting (lane, id, `key`, retry_at)
         SELECT m.lane, m.id, m.`key`, m.retry_at
         FROM JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$[0]', id BIGINT PATH '$[1]')) f
         STRAIGHT_JOIN mainstay_outbox_message m ON m.lane = f.lane AND m.id = f.id
         WHERE m.`key` IS NOT NULL AND m.ordered AND m.retry_at > utc_timestamp(6)",
    )
    .bind(&rows)
    .execute(tx)
    .await?;
    Ok(())
}

async fn buried(tx: &mut MySqlConnection, settlements: &[&Settlement]) -> Result<(), sqlx::Error> {
    let mut rows = Vec::new();
    for settlement in settlements {
        for one in &settlement.dead {
            let lane = settlement.held.lane;
            rows.push((lane, one.id, one.attempts, one.cause.as_str(), &one.reason));
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    let rows = json(&rows);
    sqlx::query(
        "INSERT INTO mainstay_outbox_dead
             (id, lane, event_id, source, type, topic, subject, time, content_type, `key`, ordered, headers, payload,
              enqueued_at, attempts, cause, reason, failures)
         SELECT m.id, m.lane, m.event_id, m.source, m.type, m.topic, m.subject, m.time, m.content_type, m.`key`,
             m.ordered, m.headers, m.payload, m.enqueued_at, d.attempts, d.cause, d.reason, m.failures
         FROM JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$[0]', id BIGINT PATH '$[1]', attempts INT PATH '$[2]',
             cause VARCHAR(16) PATH '$[3]', reason LONGTEXT PATH '$[4]')) d
         STRAIGHT_JOIN mainstay_outbox_message m ON m.lane = d.lane AND m.id = d.id",
    )
    .bind(&rows)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "DELETE m
         FROM JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$[0]', id BIGINT PATH '$[1]')) d
         STRAIGHT_JOIN mainstay_outbox_message m ON m.lane = d.lane AND m.id = d.id",
    )
    .bind(&rows)
    .execute(tx)
    .await?;
    Ok(())
}
