//! The outbox on MySQL and MariaDB: what operators look at.
//!
//! There is no LATERAL in MariaDB: what is wanted of each lane up to a bound is asked lane by lane, on one connection.

use std::{collections::BTreeMap, time::Duration};

use sqlx::{
    MySql, MySqlConnection, MySqlPool, Row,
    mysql::{MySqlArguments, MySqlRow},
};

use super::{
    super::{
        AuditRow, DeadRow, Inspection, LagRow, LaneRow, Observe, PauseRow, PendingRow, Select,
        TopicRow, micros,
    },
    apart,
    rows::{dead, lane, pending, topic},
    select::{add, add_select, add_twice},
    text,
};
use crate::error::Error;

impl Observe for MySql {
    async fn lag(pool: MySqlPool, cap: i64, lately: Duration) -> Result<LagRow, Error> {
        // The oldest of a lane is taken to be its head: one probe of the primary key per lane, not a scan. The guess is
        // InnoDB's, from a few pages that it looked into.
        apart(async move {
            let row = sqlx::query(
                "SELECT
                     (SELECT count(*) FROM (SELECT 1 FROM mainstay_outbox_message LIMIT ?) p) AS pending,
                     (SELECT CAST(t.table_rows AS SIGNED) FROM information_schema.tables t
                      WHERE t.table_schema = database() AND t.table_name = 'mainstay_outbox_message') AS pending_guess,
                     (SELECT timestampdiff(MICROSECOND, min(h.enqueued_at), utc_timestamp(6))
                      FROM (
                          SELECT (SELECT m.enqueued_at FROM mainstay_outbox_message m
                                  WHERE m.lane = l.lane ORDER BY m.id LIMIT 1) AS enqueued_at
                          FROM mainstay_outbox_lane l) h) AS oldest_micros,
                     (SELECT count(*) FROM (SELECT 1 FROM mainstay_outbox_later LIMIT ?) w) AS later,
                     (SELECT count(*) FROM (SELECT 1 FROM mainstay_outbox_dead LIMIT ?) d) AS dead,
                     (SELECT count(*) FROM (
                         SELECT 1 FROM mainstay_outbox_dead
                         WHERE died_at > utc_timestamp(6) - INTERVAL ? MICROSECOND LIMIT ?) d) AS died_lately,
                     (SELECT count(*) FROM (SELECT 1 FROM mainstay_outbox_parked LIMIT ?) k) AS parked,
                     (SELECT count(*) FROM mainstay_outbox_pause) AS paused",
            )
            .bind(cap)
            .bind(cap)
            .bind(cap)
            .bind(micros(lately))
            .bind(cap)
            .bind(cap)
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
        })
        .await
    }

    async fn topics(pool: MySqlPool, scan: i64) -> Result<Vec<TopicRow>, Error> {
        apart(async move {
            let mut conn = pool.acquire().await?;
            let mut topics: BTreeMap<String, TopicRow> = BTreeMap::new();
            for lane in lanes(&mut conn).await? {
                let rows = sqlx::query(
                    "SELECT h.topic, count(*) AS pending,
                         CAST(coalesce(sum(h.retry_at > utc_timestamp(6)), 0) AS SIGNED) AS retrying,
                         timestampdiff(MICROSECOND, min(h.enqueued_at), utc_timestamp(6)) AS oldest_micros,
                         CAST(max(h.place) AS SIGNED) AS deepest
                     FROM (
                         SELECT m.topic, m.retry_at, m.enqueued_at, row_number() OVER (ORDER BY m.id) AS place
                         FROM (
                             SELECT id, topic, retry_at, enqueued_at FROM mainstay_outbox_message
                             WHERE lane = ? ORDER BY id LIMIT ?) m) h
                     GROUP BY h.topic",
                )
                .bind(lane)
                .bind(scan)
                .fetch_all(&mut *conn)
                .await?;
                for row in rows {
                    let of_lane = topic(&row)?;
                    topics
                        .entry(of_lane.topic.clone())
                        .and_modify(|sum| {
                            sum.pending += of_lane.pending;
                            sum.retrying += of_lane.retrying;
                            sum.oldest_micros = sum.oldest_micros.max(of_lane.oldest_micros);
                            sum.deepest = sum.deepest.max(of_lane.deepest);
                        })
                        .or_insert(of_lane);
                }
            }
            Ok(topics.into_values().collect())
        })
        .await
    }

