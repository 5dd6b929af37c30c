//! The outbox on Postgres: writing down what became of batches, in one statement.
//!
//! Both statements begin alike. The lanes are locked first, in order, and looked at in their newest versions: from there on
//! no takeover can come between, and a lane that has changed hands, or has the record of another batch, is not `held`, so
//! nothing of it is touched. One that has no record was settled by a call whose answer was lost: it is not `open`, and nothing
//! of it is touched either.

use serde::Serialize;
use sqlx::PgPool;

use super::{
    super::{Settlement, micros},
    column, flat,
};
use crate::error::Error;

/// Lists of failures and letters travel as JSON: they are rare, and a column of arrays for each part of them is hard to read.
#[derive(Serialize)]
struct FailedRow<'a> {
    lane: i32,
    id: i64,
    attempts: i32,
    delay: i64,
    suspect: bool,
    holds: bool,
    reason: &'a str,
    before: &'a str,
    after: &'a str,
}

#[derive(Serialize)]
struct DeadRow<'a> {
    lane: i32,
    id: i64,
    attempts: i32,
    cause: &'static str,
    park: bool,
    reason: &'a str,
    before: Option<&'a str>,
    after: Option<&'a str>,
}

pub(super) async fn settle(
    pool: PgPool,
    keep: bool,
    settlements: Vec<Settlement>,
) -> Result<Vec<i32>, Error> {
    let plain = |s: &Settlement| s.failed.is_empty() && s.dead.is_empty();
    if !keep && settlements.iter().all(plain) {
        forget_acked(pool, settlements).await
    } else {
        write_down(pool, keep, settlements).await
    }
}

/// What it is nearly always: everything was delivered, nothing is kept.
async fn forget_acked(pool: PgPool, settlements: Vec<Settlement>) -> Result<Vec<i32>, Error> {
    let (ids, first, last) = flat(settlements.iter().map(|one| one.acked.as_slice()));
    let lanes = sqlx::query_scalar(
        "WITH held AS (
             SELECT l.lane, l.in_flight IS NOT NULL AS open, w.first, w.last
             FROM mainstay_outbox_lane l
             JOIN unnest($1::integer[], $2::bigint[], $3::integer[], $4::integer[], $6::bigint[])
                     AS w(lane, epoch, first, last, batch)
                 ON l.lane = w.lane AND l.epoch = w.epoch AND (l.in_flight IS NULL OR l.in_flight[1] = -w.batch)
             ORDER BY l.lane
             FOR UPDATE OF l
         ), cleared AS (
             UPDATE mainstay_outbox_lane l SET in_flight = NULL, settled_at = clock_timestamp()
             FROM held h WHERE h.open AND l.lane = h.lane
         ), delivered AS (
             DELETE FROM mainstay_outbox_message m
             USING held h, LATERAL unnest(($5::bigint[])[h.first:h.last]) AS a(id)
             WHERE h.open AND m.lane = h.lane AND m.id = a.id
         )
         SELECT lane FROM held",
    )
    .bind(column(&settlements, |settlement| settlement.held.lane))
    .bind(column(&settlements, |settlement| settlement.held.epoch))
    .bind(first)
    .bind(last)
    .bind(ids)
    .bind(column(&settlements, |settlement| settlement.batch))
    .fetch_all(&pool)
    .await?;
    Ok(lanes)
}

