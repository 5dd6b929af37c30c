//! The outbox on Postgres: what is due, what is in flight, what became of it.

use std::time::Duration;

use sqlx::{PgPool, Postgres, postgres::PgRow};

use super::{
    super::{Ask, Candidate, Claim, Heads, InFlight, Look, Recorded, Settlement, micros},
    candidate, column,
};
use crate::error::Error;

/// What is due where nothing waits for a retry, no key is parked and payloads are small: nothing has to be looked up or
/// added up for each message. A payload of more than $5 bytes is left out, which says that `WHOLE` is to be asked.
const FREE: &str = "
    SELECT m.lane, m.id, m.attempts, m.suspect, false, nullif(m.failures, '[]'), m.event_id, m.source, m.type, m.topic,
        m.subject, m.time, m.content_type, m.key, m.ordered, m.headers,
        CASE WHEN octet_length(m.payload) <= $5 THEN m.payload END
    FROM unnest($1::integer[], $2::bigint[]) AS w(lane, above)
    CROSS JOIN LATERAL (
        SELECT * FROM mainstay_outbox_message m
        WHERE m.lane = w.lane AND m.id > w.above
            AND CASE WHEN m.topic = ANY ($6) THEN false ELSE true END
        ORDER BY m.id LIMIT $3
    ) m
    LIMIT $4";

/// What is due where messages of a key may have to wait or to be set aside, and payloads to be counted.
const WHOLE: &str = "
    SELECT c.lane, c.id, c.attempts, c.suspect, c.parked, nullif(c.failures, '[]'), c.event_id, c.source, c.type,
        c.topic, c.subject, c.time, c.content_type, c.key, c.ordered, c.headers, c.payload
    FROM (
        SELECT m.*, w.place,
            sum(octet_length(m.payload)) OVER (ORDER BY w.place, m.id ROWS UNBOUNDED PRECEDING)
                - octet_length(m.payload) AS bytes_before
        FROM unnest($1::integer[], $2::bigint[]) WITH ORDINALITY AS w(lane, above, place)
        CROSS JOIN LATERAL (
            SELECT m.*, m.ordered AND EXISTS (
                    SELECT FROM mainstay_outbox_parked p
                    WHERE p.lane = m.lane AND p.topic = m.topic AND p.key = m.key AND p.above < m.id) AS parked
            FROM mainstay_outbox_message m
            WHERE m.lane = w.lane AND m.id > w.above
                AND CASE
                    WHEN m.retry_at > now() THEN false
                    WHEN m.topic = ANY ($6) THEN false
                    WHEN m.ordered THEN NOT EXISTS (
                        SELECT FROM mainstay_outbox_message b
                        WHERE b.lane = m.lane AND b.key = m.key AND b.id < m.id AND b.retry_at > now() AND b.holds)
                    ELSE true
                END
            ORDER BY m.id LIMIT $3
        ) m
    ) c
    WHERE c.bytes_before < $5
    ORDER BY c.place, c.id LIMIT $4";

/// A lane, its head, and of the snapshot the first running writer and all of them.
type HeadRow = (i32, Option<i64>, i64, Option<Vec<i64>>);

impl Claim for Postgres {
    async fn candidates(pool: PgPool, ask: Ask) -> Result<Vec<Candidate>, Error> {
        // No locks: only a lane's owner reads it here, and `record` checks that it still is. Each lane is entered by its
        // primary key, so the cost does not depend on the backlog. Late commits with lower ids are simply at the head.
        // The conditions are one CASE because the planner cannot estimate that: given them one by one it believes that
        // nearly no row passes (one topic, none skipped), and sorts the whole lane instead of walking its index
        // (measured with 300k rows: 365 ms instead of 4). That it may do so nevertheless is what `dedicated` is for.
        if !ask.held_back && !ask.large {
            let rows = due(&pool, FREE, &ask, ask.bytes / u64::from(ask.total.max(1))).await?;
            if let Some(due) = rows.iter().map(candidate).collect::<Result<_, _>>()? {
                return Ok(due);
            }
        }
        let rows = due(&pool, WHOLE, &ask, ask.bytes).await?;
        let due: Option<_> = rows.iter().map(candidate).collect::<Result<_, _>>()?;
        Ok(due.unwrap_or_default())
    }

