//! The outbox on SQLite: what is due, what is in flight, what became of it.

use std::time::Duration;

use sqlx::{Sqlite, SqliteConnection, SqlitePool};

use super::{
    super::{
        Ask, AskHeads, Buried, Candidate, Claim, Failed, Head, Heads, Held, InFlight, Recorded,
        Settlement, micros, waiting,
    },
    candidate, immediate, json,
};
use crate::{admin::DeadCause, error::Error};

/// What is due where nothing waits for a retry and no key is parked: nothing has to be looked up for each message.
const FREE: &str = "
    SELECT c.lane, c.id, c.attempts, c.suspect, 0 AS parked, nullif(c.failures, '[]') AS failures, c.event_id, c.source,
        c.type, c.topic, c.subject, c.time AS time_micros, c.content_type, c.key, c.ordered, c.headers, c.payload,
        CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) - c.enqueued_at AS age_micros
    FROM (
        SELECT m.*, w.key AS place,
            sum(length(m.payload)) OVER (ORDER BY w.key, m.id ROWS UNBOUNDED PRECEDING)
                - length(m.payload) AS bytes_before
        FROM json_each(?1) w
        CROSS JOIN mainstay_outbox_message m ON m.id IN (
            SELECT h.id FROM mainstay_outbox_message h
            WHERE h.lane = (w.value ->> 0) AND h.id > (w.value ->> 1)
                AND h.topic NOT IN (SELECT value FROM json_each(?5))
            ORDER BY h.id LIMIT ?2)
    ) c
    WHERE c.bytes_before < ?4
    ORDER BY c.place, c.id LIMIT ?3";

/// What is due where messages of a key may have to wait or to be set aside.
const HELD_BACK: &str = "
    SELECT c.lane, c.id, c.attempts, c.suspect,
        c.ordered AND EXISTS (
            SELECT 1 FROM mainstay_outbox_parked p
            WHERE p.lane = c.lane AND p.topic = c.topic AND p.key = c.key AND p.above < c.id) AS parked,
        nullif(c.failures, '[]') AS failures, c.event_id, c.source, c.type, c.topic, c.subject,
        c.time AS time_micros, c.content_type, c.key, c.ordered, c.headers, c.payload,
        CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) - c.enqueued_at AS age_micros
    FROM (
        SELECT m.*, w.key AS place,
            sum(length(m.payload)) OVER (ORDER BY w.key, m.id ROWS UNBOUNDED PRECEDING)
                - length(m.payload) AS bytes_before
        FROM json_each(?1) w
        CROSS JOIN mainstay_outbox_message m ON m.id IN (
            SELECT h.id FROM mainstay_outbox_message h
            WHERE h.lane = (w.value ->> 0) AND h.id > (w.value ->> 1)
                AND (h.retry_at IS NULL OR h.retry_at <= min(coalesce(w.value ->> 2, 9223372036854775807),
                    CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)))
                AND h.topic NOT IN (SELECT value FROM json_each(?5))
                AND NOT (h.ordered AND EXISTS (
                    SELECT 1 FROM mainstay_outbox_message b
                    WHERE b.lane = h.lane AND b.key = h.key AND b.id < h.id AND b.holds
                        AND b.retry_at > min(coalesce(w.value ->> 2, 9223372036854775807),
                            CAST(round(unixepoch('subsec') * 1000000) AS INTEGER))))
            ORDER BY h.id LIMIT ?2)
    ) c
    WHERE c.bytes_before < ?4
    ORDER BY c.place, c.id LIMIT ?3";

