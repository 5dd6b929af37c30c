//! The outbox on Postgres: what operators look at.

use std::time::Duration;

use sqlx::{PgPool, Postgres, Row, postgres::PgRow};
use uuid::Uuid;

use super::{
    super::{
        AuditRow, DeadRow, HeadRow, Inspection, LagRow, LaneRow, Observe, PauseRow, PendingRow,
        Select, TopicRow, micros,
    },
    message,
};
use crate::error::Error;

impl Observe for Postgres {
    async fn lag(pool: PgPool, cap: i64, lately: Duration) -> Result<LagRow, Error> {
        // The oldest of a lane is taken to be its head: one probe of the primary key per lane, not a scan. The guess is the
        // planner's: rows by page when last counted, times the pages there are.
        let row = sqlx::query(
            "SELECT
                 (SELECT count(*) FROM (SELECT FROM mainstay_outbox_message LIMIT $1) p) AS pending,
                 (SELECT (c.reltuples / c.relpages
                     * (pg_relation_size(c.oid) / current_setting('block_size')::integer))::bigint
                  FROM pg_class c
                  WHERE c.oid = 'mainstay_outbox_message'::regclass AND c.relpages > 0) AS pending_guess,
                 (SELECT (extract(epoch FROM clock_timestamp() - min(h.enqueued_at)) * 1000000)::bigint
                  FROM mainstay_outbox_lane l
                  CROSS JOIN LATERAL (
                      SELECT m.enqueued_at FROM mainstay_outbox_message m
                      WHERE m.lane = l.lane ORDER BY m.id LIMIT 1) h) AS oldest_micros,
                 (SELECT count(*) FROM (SELECT FROM mainstay_outbox_later LIMIT $1) w) AS later,
                 (SELECT count(*) FROM (SELECT FROM mainstay_outbox_dead LIMIT $1) d) AS dead,
                 (SELECT count(*) FROM (
                     SELECT FROM mainstay_outbox_dead
                     WHERE died_at > clock_timestamp() - $2 * interval '1 microsecond' LIMIT $1) d) AS died_lately,
                 (SELECT count(*) FROM (SELECT FROM mainstay_outbox_parked LIMIT $1) k) AS parked,
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

    async fn topics(pool: PgPool, scan: i64) -> Result<Vec<TopicRow>, Error> {
        let rows = sqlx::query(
            "SELECT m.topic, count(*) AS pending,
                 count(*) FILTER (WHERE m.retry_at > clock_timestamp()) AS retrying,
                 (extract(epoch FROM clock_timestamp() - min(m.enqueued_at)) * 1000000)::bigint AS oldest_micros,
                 max(m.place) AS deepest
             FROM mainstay_outbox_lane l
             CROSS JOIN LATERAL (
                 SELECT h.topic, h.retry_at, h.enqueued_at, row_number() OVER (ORDER BY h.id) AS place
                 FROM (
                     SELECT id, topic, retry_at, enqueued_at FROM mainstay_outbox_message
                     WHERE lane = l.lane ORDER BY id LIMIT $1) h) m
             GROUP BY m.topic ORDER BY m.topic COLLATE \"C\"",
        )
        .bind(scan)
        .fetch_all(&pool)
        .await?;
        let topic = |row: &PgRow| {
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

    async fn lane_states(pool: PgPool, cap: i64) -> Result<Vec<LaneRow>, Error> {
        // Counted in the order of the ids, or the planner collects the whole lane before it counts the first of it.
        let rows = sqlx::query(
            "SELECT l.lane, l.owner, l.epoch,
                 (extract(epoch FROM l.lease_until - clock_timestamp()) * 1000000)::bigint AS lease_micros,
                 greatest(cardinality(l.in_flight) - 1, 0)::bigint AS in_flight,
                 (extract(epoch FROM clock_timestamp() - l.settled_at) * 1000000)::bigint AS settled_micros,
                 (SELECT count(*) FROM (
                     SELECT FROM mainstay_outbox_message WHERE lane = l.lane ORDER BY id LIMIT $1) p) AS pending,
                 h.topic, h.attempts, h.last_reason,
                 (extract(epoch FROM clock_timestamp() - h.enqueued_at) * 1000000)::bigint AS age_micros,
                 (extract(epoch FROM h.retry_at - clock_timestamp()) * 1000000)::bigint AS retry_micros
             FROM mainstay_outbox_lane l
             LEFT JOIN LATERAL (
                 SELECT m.topic, m.attempts, m.last_reason, m.enqueued_at, m.retry_at FROM mainstay_outbox_message m
                 WHERE m.lane = l.lane ORDER BY m.id LIMIT 1) h ON true
             ORDER BY l.lane",
        )
        .bind(cap)
        .fetch_all(&pool)
        .await?;
        rows.iter().map(lane).collect()
    }

    async fn peek(
        pool: PgPool,
        select: Select,
        scan: i64,
        limit: u32,
    ) -> Result<Vec<PendingRow>, Error> {
        let rows = sqlx::query(
            "SELECT m.*,
                 (extract(epoch FROM m.time) * 1000000)::bigint AS time_micros,
                 (extract(epoch FROM m.enqueued_at) * 1000000)::bigint AS enqueued_micros,
                 (extract(epoch FROM m.retry_at - clock_timestamp()) * 1000000)::bigint AS retry_micros,
                 NULL::bigint AS due_micros,
                 m.id = ANY (coalesce(l.in_flight, '{}')) AS in_flight,
                 m.ordered AND EXISTS (
                     SELECT FROM mainstay_outbox_message b
                     WHERE b.lane = m.lane AND b.key = m.key AND b.id < m.id AND b.holds
                         AND b.retry_at > clock_timestamp()) AS behind,
                 m.ordered AND EXISTS (
                     SELECT FROM mainstay_outbox_parked k
                     WHERE k.lane = m.lane AND k.topic = m.topic AND k.key = m.key AND k.above < m.id) AS parked
             FROM mainstay_outbox_lane l
             CROSS JOIN LATERAL (
                 SELECT * FROM (SELECT * FROM mainstay_outbox_message WHERE lane = l.lane ORDER BY id LIMIT $7) h
                 WHERE ($1::text IS NULL OR h.topic = $1 OR ($2 AND starts_with(h.topic, $1)))
                     AND ($3::bytea IS NULL OR h.key = $3)
                     AND ($4::uuid IS NULL OR h.event_id = $4)
                     AND ($5::bigint IS NULL OR h.enqueued_at >= 'epoch'::timestamptz + $5 * interval '1 microsecond')
                     AND ($6::bigint IS NULL OR h.enqueued_at < 'epoch'::timestamptz + $6 * interval '1 microsecond')
                 ORDER BY h.id LIMIT $8
             ) m
             ORDER BY m.id LIMIT $8",
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

    async fn later(pool: PgPool, select: Select, limit: u32) -> Result<Vec<PendingRow>, Error> {
        let rows = sqlx::query(
            "SELECT w.*, 0 AS attempts,
                 (extract(epoch FROM w.time) * 1000000)::bigint AS time_micros,
                 (extract(epoch FROM w.enqueued_at) * 1000000)::bigint AS enqueued_micros,
                 NULL::bigint AS retry_micros,
                 (extract(epoch FROM w.due_at) * 1000000)::bigint AS due_micros,
                 false AS in_flight, false AS behind, false AS parked, NULL::text AS last_reason
             FROM mainstay_outbox_later w
             WHERE ($1::text IS NULL OR topic = $1 OR ($2 AND starts_with(topic, $1)))
                 AND ($3::bytea IS NULL OR key = $3)
                 AND ($4::uuid IS NULL OR event_id = $4)
                 AND ($5::bigint IS NULL OR enqueued_at >= 'epoch'::timestamptz + $5 * interval '1 microsecond')
                 AND ($6::bigint IS NULL OR enqueued_at < 'epoch'::timestamptz + $6 * interval '1 microsecond')
             ORDER BY due_at, id LIMIT $7",
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

    async fn dead(pool: PgPool, select: Select, limit: u32) -> Result<Vec<DeadRow>, Error> {
        let rows = sqlx::query(
            "SELECT d.*,
                 (extract(epoch FROM time) * 1000000)::bigint AS time_micros,
                 (extract(epoch FROM died_at) * 1000000)::bigint AS died_micros
             FROM mainstay_outbox_dead d
             WHERE ($1::text IS NULL OR topic = $1 OR ($2 AND starts_with(topic, $1)))
                 AND ($3::bytea IS NULL OR key = $3)
                 AND ($4::uuid IS NULL OR event_id = $4)
                 AND ($5::text IS NULL OR cause = $5)
                 AND ($6::bigint IS NULL OR died_at >= 'epoch'::timestamptz + $6 * interval '1 microsecond')
                 AND ($7::bigint IS NULL OR died_at < 'epoch'::timestamptz + $7 * interval '1 microsecond')
             ORDER BY id LIMIT $8",
        )
        .bind(select.topic)
        .bind(select.prefix)
        .bind(select.key)
        .bind(select.event_id)
        .bind(select.cause)
        .bind(select.since_micros)
        .bind(select.until_micros)
        .bind(i64::from(limit))
        .persistent(false)
        .fetch_all(&pool)
        .await?;
        rows.iter().map(dead).collect()
    }

    async fn count_dead(
        pool: PgPool,
        select: Select,
        in_front: bool,
        cap: i64,
    ) -> Result<i64, Error> {
        let count = sqlx::query_scalar(
            "SELECT count(*) FROM (
                 SELECT FROM mainstay_outbox_dead d
                 WHERE ($1::text IS NULL OR d.topic = $1 OR ($2 AND starts_with(d.topic, $1)))
                     AND ($3::bytea IS NULL OR d.key = $3)
                     AND ($4::uuid IS NULL OR d.event_id = $4)
                     AND ($5::text IS NULL OR d.cause = $5)
                     AND ($6::bigint IS NULL OR d.died_at >= 'epoch'::timestamptz + $6 * interval '1 microsecond')
                     AND ($7::bigint IS NULL OR d.died_at < 'epoch'::timestamptz + $7 * interval '1 microsecond')
                     AND NOT ($9 AND EXISTS (
                         SELECT FROM mainstay_outbox_parked k
                         JOIN mainstay_outbox_dead e
                             ON e.lane = k.lane AND e.key = k.key AND e.id >= k.first AND e.topic = k.topic
                         WHERE k.lane = d.lane AND k.topic = d.topic AND k.key = d.key AND e.id < d.id AND NOT (
                             ($4::uuid IS NULL OR e.event_id = $4)
                             AND ($5::text IS NULL OR e.cause = $5)
                             AND ($6::bigint IS NULL
                                 OR e.died_at >= 'epoch'::timestamptz + $6 * interval '1 microsecond')
                             AND ($7::bigint IS NULL
                                 OR e.died_at < 'epoch'::timestamptz + $7 * interval '1 microsecond'))))
                 LIMIT $8) d",
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
        .persistent(false)
        .fetch_one(&pool)
        .await?;
        Ok(count)
    }

    async fn count_delivered(pool: PgPool, select: Select, cap: i64) -> Result<i64, Error> {
        let count = sqlx::query_scalar(
            "SELECT count(*) FROM (
                 SELECT FROM mainstay_outbox_delivered
                 WHERE ($1::text IS NULL OR topic = $1 OR ($2 AND starts_with(topic, $1)))
                     AND ($3::bytea IS NULL OR key = $3)
                     AND ($4::uuid IS NULL OR event_id = $4)
                     AND $5::text IS NULL
                     AND ($6::bigint IS NULL OR delivered_at >= 'epoch'::timestamptz + $6 * interval '1 microsecond')
                     AND ($7::bigint IS NULL OR delivered_at < 'epoch'::timestamptz + $7 * interval '1 microsecond')
                 LIMIT $8) d",
        )
        .bind(select.topic)
        .bind(select.prefix)
        .bind(select.key)
        .bind(select.event_id)
        .bind(select.cause)
        .bind(select.since_micros)
        .bind(select.until_micros)
        .bind(cap)
        .persistent(false)
        .fetch_one(&pool)
        .await?;
        Ok(count)
    }

    async fn paused(pool: PgPool) -> Result<Vec<PauseRow>, Error> {
        let rows: Vec<(String, String, i64)> = sqlx::query_as(
            "SELECT pattern, actor, (extract(epoch FROM since) * 1000000)::bigint FROM mainstay_outbox_pause
             ORDER BY pattern COLLATE \"C\"",
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

    async fn audit(pool: PgPool, limit: u32) -> Result<Vec<AuditRow>, Error> {
        let rows: Vec<(i64, i64, String, String, String, i64)> = sqlx::query_as(
            "SELECT id, (extract(epoch FROM at) * 1000000)::bigint, actor, action, detail, affected
             FROM mainstay_outbox_audit ORDER BY id DESC LIMIT $1",
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

    async fn inspect(pool: PgPool, cap: i64) -> Result<Inspection, Error> {
        // What is doubled is looked for from the dead letters, of which there should be few.
        let row = sqlx::query(
            "SELECT
                 s.lanes,
                 (SELECT count(*) FROM mainstay_outbox_lane) AS lane_rows,
                 (SELECT count(*) FROM (
                     SELECT FROM mainstay_outbox_message WHERE lane >= s.lanes
                     UNION ALL
                     SELECT FROM mainstay_outbox_message WHERE lane < 0
                     LIMIT $1) x) AS stray,
                 (SELECT count(*) FROM (
                     SELECT FROM mainstay_outbox_dead d
                     JOIN mainstay_outbox_message m ON m.lane = d.lane AND m.id = d.id
                     LIMIT $1) x) AS doubled,
                 (SELECT count(*) FROM mainstay_outbox_lane
                  WHERE owner IS NOT NULL AND lease_until < clock_timestamp() - interval '1 minute'
                      AND NOT EXISTS (
                          SELECT FROM mainstay_outbox_relay WHERE alive_until > clock_timestamp())) AS abandoned,
                 (SELECT count(*) FROM (
                     SELECT FROM mainstay_outbox_parked k
                     WHERE NOT EXISTS (
                         SELECT FROM mainstay_outbox_dead d
                         WHERE d.lane = k.lane AND d.key = k.key AND d.id >= k.first AND d.topic = k.topic)
                     LIMIT $1) x) AS parked_empty,
                 (SELECT count(*) FROM (
                     SELECT FROM mainstay_outbox_parked k
                     WHERE EXISTS (
                             SELECT FROM mainstay_outbox_dead d
                             WHERE d.lane = k.lane AND d.key = k.key AND d.id >= k.first AND d.topic = k.topic)
                         AND NOT EXISTS (
                             SELECT FROM mainstay_outbox_dead d
                             WHERE d.lane = k.lane AND d.key = k.key AND d.id >= k.first AND d.topic = k.topic
                                 AND d.cause <> 'parked')
                     LIMIT $1) x) AS parked_freed,
                 (SELECT count(*) FROM (
                     SELECT FROM mainstay_outbox_dead d
                     WHERE d.cause = 'parked' AND NOT EXISTS (
                         SELECT FROM mainstay_outbox_parked k
                         WHERE k.lane = d.lane AND k.topic = d.topic AND k.key = d.key)
                     LIMIT $1) x) AS unparked,
                 (SELECT seqcache FROM pg_sequence
                  WHERE seqrelid = pg_get_serial_sequence('mainstay_outbox_message', 'id')::regclass) AS id_cache,
                 pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean AS read_only,
                 (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now_micros
             FROM mainstay_outbox_settings s",
        )
        .bind(cap)
        .fetch_one(&pool)
        .await?;
        let keys = sqlx::query_as(
            "SELECT h.key, h.lane FROM mainstay_outbox_lane l
             CROSS JOIN LATERAL (
                 SELECT m.key, m.lane FROM mainstay_outbox_message m
                 WHERE m.lane = l.lane AND m.ordered AND m.key IS NOT NULL ORDER BY m.id LIMIT 10) h",
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
            id_cache_detail: "the ids' sequence is cached by sessions, so ids say nothing about order: \
                 ALTER SEQUENCE mainstay_outbox_message_id_seq CACHE 1",
            read_only: row.try_get("read_only")?,
            now_micros: row.try_get("now_micros")?,
        })
    }
}

fn lane(row: &PgRow) -> Result<LaneRow, Error> {
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

fn pending(row: &PgRow) -> Result<PendingRow, Error> {
    Ok(PendingRow {
        lane: row.try_get("lane")?,
        id: row.try_get("id")?,
        message: message(row, 1)?,
        enqueued_micros: row.try_get("enqueued_micros")?,
        retry_micros: row.try_get("retry_micros")?,
        due_micros: row.try_get("due_micros")?,
        // NULL where there is no key: a comparison with nothing.
        in_flight: row
            .try_get::<Option<bool>, _>("in_flight")?
            .unwrap_or(false),
        behind: row.try_get("behind")?,
        parked: row.try_get("parked")?,
        reason: row.try_get("last_reason")?,
    })
}

fn dead(row: &PgRow) -> Result<DeadRow, Error> {
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