    async fn lane_states(pool: MySqlPool, cap: i64) -> Result<Vec<LaneRow>, Error> {
        apart(async move {
            let mut conn = pool.acquire().await?;
            let rows = sqlx::query(
                "SELECT l.lane, l.owner, l.epoch,
                     timestampdiff(MICROSECOND, utc_timestamp(6), l.lease_until) AS lease_micros,
                     CAST(greatest(coalesce(json_length(l.in_flight), 0) - 1, 0) AS SIGNED) AS in_flight,
                     timestampdiff(MICROSECOND, l.settled_at, utc_timestamp(6)) AS settled_micros,
                     h.topic, h.attempts, h.last_reason,
                     timestampdiff(MICROSECOND, h.enqueued_at, utc_timestamp(6)) AS age_micros,
                     timestampdiff(MICROSECOND, utc_timestamp(6), h.retry_at) AS retry_micros
                 FROM mainstay_outbox_lane l
                 LEFT JOIN mainstay_outbox_message h ON h.lane = l.lane AND h.id = (
                     SELECT m.id FROM mainstay_outbox_message m WHERE m.lane = l.lane ORDER BY m.id LIMIT 1)
                 ORDER BY l.lane",
            )
            .fetch_all(&mut *conn)
            .await?;
            let mut states = Vec::with_capacity(rows.len());
            for row in &rows {
                let pending = sqlx::query_scalar(
                    "SELECT count(*) FROM (SELECT 1 FROM mainstay_outbox_message WHERE lane = ? LIMIT ?) p",
                )
                .bind(row.try_get::<i32, _>("lane")?)
                .bind(cap)
                .fetch_one(&mut *conn)
                .await?;
                states.push(lane(row, pending)?);
            }
            Ok(states)
        })
        .await
    }

    async fn peek(
        pool: MySqlPool,
        select: Select,
        scan: i64,
        limit: u32,
    ) -> Result<Vec<PendingRow>, Error> {
        apart(async move {
            let mut conn = pool.acquire().await?;
            let mut found = Vec::new();
            for lane in lanes(&mut conn).await? {
                let mut arguments = MySqlArguments::default();
                add(&mut arguments, lane)?;
                add(&mut arguments, scan)?;
                add_select(&mut arguments, &select)?;
                add(&mut arguments, limit)?;
                let rows = sqlx::query_with(
                    "SELECT m.*,
                         timestampdiff(MICROSECOND, '1970-01-01', m.time) AS time_micros,
                         timestampdiff(MICROSECOND, '1970-01-01', m.enqueued_at) AS enqueued_micros,
                         timestampdiff(MICROSECOND, utc_timestamp(6), m.retry_at) AS retry_micros,
                         CAST(NULL AS SIGNED) AS due_micros,
                         coalesce(json_contains(l.in_flight, CAST(m.id AS CHAR)), false) AS in_flight,
                         m.ordered AND EXISTS (
                             SELECT 1 FROM mainstay_outbox_waiting b
                             WHERE b.lane = m.lane AND b.`key` = m.`key` AND b.id < m.id AND b.holds
                                 AND b.retry_at > utc_timestamp(6)) AS behind,
                         m.ordered AND EXISTS (
                             SELECT 1 FROM mainstay_outbox_parked k
                             WHERE k.lane = m.lane AND k.topic = m.topic AND k.`key` = m.`key` AND k.above < m.id) AS parked
                     FROM (SELECT * FROM mainstay_outbox_message WHERE lane = ? ORDER BY id LIMIT ?) m
                     JOIN mainstay_outbox_lane l ON l.lane = m.lane
                     WHERE (? IS NULL OR m.topic = ? OR (? AND left(m.topic, octet_length(?)) = ?))
                         AND (? IS NULL OR m.`key` = ?)
                         AND (? IS NULL OR m.event_id = ?)
                         AND (? IS NULL OR m.enqueued_at >= timestampadd(MICROSECOND, ?, '1970-01-01'))
                         AND (? IS NULL OR m.enqueued_at < timestampadd(MICROSECOND, ?, '1970-01-01'))
                     ORDER BY m.id LIMIT ?",
                    arguments,
                )
                .fetch_all(&mut *conn)
                .await?;
                for row in &rows {
                    found.push(pending(row)?);
                }
            }
            found.sort_unstable_by_key(|row| row.id);
            found.truncate(limit as usize);
            Ok(found)
        })
        .await
    }