    async fn record(
        pool: PgPool,
        lease: Duration,
        batches: Vec<InFlight>,
    ) -> Result<Recorded, Error> {
        let (ids, first, last) = flat(batches.iter().map(|batch| batch.ids.as_slice()));
        let held: Vec<(i32, i64, i64)> = sqlx::query_as(
            "UPDATE mainstay_outbox_lane l
             SET in_flight = CASE WHEN l.rewinds = w.rewinds THEN ($5::bigint[])[w.first:w.last] END,
                 lease_until = clock_timestamp() + $6 * interval '1 microsecond'
             FROM unnest($1::integer[], $2::bigint[], $3::integer[], $4::integer[], $7::bigint[])
                 AS w(lane, epoch, first, last, rewinds)
             WHERE l.lane = w.lane AND l.epoch = w.epoch
             RETURNING l.lane, l.rewinds, pg_current_xact_id()::text::bigint",
        )
        .bind(column(&batches, |batch| batch.held.lane))
        .bind(column(&batches, |batch| batch.held.epoch))
        .bind(first)
        .bind(last)
        .bind(ids)
        .bind(micros(lease))
        .bind(column(&batches, |batch| batch.rewinds))
        .fetch_all(&pool)
        .await?;
        Ok(Recorded {
            lanes: column(&held, |(lane, rewinds, _)| (*lane, *rewinds)),
            writer: held.first().map(|(.., writer)| writer.unsigned_abs()),
        })
    }

    async fn heads(pool: PgPool, looks: Vec<Look>, running: bool) -> Result<Option<Heads>, Error> {
        // Heads and writers must be of one snapshot, hence of one statement. The writers are those of the whole server,
        // since their numbers are; readers have none, however old their snapshot.
        let rows: Vec<HeadRow> = sqlx::query_as(
            "SELECT w.lane,
                 (SELECT m.id FROM mainstay_outbox_message m
                  WHERE m.lane = w.lane AND m.id > w.above ORDER BY m.id LIMIT 1),
                 pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
                 CASE WHEN $3 AND w.place = 1
                     THEN ARRAY(SELECT pg_snapshot_xip(pg_current_snapshot())::text::bigint)
                 END
             FROM unnest($1::integer[], $2::bigint[]) WITH ORDINALITY AS w(lane, above, place)
             ORDER BY w.place",
        )
        .bind(column(&looks, |look| look.lane))
        .bind(column(&looks, |look| look.above))
        .bind(running)
        .fetch_all(&pool)
        .await?;
        let Some((_, _, first_running, all)) = rows.first() else {
            return Ok(None);
        };
        let all = all.as_ref();
        Ok(Some(Heads {
            first_running: first_running.unsigned_abs(),
            running: all.map(|all| column(all, |writer| writer.unsigned_abs())),
            heads: column(&rows, |(lane, head, ..)| (*lane, *head)),
        }))
    }