impl Claim for Sqlite {
    async fn candidates(pool: SqlitePool, ask: Ask) -> Result<Vec<Candidate>, Error> {
        // A read of its own: it blocks no writer in WAL mode. The inner list is worked out per lane along the index
        // (lane, id) and stops at the batch, so the cost does not depend on the backlog.
        let looks: Vec<(i32, i64, Option<i64>)> = ask
            .lanes
            .iter()
            .map(|look| (look.lane, look.above, look.as_of))
            .collect();
        let rows = sqlx::query(if ask.held_back { HELD_BACK } else { FREE })
            .bind(json(&looks))
            .bind(i64::from(ask.batch))
            .bind(i64::from(ask.total))
            .bind(i64::try_from(ask.bytes).unwrap_or(i64::MAX))
            .bind(json(&ask.skip_topics))
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
    ) -> Result<Recorded, Error> {
        immediate(pool, move |tx| {
            Box::pin(async move {
                let mut lanes = Vec::with_capacity(batches.len());
                for batch in batches {
                    let held = batch.held;
                    let now: Option<i64> = sqlx::query_scalar(
                        "UPDATE mainstay_outbox_lane
                     SET in_flight = CASE
                             WHEN (in_flight ->> 0) < (?3 ->> 0) THEN in_flight -- of a later batch
                             WHEN rewinds = ?5 THEN ?3
                         END,
                         lease_until = CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) + ?4
                     WHERE lane = ?1 AND epoch = ?2
                     RETURNING rewinds",
                    )
                    .bind(held.lane)
                    .bind(held.epoch)
                    .bind(json(&batch.entry()))
                    .bind(micros(lease))
                    .bind(batch.rewinds)
                    .fetch_optional(&mut *tx)
                    .await?;
                    lanes.extend(now.map(|now| (held.lane, now)));
                }
                Ok(Recorded { lanes, stamp: None })
            })
        })
        .await
    }

    async fn heads(pool: SqlitePool, ask: AskHeads) -> Result<Heads, Error> {
        // One transaction writes at a time, so ids are drawn in the order of the commits: what one can see is all there will
        // be up to the last of it, and no writer has to be waited for.
        let looks = ask.lanes.iter().map(|look| (look.lane, look.above));
        let looks: Vec<(i32, i64)> = looks.collect();
        type Row = (i32, Option<i64>, Option<i64>, Option<i64>, Option<String>);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT h.lane, h.head, h.last,
                 CASE WHEN ?4 THEN (SELECT max(id) FROM mainstay_outbox_message) END,
                 CASE WHEN ?5 THEN (
                     SELECT json_group_array(json_array(m.id, m.retry_at,
                         m.retry_at - CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)))
                     FROM mainstay_outbox_message m
                     WHERE m.lane = h.lane AND m.id > h.above AND m.id <= coalesce(h.head, h.last, 9223372036854775807)
                         AND m.retry_at > CAST(round(unixepoch('subsec') * 1000000) AS INTEGER))
                 END
             FROM (
                 SELECT w.value ->> 0 AS lane, w.value ->> 1 AS above,
                     (SELECT r.id
                      FROM (
                          SELECT m.lane, m.id, m.topic, m.key, m.ordered, m.retry_at FROM mainstay_outbox_message m
                          WHERE m.lane = (w.value ->> 0) AND m.id > (w.value ->> 1)
                          ORDER BY m.id LIMIT ?3
                      ) r
                      WHERE r.topic NOT IN (SELECT value FROM json_each(?2))
                          AND (NOT ?5 OR (
                              (r.retry_at IS NULL OR r.retry_at <= CAST(round(unixepoch('subsec') * 1000000) AS INTEGER))
                              AND NOT (r.ordered AND EXISTS (
                                  SELECT 1 FROM mainstay_outbox_message b
                                  WHERE b.lane = r.lane AND b.key = r.key AND b.id < r.id AND b.holds
                                      AND b.retry_at > CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)))))
                      ORDER BY r.id LIMIT 1) AS head,
                     (SELECT m.id FROM mainstay_outbox_message m
                      WHERE m.lane = (w.value ->> 0) AND m.id > (w.value ->> 1)
                      ORDER BY m.id LIMIT 1 OFFSET ?3 - 1) AS last
                 FROM json_each(?1) w
             ) h",
        )
        .bind(json(&looks))
        .bind(json(&ask.skip_topics))
        .bind(i64::from(ask.window))
        .bind(ask.newest)
        .bind(ask.held)
        .fetch_all(&pool)
        .await?;
        let last = rows.first().and_then(|(.., last, _)| *last);
        let held = rows.iter().flat_map(|(lane, .., held)| {
            let held = held.as_deref().map(serde_json::from_str::<Vec<_>>);
            let held = held.and_then(Result::ok).unwrap_or_default();
            held.into_iter().map(|row| waiting(*lane, row))
        });
        let held = held.collect();
        Ok(Heads {
            ended_below: 1,
            running: None,
            newest: last.map(|id| (id, 1)),
            held,
            heads: rows
                .into_iter()
                .map(|(lane, row, last, ..)| (lane, Head::new(row, last)))
                .collect(),
        })
    }

    async fn settle(
        pool: SqlitePool,
        keep: bool,
        settlements: Vec<Settlement>,
    ) -> Result<Vec<i32>, Error> {
        immediate(pool, move |tx| {
            Box::pin(async move {
                let mut lanes = Vec::with_capacity(settlements.len());
                for settlement in settlements {
                    if settle_lane(&mut *tx, keep, &settlement).await? {
                        lanes.push(settlement.held.lane);
                    }
                }
                Ok(lanes)
            })
        })
        .await
    }

    async fn promote(pool: SqlitePool, limit: u32) -> Result<u64, Error> {
        immediate(pool, move |tx| {
            Box::pin(async move {
                let ids: Vec<i64> = sqlx::query_scalar(
                    "SELECT id FROM mainstay_outbox_later
                     WHERE due_at <= CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)
                     ORDER BY due_at, id LIMIT ?1",
                )
                .bind(i64::from(limit))
                .fetch_all(&mut *tx)
                .await?;
                let ids = json(&ids);
                let done = sqlx::query(
                    "INSERT INTO mainstay_outbox_message
                         (lane, event_id, source, type, topic, subject, time, content_type, key, ordered, headers,
                          payload, enqueued_at)
                     SELECT lane, event_id, source, type, topic, subject, time, content_type, key, ordered, headers,
                         payload, max(enqueued_at, due_at)
                     FROM mainstay_outbox_later WHERE id IN (SELECT value FROM json_each(?1))
                     ORDER BY due_at, id",
                )
                .bind(&ids)
                .execute(&mut *tx)
                .await?;
                sqlx::query(
                    "DELETE FROM mainstay_outbox_later WHERE id IN (SELECT value FROM json_each(?1))",
                )
                .bind(&ids)
                .execute(&mut *tx)
                .await?;
                Ok(done.rows_affected())
            })
        })
        .await
    }

    async fn forget(pool: SqlitePool, age: Duration, limit: u32) -> Result<u64, Error> {
        let done = sqlx::query(
            "DELETE FROM mainstay_outbox_delivered
             WHERE rowid IN (
                 SELECT rowid FROM mainstay_outbox_delivered
                 WHERE delivered_at < CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) - ?1
                 ORDER BY delivered_at LIMIT ?2)",
        )
        .bind(micros(age))
        .bind(i64::from(limit))
        .execute(&pool)
        .await?;
        Ok(done.rows_affected())
    }
}