/// Everything else. Three things become of messages, and each is a block of the statement.
///
/// - `delivered`, `kept`: they go, and are kept for operators where that is wanted.
/// - `failed`: they wait. The attempts before this one are a guard more against charging twice.
/// - `died`, `buried`, `park`: they move to the dead letters, and their keys are parked where that is the policy. What is
///   only set aside with its key, moves while that is still parked: the rows that say so are locked in `parked`, so that
///   one which an operator has released since this statement's snapshot is gone for it too.
async fn write_down(
    pool: PgPool,
    keep: bool,
    settlements: Vec<Settlement>,
) -> Result<Vec<i32>, Error> {
    let (mut acked_lane, mut acked_id) = (Vec::new(), Vec::new());
    let (mut failed, mut dead) = (Vec::new(), Vec::new());
    for settlement in &settlements {
        let lane = settlement.held.lane;
        acked_lane.resize(acked_lane.len() + settlement.acked.len(), lane);
        acked_id.extend_from_slice(&settlement.acked);
        failed.extend(settlement.failed.iter().map(|one| FailedRow {
            lane,
            id: one.id,
            attempts: one.attempts,
            delay: micros(one.delay),
            suspect: one.suspect,
            holds: one.holds,
            reason: &one.reason,
            before: &one.note.before,
            after: &one.note.after,
        }));
        dead.extend(settlement.dead.iter().map(|one| DeadRow {
            lane,
            id: one.id,
            attempts: one.attempts,
            cause: one.cause.as_str(),
            park: one.park,
            reason: &one.reason,
            before: one.note.as_ref().map(|note| note.before.as_str()),
            after: one.note.as_ref().map(|note| note.after.as_str()),
        }));
    }
    let lanes = sqlx::query_scalar(
        "WITH held AS (
             SELECT l.lane, l.in_flight IS NOT NULL AS open
             FROM mainstay_outbox_lane l
             JOIN unnest($1::integer[], $2::bigint[], $8::bigint[]) AS w(lane, epoch, batch)
                 ON l.lane = w.lane AND l.epoch = w.epoch AND (l.in_flight IS NULL OR l.in_flight[1] = -w.batch)
             ORDER BY l.lane
             FOR UPDATE OF l
         ), cleared AS (
             UPDATE mainstay_outbox_lane l SET in_flight = NULL, settled_at = clock_timestamp()
             FROM held h WHERE h.open AND l.lane = h.lane
         ),

         delivered AS (
             DELETE FROM mainstay_outbox_message m
             USING held h, unnest($3::integer[], $4::bigint[]) AS a(lane, id)
             WHERE h.open AND a.lane = h.lane AND m.lane = a.lane AND m.id = a.id
             RETURNING m.*
         ), kept AS (
             INSERT INTO mainstay_outbox_delivered
                 (id, lane, event_id, source, type, topic, subject, time, content_type, key, ordered, headers, payload,
                  enqueued_at, attempts)
             SELECT id, lane, event_id, source, type, topic, subject, time, content_type, key, ordered, headers, payload,
                 enqueued_at, attempts + 1
             FROM delivered WHERE $7
         ),

         failed AS (
             UPDATE mainstay_outbox_message m
             SET attempts = m.attempts + 1, suspect = f.suspect, last_reason = f.reason, holds = f.holds,
                 failures = f.before || (extract(epoch FROM clock_timestamp()) * 1000000)::bigint || f.after,
                 retry_at = clock_timestamp() + f.delay * interval '1 microsecond'
             FROM held h, json_to_recordset($5::json)
                 AS f(lane integer, id bigint, attempts integer, delay bigint, suspect boolean, holds boolean, reason text,
                     before text, after text)
             WHERE h.open AND f.lane = h.lane AND m.lane = f.lane AND m.id = f.id AND m.attempts = f.attempts
         ),

         letters AS (
             SELECT d.*
             FROM held h, json_to_recordset($6::json)
                 AS d(lane integer, id bigint, attempts integer, cause text, park boolean, reason text, before text, after text)
             WHERE h.open AND d.lane = h.lane
         ), parked AS (
             SELECT p.lane, p.topic, p.key, p.above
             FROM mainstay_outbox_parked p JOIN held h ON p.lane = h.lane
             WHERE EXISTS (SELECT FROM letters WHERE cause = 'parked')
             FOR SHARE OF p
         ), died AS (
             DELETE FROM mainstay_outbox_message m
             USING letters d
             WHERE m.lane = d.lane AND m.id = d.id
                 AND (d.cause <> 'parked' OR EXISTS (
                     SELECT FROM parked p
                     WHERE p.lane = m.lane AND p.topic = m.topic AND p.key = m.key AND p.above < m.id))
             RETURNING m.*, d.attempts AS spent, d.cause, d.park, d.reason, d.before, d.after
         ), buried AS (
             INSERT INTO mainstay_outbox_dead
                 (id, lane, event_id, source, type, topic, subject, time, content_type, key, ordered, headers, payload,
                  enqueued_at, attempts, failures, cause, reason)
             SELECT id, lane, event_id, source, type, topic, subject, time, content_type, key, ordered, headers, payload,
                 enqueued_at, spent,
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
    .bind(json(&failed))
    .bind(json(&dead))
    .bind(keep)
    .bind(column(&settlements, |settlement| settlement.batch))
    .fetch_all(&pool)
    .await?;
    Ok(lanes)
}

fn json<T: Serialize>(rows: &[T]) -> String {
    serde_json::to_string(rows).unwrap_or_else(|_| "[]".to_owned())
}