    async fn settle(
        pool: PgPool,
        keep: bool,
        settlements: Vec<Settlement>,
    ) -> Result<Vec<i32>, Error> {
        let plain = |s: &Settlement| s.failed.is_empty() && s.dead.is_empty();
        if !keep && settlements.iter().all(plain) {
            return forget_acked(pool, settlements).await;
        }
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
        // come between, and a lane that has changed hands is not in `held`, so nothing of it is touched. Parked keys are
        // locked as well: one that an operator has released since this statement's snapshot is then gone for it too, and
        // what was to be set aside stays.
        let lanes = sqlx::query_scalar(
            "WITH held AS (
                 SELECT l.lane
                 FROM mainstay_outbox_lane l
                 JOIN unnest($1::integer[], $2::bigint[]) AS w(lane, epoch)
                     ON l.lane = w.lane AND l.epoch = w.epoch
                 ORDER BY l.lane
                 FOR UPDATE OF l
             ), cleared AS (
                 UPDATE mainstay_outbox_lane l SET in_flight = NULL, settled_at = clock_timestamp()
                 FROM held h WHERE l.lane = h.lane
             ), delivered AS (
                 DELETE FROM mainstay_outbox_message m
                 USING held h, unnest($3::integer[], $4::bigint[]) AS a(lane, id)
                 WHERE a.lane = h.lane AND m.lane = a.lane AND m.id = a.id
                 RETURNING m.*
             ), kept AS (
                 INSERT INTO mainstay_outbox_delivered
                     (id, lane, event_id, source, type, topic, subject, time, content_type, key, ordered, headers,
                      payload, enqueued_at, attempts)
                 SELECT id, lane, event_id, source, type, topic, subject, time, content_type, key, ordered, headers,
                     payload, enqueued_at, attempts + 1
                 FROM delivered WHERE $22
             ), waiting AS (
                 UPDATE mainstay_outbox_message m
                 SET attempts = m.attempts + 1, suspect = f.suspect, last_reason = f.reason, holds = f.holds,
                     failures = f.before || (extract(epoch FROM clock_timestamp()) * 1000000)::bigint || f.after,
                     retry_at = clock_timestamp() + f.delay * interval '1 microsecond'
                 FROM held h,
                     unnest($5::integer[], $6::bigint[], $7::integer[], $8::bigint[], $9::boolean[], $10::boolean[],
                         $11::text[], $12::text[], $13::text[])
                         AS f(lane, id, attempts, delay, suspect, holds, reason, before, after)
                 WHERE f.lane = h.lane AND m.lane = f.lane AND m.id = f.id AND m.attempts = f.attempts
             ), parked AS (
                 SELECT p.lane, p.topic, p.key, p.above
                 FROM mainstay_outbox_parked p JOIN held h ON p.lane = h.lane
                 WHERE 'parked' = ANY ($17)
                 FOR SHARE OF p
             ), died AS (
                 DELETE FROM mainstay_outbox_message m
                 USING held h,
                     unnest($14::integer[], $15::bigint[], $16::integer[], $17::text[], $18::boolean[], $19::text[],
                         $20::text[], $21::text[])
                         AS d(lane, id, attempts, cause, park, reason, before, after)
                 WHERE d.lane = h.lane AND m.lane = d.lane AND m.id = d.id
                     AND (d.cause <> 'parked' OR EXISTS (
                         SELECT FROM parked p
                         WHERE p.lane = m.lane AND p.topic = m.topic AND p.key = m.key AND p.above < m.id))
                 RETURNING m.*, d.attempts AS spent, d.cause, d.park, d.reason, d.before, d.after
             ), buried AS (
                 INSERT INTO mainstay_outbox_dead
                     (id, lane, event_id, source, type, topic, subject, time, content_type, key, ordered, headers,
                      payload, enqueued_at, attempts, failures, cause, reason)
                 SELECT id, lane, event_id, source, type, topic, subject, time, content_type, key, ordered, headers,
                     payload, enqueued_at, spent,
                     coalesce(before || (extract(epoch FROM clock_timestamp()) * 1000000)::bigint || after, failures),
                     cause, reason
                 FROM died
             ), park AS (
                 INSERT INTO mainstay_outbox_parked AS p (lane, topic, key, first, above)
                 SELECT lane, topic, key, min(id), min(id) FROM died WHERE park AND key IS NOT NULL
                 GROUP BY lane, topic, key
                 ON CONFLICT (lane, topic, key)
                     DO UPDATE SET first = least(p.first, excluded.first), above = least(p.above, excluded.above)
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
        .bind(column(&failed, |one| one.holds))
        .bind(column(&failed, |one| one.reason.as_str()))
        .bind(column(&failed, |one| one.note.before.as_str()))
        .bind(column(&failed, |one| one.note.after.as_str()))
        .bind(dead_lane)
        .bind(column(&dead, |one| one.id))
        .bind(column(&dead, |one| one.attempts))
        .bind(column(&dead, |one| one.cause.as_str()))
        .bind(column(&dead, |one| one.park))
        .bind(column(&dead, |one| one.reason.as_str()))
        .bind(column(&dead, |one| one.note.as_ref().map(|note| note.before.as_str())))
        .bind(column(&dead, |one| one.note.as_ref().map(|note| note.after.as_str())))
        .bind(keep)
        .fetch_all(&pool)
        .await?;
        Ok(lanes)
    }

    async fn promote(pool: PgPool, limit: u32) -> Result<u64, Error> {
        // Two at once could give a key's later event the lower id: whoever does not get the lock leaves it to the other.
        // The lock comes after the snapshot, but a row that somebody moved meanwhile is gone when it is to be locked.
        // The DELETE has given the transaction its number before the INSERT draws the first id, as a mark wants it.
        let done = sqlx::query(
            "WITH due AS (
                 DELETE FROM mainstay_outbox_later
                 WHERE id IN (
                     SELECT id FROM mainstay_outbox_later
                     WHERE due_at <= now() AND (SELECT pg_try_advisory_xact_lock(7021786439153902593))
                     ORDER BY due_at, id LIMIT $1
                     FOR UPDATE SKIP LOCKED)
                 RETURNING *
             )
             INSERT INTO mainstay_outbox_message
                 (lane, event_id, source, type, topic, subject, time, content_type, key, ordered, headers, payload,
                  enqueued_at)
             SELECT lane, event_id, source, type, topic, subject, time, content_type, key, ordered, headers, payload,
                 enqueued_at
             FROM (SELECT * FROM due ORDER BY due_at, id) d",
        )
        .bind(i64::from(limit))
        .execute(&pool)
        .await?;
        Ok(done.rows_affected())
    }

