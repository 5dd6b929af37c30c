//! The outbox on Postgres. Every relay operation is one statement, so no transaction is ever open between two.

use std::time::Duration;

use sqlx::{PgConnection, PgPool, Postgres, Row, postgres::PgRow};
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
const SCRIPTS: [&str; 1] = [include_str!("../../migrations/postgres/0001_outbox.sql")];

impl OutboxDb for Postgres {
    async fn migrate(pool: PgPool, lanes: u16, exact: bool) -> Result<(), Error> {
        // A task of its own: dropping a Postgres transaction while it begins would hand the open transaction back to
        // the pool.
        let task = tokio::spawn(async move {
            let mut tx = pool.begin().await?;
            // Held to the end of the transaction: processes that start together migrate one after the other.
            sqlx::query("SELECT pg_advisory_xact_lock(7021786439153902592)")
                .execute(&mut *tx)
                .await?;
            sqlx::query(
                "CREATE TABLE IF NOT EXISTS mainstay_outbox_migrations (
                    version    integer PRIMARY KEY,
                    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
                )",
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
                sqlx::query("INSERT INTO mainstay_outbox_migrations (version) VALUES ($1)")
                    .bind(version)
                    .execute(&mut *tx)
                    .await?;
            }
            let wanted = i32::from(lanes);
            sqlx::query(
                "INSERT INTO mainstay_outbox_settings (lanes) VALUES ($1) ON CONFLICT DO NOTHING",
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
                "INSERT INTO mainstay_outbox_lane (lane)
                 SELECT generate_series(0, $1 - 1) ON CONFLICT DO NOTHING",
            )
            .bind(stored)
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(())
        });
        task.await.map_err(|_| Error::new(ErrorKind::Shutdown))?
    }

    async fn lanes(pool: PgPool) -> Result<u16, Error> {
        // Asked first without naming the table, which may not exist.
        let there: bool =
            sqlx::query_scalar("SELECT to_regclass('mainstay_outbox_migrations') IS NOT NULL")
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

    async fn insert(conn: &mut PgConnection, row: &NewRow<'_>) -> Result<u64, sqlx::Error> {
        // The settings row is never updated, so reading it takes no lock and meets no dead version.
        let done = sqlx::query(
            "INSERT INTO mainstay_outbox_message
                 (lane, event_id, source, type, topic, subject, time, content_type, key, headers, payload)
             SELECT ($1 % s.lanes)::integer, $2, $3, $4, $5, $6,
                 coalesce('epoch'::timestamptz + $7::bigint * interval '1 microsecond', clock_timestamp()),
                 $8, $9, $10, $11
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

    async fn insert_many(conn: &mut PgConnection, rows: &[NewRow<'_>]) -> Result<u64, sqlx::Error> {
        // Sorted below the target list, so that ids are drawn in the order of the events.
        let done = sqlx::query(
            "INSERT INTO mainstay_outbox_message
                 (lane, event_id, source, type, topic, subject, time, content_type, key, headers, payload)
             SELECT (e.hash % e.lanes)::integer, e.event_id, $1, e.type, e.topic, e.subject,
                 coalesce('epoch'::timestamptz + e.time * interval '1 microsecond', clock_timestamp()),
                 e.content_type, e.key, e.headers, e.payload
             FROM (
                 SELECT u.*, s.lanes
                 FROM unnest($2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::bigint[],
                         $8::text[], $9::bytea[], $10::text[], $11::bytea[])
                     WITH ORDINALITY AS u(hash, event_id, type, topic, subject, time, content_type, key, headers,
                         payload, place)
                 CROSS JOIN mainstay_outbox_settings s
                 ORDER BY u.place
             ) e",
        )
        .bind(rows.first().map_or("", |row| row.source))
        .bind(column(rows, |row| row.hash))
        .bind(column(rows, |row| row.event_id))
        .bind(column(rows, |row| row.event_type))
        .bind(column(rows, |row| row.topic))
        .bind(column(rows, |row| row.subject))
        .bind(column(rows, |row| row.time_micros))
        .bind(column(rows, |row| row.content_type))
        .bind(column(rows, |row| row.key))
        .bind(column(rows, |row| row.headers.as_str()))
        .bind(column(rows, |row| row.payload))
        .execute(conn)
        .await?;
        Ok(done.rows_affected())
    }

    async fn heartbeat(pool: PgPool, relay: Uuid, lease: Duration) -> Result<(), Error> {
        sqlx::query(
            "WITH forgotten AS (
                 DELETE FROM mainstay_outbox_relay
                 WHERE alive_until < clock_timestamp() - interval '1 minute' AND id <> $1
             )
             INSERT INTO mainstay_outbox_relay (id, alive_until)
             VALUES ($1, clock_timestamp() + $2 * interval '1 microsecond')
             ON CONFLICT (id) DO UPDATE SET alive_until = excluded.alive_until",
        )
        .bind(relay)
        .bind(micros(lease))
        .execute(&pool)
        .await?;
        Ok(())
    }

    async fn survey(pool: PgPool) -> Result<Survey, Error> {
        let (relays, free): (i64, i64) = sqlx::query_as(
            "SELECT
                 (SELECT count(*) FROM mainstay_outbox_relay WHERE alive_until > clock_timestamp()),
                 (SELECT count(*) FROM mainstay_outbox_lane
                  WHERE lease_until IS NULL OR lease_until <= clock_timestamp())",
        )
        .fetch_one(&pool)
        .await?;
        Ok(Survey {
            relays: relays as u16,
            free: free as u16,
        })
    }

    async fn acquire(
        pool: PgPool,
        relay: Uuid,
        lease: Duration,
        count: u16,
    ) -> Result<Vec<Grant>, Error> {
        // SKIP LOCKED: a lane that somebody is settling or taking at this moment is not free. The locked row is read in
        // its newest version, so what was settled meanwhile is not charged.
        let rows: Vec<(i32, i64, i64)> = sqlx::query_as(
            "WITH free AS (
                 SELECT lane, in_flight FROM mainstay_outbox_lane
                 WHERE lease_until IS NULL OR lease_until <= clock_timestamp()
                 ORDER BY lane LIMIT $3
                 FOR UPDATE SKIP LOCKED
             ), charged AS (
                 UPDATE mainstay_outbox_message m
                 SET attempts = m.attempts + 1, suspect = true,
                     last_reason = 'the relay lost its lane while publishing'
                 FROM free f
                 WHERE m.lane = f.lane AND m.id = ANY (f.in_flight)
                 RETURNING m.lane
             )
             UPDATE mainstay_outbox_lane l
             SET owner = $1, epoch = l.epoch + 1, in_flight = NULL,
                 lease_until = clock_timestamp() + $2 * interval '1 microsecond'
             FROM free f
             WHERE l.lane = f.lane
             RETURNING l.lane, l.epoch, (SELECT count(*) FROM charged c WHERE c.lane = l.lane)",
        )
        .bind(relay)
        .bind(micros(lease))
        .bind(i64::from(count))
        .fetch_all(&pool)
        .await?;
        let grant = |(lane, epoch, charged): (i32, i64, i64)| Grant {
            lane,
            epoch,
            charged: charged as u32,
        };
        Ok(rows.into_iter().map(grant).collect())
    }

    async fn renew(pool: PgPool, lease: Duration, held: Vec<Held>) -> Result<Vec<i32>, Error> {
        let lanes = sqlx::query_scalar(
            "UPDATE mainstay_outbox_lane l
             SET lease_until = clock_timestamp() + $3 * interval '1 microsecond'
             FROM unnest($1::integer[], $2::bigint[]) AS w(lane, epoch)
             WHERE l.lane = w.lane AND l.epoch = w.epoch
             RETURNING l.lane",
        )
        .bind(column(&held, |held| held.lane))
        .bind(column(&held, |held| held.epoch))
        .bind(micros(lease))
        .fetch_all(&pool)
        .await?;
        Ok(lanes)
    }

    async fn release(pool: PgPool, held: Vec<Held>) -> Result<(), Error> {
        sqlx::query(
            "UPDATE mainstay_outbox_lane l
             SET owner = NULL, lease_until = NULL
             FROM unnest($1::integer[], $2::bigint[]) AS w(lane, epoch)
             WHERE l.lane = w.lane AND l.epoch = w.epoch",
        )
        .bind(column(&held, |held| held.lane))
        .bind(column(&held, |held| held.epoch))
        .execute(&pool)
        .await?;
        Ok(())
    }

    async fn retire(pool: PgPool, relay: Uuid) -> Result<(), Error> {
        sqlx::query("DELETE FROM mainstay_outbox_relay WHERE id = $1")
            .bind(relay)
            .execute(&pool)
            .await?;
        Ok(())
    }

    async fn candidates(pool: PgPool, ask: Ask) -> Result<Vec<Candidate>, Error> {
        // No locks: only a lane's owner reads it here, and `record` checks that it still is. Each lane is entered by its
        // primary key, so the cost does not depend on the backlog. Late commits with lower ids are simply at the head.
        // The conditions are one CASE because the planner cannot estimate that: given them one by one it believes that
        // nearly no row passes (one topic, none skipped), and sorts the whole lane instead of walking its index
        // (measured with 300k rows: 365 ms instead of 4).
        let rows = sqlx::query(
            "SELECT c.lane, c.id, c.attempts, c.suspect, c.event_id, c.source, c.type, c.topic, c.subject,
                 (extract(epoch FROM c.time) * 1000000)::bigint AS time_micros, c.content_type, c.key, c.headers,
                 c.payload
             FROM (
                 SELECT m.*, w.place,
                     sum(octet_length(m.payload)) OVER (ORDER BY w.place, m.id ROWS UNBOUNDED PRECEDING)
                         - octet_length(m.payload) AS bytes_before
                 FROM unnest($1::integer[]) WITH ORDINALITY AS w(lane, place)
                 CROSS JOIN LATERAL (
                     SELECT * FROM mainstay_outbox_message m
                     WHERE m.lane = w.lane
                         AND CASE
                             WHEN m.retry_at > now() THEN false
                             WHEN m.topic = ANY ($5) THEN false
                             WHEN $6 THEN NOT EXISTS (
                                 SELECT 1 FROM mainstay_outbox_message b
                                 WHERE b.lane = m.lane AND b.key = m.key AND b.id < m.id AND b.retry_at > now())
                             ELSE true
                         END
                     ORDER BY m.id LIMIT $2
                 ) m
             ) c
             WHERE c.bytes_before < $4
             ORDER BY c.place, c.id LIMIT $3",
        )
        .bind(&ask.lanes)
        .bind(i64::from(ask.batch))
        .bind(i64::from(ask.total))
        .bind(i64::try_from(ask.bytes).unwrap_or(i64::MAX))
        .bind(&ask.skip_topics)
        .bind(ask.block_keys)
        .fetch_all(&pool)
        .await?;
        rows.iter()
            .map(candidate)
            .collect::<Result<_, _>>()
            .map_err(Error::from)
    }

    async fn record(
        pool: PgPool,
        lease: Duration,
        batches: Vec<InFlight>,
    ) -> Result<Vec<i32>, Error> {
        // Lists of different lengths do not fit into one array of arrays: one flat list, grouped again by lane. Once for
        // all lanes: looked through once for each, 64 lanes of 1000 messages took longer than everything else together.
        let mut lanes = Vec::new();
        let mut ids = Vec::new();
        for batch in &batches {
            for id in &batch.ids {
                lanes.push(batch.held.lane);
                ids.push(*id);
            }
        }
        let held = sqlx::query_scalar(
            "UPDATE mainstay_outbox_lane l
             SET in_flight = f.ids,
                 lease_until = clock_timestamp() + $5 * interval '1 microsecond'
             FROM unnest($1::integer[], $2::bigint[]) AS w(lane, epoch)
             LEFT JOIN (
                 SELECT u.lane, array_agg(u.id) AS ids FROM unnest($3::integer[], $4::bigint[]) AS u(lane, id)
                 GROUP BY u.lane) f
                 ON f.lane = w.lane
             WHERE l.lane = w.lane AND l.epoch = w.epoch
             RETURNING l.lane",
        )
        .bind(column(&batches, |batch| batch.held.lane))
        .bind(column(&batches, |batch| batch.held.epoch))
        .bind(lanes)
        .bind(ids)
        .bind(micros(lease))
        .fetch_all(&pool)
        .await?;
        Ok(held)
    }

    async fn settle(pool: PgPool, settlements: Vec<Settlement>) -> Result<Vec<i32>, Error> {
        let (mut acked_lane, mut acked_id) = (Vec::new(), Vec::new());
        let (mut failed_lane, mut failed) = (Vec::new(), Vec::new());
        let (mut dead_lane, mut dead) = (Vec::new(), Vec::new());
        for settlement in &settlements {
            let lane = settlement.held.lane;
            for id in &settlement.acked {
                acked_lane.push(lane);
                acked_id.push(*id);
            }
            for one in &settlement.failed {
                failed_lane.push(lane);
                failed.push(one);
            }
            for one in &settlement.dead {
                dead_lane.push(lane);
                dead.push(one);
            }
        }
        // The lanes are locked first, in order, and looked at in their newest versions: from there on no takeover can
        // come between, and a lane that has changed hands is not in `held`, so nothing of it is touched.
        let lanes = sqlx::query_scalar(
            "WITH held AS (
                 SELECT l.lane
                 FROM mainstay_outbox_lane l
                 JOIN unnest($1::integer[], $2::bigint[]) AS w(lane, epoch)
                     ON l.lane = w.lane AND l.epoch = w.epoch
                 ORDER BY l.lane
                 FOR UPDATE OF l
             ), cleared AS (
                 UPDATE mainstay_outbox_lane l SET in_flight = NULL FROM held h WHERE l.lane = h.lane
             ), delivered AS (
                 DELETE FROM mainstay_outbox_message m
                 USING held h, unnest($3::integer[], $4::bigint[]) AS a(lane, id)
                 WHERE a.lane = h.lane AND m.lane = a.lane AND m.id = a.id
             ), waiting AS (
                 UPDATE mainstay_outbox_message m
                 SET attempts = m.attempts + 1, suspect = f.suspect, last_reason = f.reason,
                     retry_at = clock_timestamp() + f.delay * interval '1 microsecond'
                 FROM held h,
                     unnest($5::integer[], $6::bigint[], $7::integer[], $8::bigint[], $9::boolean[], $10::text[])
                         AS f(lane, id, attempts, delay, suspect, reason)
                 WHERE f.lane = h.lane AND m.lane = f.lane AND m.id = f.id AND m.attempts = f.attempts
             ), died AS (
                 DELETE FROM mainstay_outbox_message m
                 USING held h, unnest($11::integer[], $12::bigint[], $13::integer[], $14::text[], $15::text[])
                     AS d(lane, id, attempts, cause, reason)
                 WHERE d.lane = h.lane AND m.lane = d.lane AND m.id = d.id
                 RETURNING m.*, d.attempts AS spent, d.cause, d.reason
             ), buried AS (
                 INSERT INTO mainstay_outbox_dead
                     (id, lane, event_id, source, type, topic, subject, time, content_type, key, headers, payload,
                      enqueued_at, attempts, cause, reason)
                 SELECT id, lane, event_id, source, type, topic, subject, time, content_type, key, headers, payload,
                     enqueued_at, spent, cause, reason
                 FROM died
             )
             SELECT lane FROM held",
        )
        .bind(column(&settlements, |settlement| settlement.held.lane))
        .bind(column(&settlements, |settlement| settlement.held.epoch))
        .bind(acked_lane)
        .bind(acked_id)
        .bind(failed_lane)
        .bind(column(&failed, |one| one.id))
        .bind(column(&failed, |one| one.attempts))
        .bind(column(&failed, |one| micros(one.delay)))
        .bind(column(&failed, |one| one.suspect))
        .bind(column(&failed, |one| one.reason.as_str()))
        .bind(dead_lane)
        .bind(column(&dead, |one| one.id))
        .bind(column(&dead, |one| one.attempts))
        .bind(column(&dead, |one| one.cause.as_str()))
        .bind(column(&dead, |one| one.reason.as_str()))
        .fetch_all(&pool)
        .await?;
        Ok(lanes)
    }

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

fn column<'r, R, T>(rows: &'r [R], get: impl FnMut(&'r R) -> T) -> Vec<T> {
    rows.iter().map(get).collect()
}

fn lane_count(stored: i32, asked: i32) -> Error {
    Error::new(ErrorKind::LaneCount {
        stored: stored as u16,
        asked: asked as u16,
    })
}

fn candidate(row: &PgRow) -> Result<Candidate, sqlx::Error> {
    Ok(Candidate {
        lane: row.try_get("lane")?,
        id: row.try_get("id")?,
        attempts: row.try_get("attempts")?,
        suspect: row.try_get("suspect")?,
        message: message(row, 1)?,
    })
}

fn dead_row(row: &PgRow) -> Result<DeadRow, sqlx::Error> {
    Ok(DeadRow {
        message: message(row, 0)?,
        attempts: row.try_get("attempts")?,
        cause: row.try_get("cause")?,
        reason: row.try_get("reason")?,
        died_micros: row.try_get("died_micros")?,
    })
}

/// A message from a row of either table; its attempt is the row's plus `next`.
fn message(row: &PgRow, next: u32) -> Result<Message, sqlx::Error> {
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