/// Settles one lane if it is still in its epoch and has the record of this batch or none. Says whether it has.
async fn settle_lane(
    tx: &mut SqliteConnection,
    keep: bool,
    settlement: &Settlement,
) -> Result<bool, sqlx::Error> {
    let Held { lane, epoch } = settlement.held;
    let open: Option<bool> = sqlx::query_scalar(
        "SELECT in_flight IS NOT NULL FROM mainstay_outbox_lane
         WHERE lane = ?1 AND epoch = ?2 AND (in_flight IS NULL OR (in_flight ->> 0) = ?3)",
    )
    .bind(lane)
    .bind(epoch)
    .bind(-settlement.batch)
    .fetch_optional(&mut *tx)
    .await?;
    // Without a record, it was settled before, by a call whose answer was lost.
    if open != Some(true) {
        return Ok(open.is_some());
    }
    sqlx::query(
        "UPDATE mainstay_outbox_lane
         SET in_flight = NULL, settled_at = CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)
         WHERE lane = ?1",
    )
    .bind(lane)
    .execute(&mut *tx)
    .await?;
    let acked = json(&settlement.acked);
    if keep {
        sqlx::query(concat!(
            "INSERT INTO mainstay_outbox_delivered (",
            event_columns!(),
            ", attempts, delivered_at)
             SELECT ",
            event_columns!(),
            ", attempts + 1, CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)
             FROM mainstay_outbox_message
             WHERE lane = ?1 AND id IN (SELECT value FROM json_each(?2))"
        ))
        .bind(lane)
        .bind(&acked)
        .execute(&mut *tx)
        .await?;
    }
    sqlx::query(
        "DELETE FROM mainstay_outbox_message WHERE lane = ?1 AND id IN (SELECT value FROM json_each(?2))",
    )
    .bind(lane)
    .bind(&acked)
    .execute(&mut *tx)
    .await?;
    for one in &settlement.failed {
        wait(&mut *tx, lane, one).await?;
    }
    for one in &settlement.dead {
        bury(&mut *tx, lane, one).await?;
    }
    Ok(true)
}