    async fn forget(pool: PgPool, age: Duration, limit: u32) -> Result<u64, Error> {
        // SKIP LOCKED: several relays at once forget different events.
        let done = sqlx::query(
            "DELETE FROM mainstay_outbox_delivered
             WHERE ctid = ANY (ARRAY(
                 SELECT ctid FROM mainstay_outbox_delivered
                 WHERE delivered_at < now() - $1 * interval '1 microsecond'
                 ORDER BY delivered_at LIMIT $2
                 FOR UPDATE SKIP LOCKED))",
        )
        .bind(micros(age))
        .bind(i64::from(limit))
        .execute(&pool)
        .await?;
        Ok(done.rows_affected())
    }
}

/// What `settle` is nearly always: everything was delivered, nothing is kept.
async fn forget_acked(pool: PgPool, settlements: Vec<Settlement>) -> Result<Vec<i32>, Error> {
    let (ids, first, last) = flat(settlements.iter().map(|one| one.acked.as_slice()));
    // Locks as `settle` does.
    let lanes = sqlx::query_scalar(
        "WITH held AS (
             SELECT l.lane, w.first, w.last
             FROM mainstay_outbox_lane l
             JOIN unnest($1::integer[], $2::bigint[], $3::integer[], $4::integer[]) AS w(lane, epoch, first, last)
                 ON l.lane = w.lane AND l.epoch = w.epoch
             ORDER BY l.lane
             FOR UPDATE OF l
         ), cleared AS (
             UPDATE mainstay_outbox_lane l SET in_flight = NULL, settled_at = clock_timestamp()
             FROM held h WHERE l.lane = h.lane
         ), delivered AS (
             DELETE FROM mainstay_outbox_message m
             USING held h, LATERAL unnest(($5::bigint[])[h.first:h.last]) AS a(id)
             WHERE m.lane = h.lane AND m.id = a.id
         )
         SELECT lane FROM held",
    )
    .bind(column(&settlements, |settlement| settlement.held.lane))
    .bind(column(&settlements, |settlement| settlement.held.epoch))
    .bind(first)
    .bind(last)
    .bind(ids)
    .fetch_all(&pool)
    .await?;
    Ok(lanes)
}

async fn due(
    pool: &PgPool,
    text: &'static str,
    ask: &Ask,
    bytes: u64,
) -> Result<Vec<PgRow>, sqlx::Error> {
    sqlx::query(text)
        .bind(column(&ask.lanes, |look| look.lane))
        .bind(column(&ask.lanes, |look| look.above))
        .bind(i64::from(ask.batch))
        .bind(i64::from(ask.total))
        .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
        .bind(&ask.skip_topics)
        .fetch_all(pool)
        .await
}

/// Lists of different lengths do not fit into one array of arrays: one flat list, and where each part of it begins and
/// ends, counted from 1. A slice of an array costs nothing, while grouping by lane took a third of the time.
fn flat<'a>(parts: impl Iterator<Item = &'a [i64]>) -> (Vec<i64>, Vec<i32>, Vec<i32>) {
    let at = |len: usize| i32::try_from(len).unwrap_or(i32::MAX);
    let (mut ids, mut first, mut last) = (Vec::new(), Vec::new(), Vec::new());
    for part in parts {
        first.push(at(ids.len() + 1));
        ids.extend_from_slice(part);
        last.push(at(ids.len()));
    }
    (ids, first, last)
}
