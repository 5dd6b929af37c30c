//! The outbox on SQLite: what operators look at.

use std::time::Duration;

use sqlx::{Row, Sqlite, SqlitePool, sqlite::SqliteRow};
use uuid::Uuid;

use super::{
    super::{
        AuditRow, DeadRow, HeadRow, Inspection, LagRow, LaneRow, Observe, PauseRow, PendingRow,
        Select, TopicRow, micros,
    },
    message,
};
use crate::error::Error;

impl Observe for Sqlite {
    async fn lag(pool: SqlitePool, cap: i64, lately: Duration) -> Result<LagRow, Error> {
        // The oldest of a lane is taken to be its head: one probe of the index per lane, not a scan. The guess is by the
        // ids: those between a lane's head and its tail, of which one in as many as there are lanes is its own.
        let row = sqlx::query(
            "SELECT
                 (SELECT count(*) FROM (SELECT 1 FROM mainstay_outbox_message LIMIT ?1)) AS pending,
                 (SELECT sum(
                     (SELECT max(m.id) FROM mainstay_outbox_message m WHERE m.lane = l.lane)
                     - (SELECT min(m.id) FROM mainstay_outbox_message m WHERE m.lane = l.lane) + 1) / s.lanes
                  FROM mainstay_outbox_lane l CROSS JOIN mainstay_outbox_settings s) AS pending_guess,
                 (SELECT CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) - min(h.enqueued_at)
                  FROM mainstay_outbox_lane l
                  CROSS JOIN mainstay_outbox_message h ON h.id = (
                      SELECT m.id FROM mainstay_outbox_message m WHERE m.lane = l.lane ORDER BY m.id LIMIT 1))
                     AS oldest_micros,
                 (SELECT count(*) FROM (SELECT 1 FROM mainstay_outbox_later LIMIT ?1)) AS later,
                 (SELECT count(*) FROM (SELECT 1 FROM mainstay_outbox_dead LIMIT ?1)) AS dead,
                 (SELECT count(*) FROM (
                     SELECT 1 FROM mainstay_outbox_dead
                     WHERE died_at > CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) - ?2 LIMIT ?1))
                     AS died_lately,
                 (SELECT count(*) FROM (SELECT 1 FROM mainstay_outbox_parked LIMIT ?1)) AS parked,
                 (SELECT count(*) FROM mainstay_outbox_pause) AS paused",
        )
        .bind(cap)
        .bind(micros(lately))
        .fetch_one(&pool)
        .await?;
        Ok(LagRow {
            pending: row.try_get("pending")?,
            pending_guess: row.try_get("pending_guess")?,
            oldest_micros: row.try_get("oldest_micros")?,
            later: row.try_get("later")?,
            dead: row.try_get("dead")?,
            died_lately: row.try_get("died_lately")?,
            parked: row.try_get("parked")?,
            paused: row.try_get("paused")?,
        })
    }

    async fn topics(pool: SqlitePool, scan: i64) -> Result<Vec<TopicRow>, Error> {
        let rows = sqlx::query(
            "SELECT h.topic, count(*) AS pending,
                 count(*) FILTER (
                     WHERE h.retry_at > CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)) AS retrying,
                 CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) - min(h.enqueued_at) AS oldest_micros,
                 max(h.place) AS deepest
             FROM (
                 SELECT m.topic, m.retry_at, m.enqueued_at,
                     row_number() OVER (PARTITION BY m.lane ORDER BY m.id) AS place
                 FROM mainstay_outbox_lane l
                 CROSS JOIN mainstay_outbox_message m ON m.id IN (
                     SELECT id FROM mainstay_outbox_message WHERE lane = l.lane ORDER BY id LIMIT ?1)
             ) h
             GROUP BY h.topic ORDER BY h.topic",
        )
        .bind(scan)
        .fetch_all(&pool)
        .await?;
        let topic = |row: &SqliteRow| {
            Ok(TopicRow {
                topic: row.try_get("topic")?,
                pending: row.try_get("pending")?,
                retrying: row.try_get("retrying")?,
                oldest_micros: row.try_get("oldest_micros")?,
                deepest: row.try_get("deepest")?,
            })
        };
        rows.iter().map(topic).collect()
    }

    async fn lane_states(pool: SqlitePool, cap: i64) -> Result<Vec<LaneRow>, Error> {
        let rows = sqlx::query(
            "SELECT l.lane, l.owner, l.epoch,
                 l.lease_until - CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) AS lease_micros,
                 json_array_length(coalesce(l.in_flight, '[0]')) - 1 AS in_flight,
                 CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) - l.settled_at AS settled_micros,
                 (SELECT count(*) FROM (
                     SELECT 1 FROM mainstay_outbox_message WHERE lane = l.lane ORDER BY id LIMIT ?1)) AS pending,
                 h.topic, h.attempts, h.last_reason,
                 CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) - h.enqueued_at AS age_micros,
                 h.retry_at - CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) AS retry_micros
             FROM mainstay_outbox_lane l
             LEFT JOIN mainstay_outbox_message h ON h.id = (
                 SELECT m.id FROM mainstay_outbox_message m WHERE m.lane = l.lane ORDER BY m.id LIMIT 1)
             ORDER BY l.lane",
        )
        .bind(cap)
        .fetch_all(&pool)
        .await?;
        rows.iter().map(lane).collect()
    }

    async fn peek(
        pool: SqlitePool,
        select: Select,
        scan: i64,
        limit: u32,
    ) -> Result<Vec<PendingRow>, Error> {
        let rows = sqlx::query(
            "SELECT m.*, m.time AS time_micros, m.enqueued_at AS enqueued_micros,
                 m.retry_at - CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) AS retry_micros,
                 NULL AS due_micros,
                 m.id IN (SELECT value FROM json_each(coalesce(l.in_flight, '[]'))) AS in_flight,
                 m.ordered AND EXISTS (
                     SELECT 1 FROM mainstay_outbox_message b
                     WHERE b.lane = m.lane AND b.key = m.key AND b.id < m.id AND b.holds
                         AND b.retry_at > CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)) AS behind,
                 m.ordered AND EXISTS (
                     SELECT 1 FROM mainstay_outbox_parked k
                     WHERE k.lane = m.lane AND k.topic = m.topic AND k.key = m.key AND k.above < m.id) AS parked
             FROM mainstay_outbox_lane l
             CROSS JOIN mainstay_outbox_message m ON m.id IN (
                 SELECT id FROM mainstay_outbox_message WHERE lane = l.lane ORDER BY id LIMIT ?7)
             WHERE (?1 IS NULL OR m.topic = ?1 OR (?2 AND substr(m.topic, 1, length(?1)) = ?1))
                 AND (?3 IS NULL OR m.key = ?3)
                 AND (?4 IS NULL OR m.event_id = ?4)
                 AND (?5 IS NULL OR m.enqueued_at >= ?5)
                 AND (?6 IS NULL OR m.enqueued_at < ?6)
             ORDER BY m.id LIMIT ?8",
        )
        .bind(select.topic)
        .bind(select.prefix)
        .bind(select.key)
        .bind(select.event_id)
        .bind(select.since_micros)
        .bind(select.until_micros)
        .bind(scan)
        .bind(i64::from(limit))
        .fetch_all(&pool)
        .await?;
        rows.iter().map(pending).collect()
    }

    async fn later(pool: SqlitePool, select: Select, limit: u32) -> Result<Vec<PendingRow>, Error> {
        let rows = sqlx::query(
            "SELECT w.*, 0 AS attempts, w.time AS time_micros, w.enqueued_at AS enqueued_micros, NULL AS retry_micros,
                 w.due_at AS due_micros, 0 AS in_flight, 0 AS behind, 0 AS parked, NULL AS last_reason
             FROM mainstay_outbox_later w
             WHERE (?1 IS NULL OR topic = ?1 OR (?2 AND substr(topic, 1, length(?1)) = ?1))
                 AND (?3 IS NULL OR key = ?3)
                 AND (?4 IS NULL OR event_id = ?4)
                 AND (?5 IS NULL OR enqueued_at >= ?5)
                 AND (?6 IS NULL OR enqueued_at < ?6)
             ORDER BY due_at, id LIMIT ?7",
        )
        .bind(select.topic)
        .bind(select.prefix)
        .bind(select.key)
        .bind(select.event_id)
        .bind(select.since_micros)
        .bind(select.until_micros)
        .bind(i64::from(limit))
        .fetch_all(&pool)
        .await?;
        rows.iter().map(pending).collect()
    }

    async fn dead(pool: SqlitePool, select: Select, limit: u32) -> Result<Vec<DeadRow>, Error> {
        let rows = sqlx::query(
            "SELECT d.*, time AS time_micros, died_at AS died_micros
             FROM mainstay_outbox_dead d
             WHERE (?1 IS NULL OR topic = ?1 OR (?2 AND substr(topic, 1, length(?1)) = ?1))
                 AND (?3 IS NULL OR key = ?3)
                 AND (?4 IS NULL OR event_id = ?4)
                 AND (?5 IS NULL OR cause = ?5)
                 AND (?6 IS NULL OR died_at >= ?6)
                 AND (?7 IS NULL OR died_at < ?7)
             ORDER BY id LIMIT ?8",
        )
        .bind(select.topic)
        .bind(select.prefix)
        .bind(select.key)
        .bind(select.event_id)
        .bind(select.cause)
        .bind(select.since_micros)
        .bind(select.until_micros)
        .bind(i64::from(limit))
        .fetch_all(&pool)
        .await?;
        rows.iter().map(dead).collect()
    }

    async fn count_dead(
        pool: SqlitePool,
        select: Select,
        in_front: bool,
        cap: i64,
    ) -> Result<i64, Error> {
        let count = sqlx::query_scalar(
            "SELECT count(*) FROM (
                 SELECT 1 FROM mainstay_outbox_dead d
                 WHERE (?1 IS NULL OR d.topic = ?1 OR (?2 AND substr(d.topic, 1, length(?1)) = ?1))
                     AND (?3 IS NULL OR d.key = ?3)
                     AND (?4 IS NULL OR d.event_id = ?4)
                     AND (?5 IS NULL OR d.cause = ?5)
                     AND (?6 IS NULL OR d.died_at >= ?6)
                     AND (?7 IS NULL OR d.died_at < ?7)
                     AND NOT (?9 AND EXISTS (
                         SELECT 1 FROM mainstay_outbox_parked k
                         CROSS JOIN mainstay_outbox_dead e
                             ON e.lane = k.lane AND e.key = k.key AND e.id >= k.first AND e.topic = k.topic
                         WHERE k.lane = d.lane AND k.topic = d.topic AND k.key = d.key AND e.id < d.id AND NOT (
                             (?4 IS NULL OR e.event_id = ?4)
                             AND (?5 IS NULL OR e.cause = ?5)
                             AND (?6 IS NULL OR e.died_at >= ?6)
                             AND (?7 IS NULL OR e.died_at < ?7))))
                 LIMIT ?8)",
        )
        .bind(select.topic)
        .bind(select.prefix)
        .bind(select.key)
        .bind(select.event_id)
        .bind(select.cause)
        .bind(select.since_micros)
        .bind(select.until_micros)
        .bind(cap)
        .bind(in_front)
        .fetch_one(&pool)
        .await?;
        Ok(count)
    }

    async fn count_delivered(pool: SqlitePool, select: Select, cap: i64) -> Result<i64, Error> {
        let count = sqlx::query_scalar(
            "SELECT count(*) FROM (
                 SELECT 1 FROM mainstay_outbox_delivered
                 WHERE (?1 IS NULL OR topic = ?1 OR (?2 AND substr(topic, 1, length(?1)) = ?1))
                     AND (?3 IS NULL OR key = ?3)
                     AND (?4 IS NULL OR event_id = ?4)
                     AND ?5 IS NULL
                     AND delivered_at >= ?6 AND delivered_at < ?7
                 LIMIT ?8)",
        )
        .bind(select.topic)
        .bind(select.prefix)
        .bind(select.key)
        .bind(select.event_id)
        .bind(select.cause)
        .bind(select.since_micros.unwrap_or(i64::MIN))
        .bind(select.until_micros.unwrap_or(i64::MAX))
        .bind(cap)
        .fetch_one(&pool)
        .await?;
        Ok(count)
    }

    async fn paused(pool: SqlitePool) -> Result<Vec<PauseRow>, Error> {
        let rows: Vec<(String, String, i64)> = sqlx::query_as(
            "SELECT pattern, actor, since FROM mainstay_outbox_pause ORDER BY pattern",
        )
        .fetch_all(&pool)
        .await?;
        let pause = |(pattern, actor, since_micros)| PauseRow {
            pattern,
            actor,
            since_micros,
        };
        Ok(rows.into_iter().map(pause).collect())
    }

    async fn audit(pool: SqlitePool, limit: u32) -> Result<Vec<AuditRow>, Error> {
        let rows: Vec<(i64, i64, String, String, String, i64)> = sqlx::query_as(
            "SELECT id, at, actor, action, detail, affected FROM mainstay_outbox_audit ORDER BY id DESC LIMIT ?1",
        )
        .bind(i64::from(limit))
        .fetch_all(&pool)
        .await?;
        let audit = |(id, at_micros, actor, action, detail, affected)| AuditRow {
            id,
            at_micros,
            actor,
            action,
            detail,
            affected,
        };
        Ok(rows.into_iter().map(audit).collect())
    }

    async fn inspect(pool: SqlitePool, cap: i64) -> Result<Inspection, Error> {
        // What is doubled is looked for from the dead letters, of which there should be few. There are no sequences with a
        // cache and no replicas here.
        let row = sqlx::query(
            "SELECT
                 s.lanes,
                 (SELECT count(*) FROM mainstay_outbox_lane) AS lane_rows,
                 (SELECT count(*) FROM (
                     SELECT 1 FROM mainstay_outbox_message WHERE lane >= s.lanes
                     UNION ALL
                     SELECT 1 FROM mainstay_outbox_message WHERE lane < 0
                     LIMIT ?1)) AS stray,
                 (SELECT count(*) FROM (
                     SELECT 1 FROM mainstay_outbox_dead d
                     CROSS JOIN mainstay_outbox_message m ON m.id = d.id
                     LIMIT ?1)) AS doubled,
                 (SELECT count(*) FROM mainstay_outbox_lane
                  WHERE owner IS NOT NULL
                      AND lease_until < CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) - 60000000
                      AND NOT EXISTS (
                          SELECT 1 FROM mainstay_outbox_relay
                          WHERE alive_until > CAST(round(unixepoch('subsec') * 1000000) AS INTEGER))) AS abandoned,
                 (SELECT count(*) FROM (
                     SELECT 1 FROM mainstay_outbox_parked k
                     WHERE NOT EXISTS (
                         SELECT 1 FROM mainstay_outbox_dead d
                         WHERE d.lane = k.lane AND d.key = k.key AND d.id >= k.first AND d.topic = k.topic)
                     LIMIT ?1)) AS parked_empty,
                 (SELECT count(*) FROM (
                     SELECT 1 FROM mainstay_outbox_parked k
                     WHERE EXISTS (
                             SELECT 1 FROM mainstay_outbox_dead d
                             WHERE d.lane = k.lane AND d.key = k.key AND d.id >= k.first AND d.topic = k.topic)
                         AND NOT EXISTS (
                             SELECT 1 FROM mainstay_outbox_dead d
                             WHERE d.lane = k.lane AND d.key = k.key AND d.id >= k.first AND d.topic = k.topic
                                 AND d.cause <> 'parked')
                     LIMIT ?1)) AS parked_freed,
                 (SELECT count(*) FROM (
                     SELECT 1 FROM mainstay_outbox_dead d
                     WHERE d.cause = 'parked' AND NOT EXISTS (
                         SELECT 1 FROM mainstay_outbox_parked k
                         WHERE k.lane = d.lane AND k.topic = d.topic AND k.key = d.key)
                     LIMIT ?1)) AS unparked,
                 NULL AS id_cache,
                 0 AS read_only,
                 CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) AS now_micros
             FROM mainstay_outbox_settings s",
        )
        .bind(cap)
        .fetch_one(&pool)
        .await?;
        let keys = sqlx::query_as(
            "SELECT m.key, m.lane FROM mainstay_outbox_lane l
             CROSS JOIN mainstay_outbox_message m ON m.id IN (
                 SELECT h.id FROM mainstay_outbox_message h
                 WHERE h.lane = l.lane AND h.ordered AND h.key IS NOT NULL ORDER BY h.id LIMIT 10)",
        )
        .fetch_all(&pool)
        .await?;
        Ok(Inspection {
            lanes: row.try_get("lanes")?,
            lane_rows: row.try_get("lane_rows")?,
            stray: row.try_get("stray")?,
            doubled: row.try_get("doubled")?,
            abandoned: row.try_get("abandoned")?,
            parked_empty: row.try_get("parked_empty")?,
            parked_freed: row.try_get("parked_freed")?,
            unparked: row.try_get("unparked")?,
            keys,
            id_cache: row.try_get("id_cache")?,
            id_cache_detail: "",
            read_only: row.try_get("read_only")?,
            now_micros: row.try_get("now_micros")?,
        })
    }
}

