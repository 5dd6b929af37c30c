//! The outbox on Postgres: what is due, what is in flight, what became of it.

use std::time::Duration;

use sqlx::{PgPool, Postgres};

use super::{
    super::{Ask, Candidate, Claim, InFlight, Settlement, micros},
    candidate, column,
};
use crate::error::Error;

impl Claim for Postgres {
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
}