    async fn later(pool: MySqlPool, select: Select, limit: u32) -> Result<Vec<PendingRow>, Error> {
        apart(async move {
            let mut arguments = MySqlArguments::default();
            add_select(&mut arguments, &select)?;
            add(&mut arguments, limit)?;
            let rows = sqlx::query_with(
                "SELECT w.*, CAST(w.hash % s.lanes AS SIGNED) AS lane, CAST(0 AS SIGNED) AS attempts,
                     timestampdiff(MICROSECOND, '1970-01-01', w.time) AS time_micros,
                     timestampdiff(MICROSECOND, '1970-01-01', w.enqueued_at) AS enqueued_micros,
                     CAST(NULL AS SIGNED) AS retry_micros,
                     timestampdiff(MICROSECOND, '1970-01-01', w.due_at) AS due_micros,
                     false AS in_flight, false AS behind, false AS parked, CAST(NULL AS CHAR) AS last_reason
                 FROM mainstay_outbox_settings s CROSS JOIN mainstay_outbox_later w
                 WHERE (? IS NULL OR w.topic = ? OR (? AND left(w.topic, octet_length(?)) = ?))
                     AND (? IS NULL OR w.`key` = ?)
                     AND (? IS NULL OR w.event_id = ?)
                     AND (? IS NULL OR w.enqueued_at >= timestampadd(MICROSECOND, ?, '1970-01-01'))
                     AND (? IS NULL OR w.enqueued_at < timestampadd(MICROSECOND, ?, '1970-01-01'))
                 ORDER BY w.due_at, w.id LIMIT ?",
                arguments,
            )
            .fetch_all(&pool)
            .await?;
            rows.iter().map(pending).collect()
        })
        .await
    }

    async fn dead(pool: MySqlPool, select: Select, limit: u32) -> Result<Vec<DeadRow>, Error> {
        apart(async move {
            let mut arguments = MySqlArguments::default();
            add_select(&mut arguments, &select)?;
            add_twice(&mut arguments, select.cause)?;
            add(&mut arguments, limit)?;
            let rows = sqlx::query_with(
                "SELECT d.*, timestampdiff(MICROSECOND, '1970-01-01', d.time) AS time_micros,
                     timestampdiff(MICROSECOND, '1970-01-01', d.died_at) AS died_micros
                 FROM mainstay_outbox_dead d
                 WHERE (? IS NULL OR topic = ? OR (? AND left(topic, octet_length(?)) = ?))
                     AND (? IS NULL OR `key` = ?)
                     AND (? IS NULL OR event_id = ?)
                     AND (? IS NULL OR died_at >= timestampadd(MICROSECOND, ?, '1970-01-01'))
                     AND (? IS NULL OR died_at < timestampadd(MICROSECOND, ?, '1970-01-01'))
                     AND (? IS NULL OR cause = ?)
                 ORDER BY id LIMIT ?",
                arguments,
            )
            .fetch_all(&pool)
            .await?;
            rows.iter().map(dead).collect()
        })
        .await
    }