fn lane(row: &SqliteRow) -> Result<LaneRow, Error> {
    let head = match row.try_get::<Option<String>, _>("topic")? {
        None => None,
        Some(topic) => Some(HeadRow {
            topic,
            age_micros: row.try_get("age_micros")?,
            attempts: row.try_get("attempts")?,
            retry_micros: row.try_get("retry_micros")?,
            reason: row.try_get("last_reason")?,
        }),
    };
    Ok(LaneRow {
        lane: row.try_get("lane")?,
        owner: row.try_get::<Option<Uuid>, _>("owner")?,
        epoch: row.try_get("epoch")?,
        lease_micros: row.try_get("lease_micros")?,
        in_flight: row.try_get("in_flight")?,
        settled_micros: row.try_get("settled_micros")?,
        pending: row.try_get("pending")?,
        head,
    })
}

fn pending(row: &SqliteRow) -> Result<PendingRow, Error> {
    Ok(PendingRow {
        lane: row.try_get("lane")?,
        id: row.try_get("id")?,
        message: message(row, 1)?,
        enqueued_micros: row.try_get("enqueued_micros")?,
        retry_micros: row.try_get("retry_micros")?,
        due_micros: row.try_get("due_micros")?,
        in_flight: row.try_get("in_flight")?,
        behind: row.try_get("behind")?,
        parked: row.try_get("parked")?,
        reason: row.try_get("last_reason")?,
    })
}

fn dead(row: &SqliteRow) -> Result<DeadRow, Error> {
    Ok(DeadRow {
        lane: row.try_get("lane")?,
        id: row.try_get("id")?,
        message: message(row, 0)?,
        attempts: row.try_get("attempts")?,
        cause: row.try_get("cause")?,
        reason: row.try_get("reason")?,
        failures: row.try_get("failures")?,
        died_micros: row.try_get("died_micros")?,
    })
}