/// Lets a message wait for its retry.
async fn wait(tx: &mut SqliteConnection, lane: i32, one: &Failed) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE mainstay_outbox_message
         SET attempts = attempts + 1, suspect = ?4, last_reason = ?5, holds = ?7,
             failures = ?8 || CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) || ?9,
             retry_at = CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) + ?6
         WHERE lane = ?1 AND id = ?2 AND attempts = ?3",
    )
    .bind(lane)
    .bind(one.id)
    .bind(one.attempts)
    .bind(one.suspect)
    .bind(&one.reason)
    .bind(micros(one.delay))
    .bind(one.holds)
    .bind(&one.note.before)
    .bind(&one.note.after)
    .execute(tx)
    .await?;
    Ok(())
}

/// Moves a message to the dead letters; one whose key was parked only while the key still is.
async fn bury(tx: &mut SqliteConnection, lane: i32, one: &Buried) -> Result<(), sqlx::Error> {
    if one.park {
        sqlx::query(
            "INSERT INTO mainstay_outbox_parked (lane, topic, key, first, above, since)
             SELECT lane, topic, key, id, id, CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)
             FROM mainstay_outbox_message WHERE lane = ?1 AND id = ?2 AND key IS NOT NULL
             ON CONFLICT (lane, topic, key)
                 DO UPDATE SET first = min(first, excluded.first), above = min(above, excluded.above)",
        )
        .bind(lane)
        .bind(one.id)
        .execute(&mut *tx)
        .await?;
    }
    let moved = sqlx::query(concat!(
        "INSERT INTO mainstay_outbox_dead (",
        event_columns!(),
        ", attempts, cause, reason, failures, died_at)
         SELECT ",
        event_columns!(),
        ", ?3, ?4, ?5,
             coalesce(?6 || CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) || ?7, failures),
             CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)
         FROM mainstay_outbox_message m
         WHERE lane = ?1 AND id = ?2 AND (NOT ?8 OR EXISTS (
             SELECT 1 FROM mainstay_outbox_parked p
             WHERE p.lane = m.lane AND p.topic = m.topic AND p.key = m.key AND p.above < m.id))"
    ))
    .bind(lane)
    .bind(one.id)
    .bind(one.attempts)
    .bind(one.cause.as_str())
    .bind(&one.reason)
    .bind(one.note.as_ref().map(|note| note.before.as_str()))
    .bind(one.note.as_ref().map(|note| note.after.as_str()))
    .bind(one.cause == DeadCause::Parked)
    .execute(&mut *tx)
    .await?;
    if moved.rows_affected() == 1 {
        sqlx::query("DELETE FROM mainstay_outbox_message WHERE lane = ?1 AND id = ?2")
            .bind(lane)
            .bind(one.id)
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}