    async fn count_dead(
        pool: MySqlPool,
        select: Select,
        in_front: bool,
        cap: i64,
    ) -> Result<i64, Error> {
        apart(async move {
            let mut arguments = MySqlArguments::default();
            add_select(&mut arguments, &select)?;
            add_twice(&mut arguments, select.cause)?;
            add(&mut arguments, in_front)?;
            add_twice(&mut arguments, select.event_id)?;
            add_twice(&mut arguments, select.cause)?;
            add_twice(&mut arguments, select.since_micros)?;
            add_twice(&mut arguments, select.until_micros)?;
            add(&mut arguments, cap)?;
            sqlx::query_scalar_with(
                "SELECT count(*) FROM (
                     SELECT 1 FROM mainstay_outbox_dead d
                     WHERE (? IS NULL OR d.topic = ? OR (? AND left(d.topic, octet_length(?)) = ?))
                         AND (? IS NULL OR d.`key` = ?)
                         AND (? IS NULL OR d.event_id = ?)
                         AND (? IS NULL OR d.died_at >= timestampadd(MICROSECOND, ?, '1970-01-01'))
                         AND (? IS NULL OR d.died_at < timestampadd(MICROSECOND, ?, '1970-01-01'))
                         AND (? IS NULL OR d.cause = ?)
                         AND NOT (? AND EXISTS (
                             SELECT 1 FROM mainstay_outbox_parked k
                             STRAIGHT_JOIN mainstay_outbox_dead e
                                 ON e.lane = k.lane AND e.`key` = k.`key` AND e.id >= k.`first` AND e.topic = k.topic
                             WHERE k.lane = d.lane AND k.topic = d.topic AND k.`key` = d.`key` AND e.id < d.id AND NOT (
                                 (? IS NULL OR e.event_id = ?)
                                 AND (? IS NULL OR e.cause = ?)
                                 AND (? IS NULL OR e.died_at >= timestampadd(MICROSECOND, ?, '1970-01-01'))
                                 AND (? IS NULL OR e.died_at < timestampadd(MICROSECOND, ?, '1970-01-01')))))
                     LIMIT ?) d",
                arguments,
            )
            .fetch_one(&pool)
            .await
        })
        .await
    }

    async fn count_delivered(pool: MySqlPool, select: Select, cap: i64) -> Result<i64, Error> {
        apart(async move {
            let mut arguments = MySqlArguments::default();
            add_select(&mut arguments, &select)?;
            add(&mut arguments, select.cause)?;
            add(&mut arguments, cap)?;
            sqlx::query_scalar_with(
                "SELECT count(*) FROM (
                     SELECT 1 FROM mainstay_outbox_delivered
                     WHERE (? IS NULL OR topic = ? OR (? AND left(topic, octet_length(?)) = ?))
                         AND (? IS NULL OR `key` = ?)
                         AND (? IS NULL OR event_id = ?)
                         AND (? IS NULL OR delivered_at >= timestampadd(MICROSECOND, ?, '1970-01-01'))
                         AND (? IS NULL OR delivered_at < timestampadd(MICROSECOND, ?, '1970-01-01'))
                         AND ? IS NULL
                     LIMIT ?) d",
                arguments,
            )
            .fetch_one(&pool)
            .await
        })
        .await
    }

    async fn paused(pool: MySqlPool) -> Result<Vec<PauseRow>, Error> {
        apart(async move {
            let rows = sqlx::query(
                "SELECT pattern, actor, timestampdiff(MICROSECOND, '1970-01-01', since) AS since_micros
                 FROM mainstay_outbox_pause ORDER BY pattern",
            )
            .fetch_all(&pool)
            .await?;
            let pause = |row: &MySqlRow| {
                Ok(PauseRow {
                    pattern: text(row, "pattern")?,
                    actor: row.try_get("actor")?,
                    since_micros: row.try_get("since_micros")?,
                })
            };
            rows.iter().map(pause).collect()
        })
        .await
    }

    async fn audit(pool: MySqlPool, limit: u32) -> Result<Vec<AuditRow>, Error> {
        apart(async move {
            let rows: Vec<(i64, i64, String, String, String, i64)> = sqlx::query_as(
                "SELECT id, timestampdiff(MICROSECOND, '1970-01-01', at), actor, action, detail, affected
                 FROM mainstay_outbox_audit ORDER BY id DESC LIMIT ?",
            )
            .bind(limit)
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
        })
        .await
    }

    async fn inspect(pool: MySqlPool, cap: i64) -> Result<Inspection, Error> {
        apart(async move {
            let mut conn = pool.acquire().await?;
            // What is doubled is looked for from the dead letters, of which there should be few. Where several servers take
            // writes each hands out every n-th id, in no order with the others: as with a cache.
            let row = sqlx::query(
                "SELECT
                     s.lanes,
                     (SELECT count(*) FROM mainstay_outbox_lane) AS lane_rows,
                     (SELECT count(*) FROM (
                         SELECT 1 FROM mainstay_outbox_message
                         WHERE lane >= (SELECT lanes FROM mainstay_outbox_settings)
                         UNION ALL
                         SELECT 1 FROM mainstay_outbox_message WHERE lane < 0
                         LIMIT ?) x) AS stray,
                     (SELECT count(*) FROM (
                         SELECT 1 FROM mainstay_outbox_dead d
                         STRAIGHT_JOIN mainstay_outbox_message m ON m.lane = d.lane AND m.id = d.id
                         LIMIT ?) x) AS doubled,
                     (SELECT count(*) FROM mainstay_outbox_lane
                      WHERE owner IS NOT NULL AND lease_until < utc_timestamp(6) - INTERVAL 1 MINUTE
                          AND NOT EXISTS (
                              SELECT 1 FROM mainstay_outbox_relay WHERE alive_until > utc_timestamp(6))) AS abandoned,
                     (SELECT count(*) FROM (
                         SELECT 1 FROM mainstay_outbox_parked k
                         WHERE NOT EXISTS (
                             SELECT 1 FROM mainstay_outbox_dead d
                             WHERE d.lane = k.lane AND d.`key` = k.`key` AND d.id >= k.`first` AND d.topic = k.topic)
                         LIMIT ?) x) AS parked_empty,
                     (SELECT count(*) FROM (
                         SELECT 1 FROM mainstay_outbox_parked k
                         WHERE EXISTS (
                                 SELECT 1 FROM mainstay_outbox_dead d
                                 WHERE d.lane = k.lane AND d.`key` = k.`key` AND d.id >= k.`first` AND d.topic = k.topic)
                             AND NOT EXISTS (
                                 SELECT 1 FROM mainstay_outbox_dead d
                                 WHERE d.lane = k.lane AND d.`key` = k.`key` AND d.id >= k.`first` AND d.topic = k.topic
                                     AND d.cause <> 'parked')
                         LIMIT ?) x) AS parked_freed,
                     (SELECT count(*) FROM (
                         SELECT 1 FROM mainstay_outbox_dead d
                         WHERE d.cause = 'parked' AND NOT EXISTS (
                             SELECT 1 FROM mainstay_outbox_parked k
                             WHERE k.lane = d.lane AND k.topic = d.topic AND k.`key` = d.`key`)
                         LIMIT ?) x) AS unparked,
                     CAST(@@auto_increment_increment AS SIGNED) AS id_cache,
                     @@global.read_only <> 0 AS read_only,
                     timestampdiff(MICROSECOND, '1970-01-01', utc_timestamp(6)) AS now_micros
                 FROM mainstay_outbox_settings s",
            )
            .bind(cap)
            .bind(cap)
            .bind(cap)
            .bind(cap)
            .bind(cap)
            .fetch_one(&mut *conn)
            .await?;
            let mut keys = Vec::new();
            for lane in lanes(&mut conn).await? {
                let of_lane: Vec<(Vec<u8>, i32)> = sqlx::query_as(
                    "SELECT `key`, lane FROM mainstay_outbox_message
                     WHERE lane = ? AND ordered AND `key` IS NOT NULL ORDER BY id LIMIT 10",
                )
                .bind(lane)
                .fetch_all(&mut *conn)
                .await?;
                keys.extend(of_lane);
            }
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
            id_cache_detail: "servers hand out every n-th id each, so ids say nothing about order: \
                 let one server take the writes, with auto_increment_increment = 1",
                read_only: row.try_get("read_only")?,
                now_micros: row.try_get("now_micros")?,
            })
        })
        .await
    }
}

async fn lanes(conn: &mut MySqlConnection) -> Result<Vec<i32>, sqlx::Error> {
    sqlx::query_scalar("SELECT lane FROM mainstay_outbox_lane ORDER BY lane")
        .fetch_all(conn)
        .await
}
