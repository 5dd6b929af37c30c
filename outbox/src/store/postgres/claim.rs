//! The outbox on Postgres: what is due, what is in flight, what became of it.

use std::time::Duration;

use sqlx::{PgPool, Postgres, postgres::PgArguments, query::Query};

use super::{
    super::{
        Ask, AskHeads, Candidate, Claim, Head, Heads, InFlight, Recorded, Settlement, micros,
        waiting,
    },
    candidate, column, flat,
    settle::settle,
};
use crate::error::Error;

/// What is due where nothing waits for a retry, no key is parked and payloads are small: nothing has to be looked up or
/// added up for each message. A payload of more than $5 bytes is left out, which says that `WHOLE` is to be asked.
const FREE: &str = "
    SELECT m.lane, m.id, m.attempts, m.suspect, false, nullif(m.failures, '[]'), m.event_id, m.source, m.type, m.topic,
        m.subject, m.time, m.content_type, m.key, m.ordered, m.headers,
        CASE WHEN octet_length(m.payload) <= $5 THEN m.payload END, m.enqueued_at, now()
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
        c.topic, c.subject, c.time, c.content_type, c.key, c.ordered, c.headers, c.payload, c.enqueued_at, now()
    FROM (
        SELECT m.*, w.place,
            sum(octet_length(m.payload)) OVER (ORDER BY w.place, m.id ROWS UNBOUNDED PRECEDING)
                - octet_length(m.payload) AS bytes_before
        FROM (
            SELECT u.lane, u.above, u.place, least(now(), timestamptz 'epoch' + u.as_of * interval '1 microsecond') AS time
            FROM unnest($1::integer[], $2::bigint[], $7::bigint[]) WITH ORDINALITY AS u(lane, above, as_of, place)
        ) w
        CROSS JOIN LATERAL (
            SELECT m.*, m.ordered AND EXISTS (
                    SELECT FROM mainstay_outbox_parked p
                    WHERE p.lane = m.lane AND p.topic = m.topic AND p.key = m.key AND p.above < m.id) AS parked
            FROM mainstay_outbox_message m
            WHERE m.lane = w.lane AND m.id > w.above
                AND CASE
                    WHEN m.retry_at > w.time THEN false
                    WHEN m.topic = ANY ($6) THEN false
                    WHEN m.ordered THEN NOT EXISTS (
                        SELECT FROM mainstay_outbox_message b
                        WHERE b.lane = m.lane AND b.key = m.key AND b.id < m.id AND b.retry_at > w.time AND b.holds)
                    ELSE true
                END
            ORDER BY m.id LIMIT $3
        ) m
    ) c
    WHERE c.bytes_before < $5
    ORDER BY c.place, c.id LIMIT $4";

impl Claim for Postgres {
    async fn candidates(pool: PgPool, ask: Ask) -> Result<Vec<Candidate>, Error> {
        // No locks: only a lane's owner reads it here, and `record` checks that it still is. Each lane is entered by its
        // primary key, so the cost does not depend on the backlog. Late commits with lower ids are simply at the head.
        // The conditions are one CASE because the planner cannot estimate that: given them one by one it believes that
        // nearly no row passes (one topic, none skipped), and sorts the whole lane instead of walking its index
        // (measured with 300k rows: 365 ms instead of 4). That it may do so nevertheless is what `dedicated` is for.
        if !ask.held_back && !ask.large {
            let most = ask.bytes / u64::from(ask.total.max(1));
            let rows = due(FREE, &ask, most).fetch_all(&pool).await?;
            if let Some(due) = rows.iter().map(candidate).collect::<Result<_, _>>()? {
                return Ok(due);
            }
        }
        let rows = due(WHOLE, &ask, ask.bytes)
            .bind(column(&ask.lanes, |look| look.as_of))
            .fetch_all(&pool)
            .await?;
        let due: Option<_> = rows.iter().map(candidate).collect::<Result<_, _>>()?;
        Ok(due.unwrap_or_default())
    }

    async fn record(
        pool: PgPool,
        lease: Duration,
        batches: Vec<InFlight>,
    ) -> Result<Recorded, Error> {
        let entries = column(&batches, InFlight::entry);
        let (ids, first, last) = flat(entries.iter().map(Vec::as_slice));
        let held: Vec<(i32, i64, i64)> = sqlx::query_as(
            "UPDATE mainstay_outbox_lane l
             SET in_flight = CASE
                     WHEN l.in_flight[1] < ($5::bigint[])[w.first] THEN l.in_flight -- of a later batch
                     WHEN l.rewinds = w.rewinds THEN ($5::bigint[])[w.first:w.last]
                 END,
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
            stamp: held.first().map(|(.., number)| number.unsigned_abs()),
        })
    }

    async fn heads(pool: PgPool, ask: AskHeads) -> Result<Heads, Error> {
        // Heads and writers must be of one snapshot, hence of one statement. The writers are those of the whole server,
        // since their numbers are; readers have none, however old their snapshot. The number after them is drawn here, when
        // the snapshot is taken already: what the snapshot itself has for it may be lower than that of who has begun.
        // A lane, its head, or else the last row of its window; the first running writer and, in the first row, all of them;
        // the last id and the next number; what is held up to the head, each id with its time and what is left until then, in
        // microseconds. OFFSET 0: or the head would be looked for once more to say that there is none.
        type Row = (
            i32,
            Option<i64>,
            Option<i64>,
            i64,
            Option<Vec<i64>>,
            Option<i64>,
            Option<i64>,
            Option<Vec<i64>>,
        );
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT w.lane,
                 h.id,
                 l.id,
                 pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
                 CASE WHEN $3 AND w.place = 1
                     THEN ARRAY(SELECT pg_snapshot_xip(pg_current_snapshot())::text::bigint)
                 END,
                 CASE WHEN $6 THEN
                     (SELECT m.id FROM mainstay_outbox_message m WHERE m.lane = w.lane AND m.id > w.above
                      ORDER BY m.id DESC LIMIT 1)
                 END,
                 CASE WHEN $6 THEN pg_current_xact_id()::text::bigint END,
                 CASE WHEN $7 THEN ARRAY(
                     SELECT p.part
                     FROM mainstay_outbox_message m
                     CROSS JOIN LATERAL unnest(ARRAY[
                         m.id,
                         (extract(epoch FROM m.retry_at) * 1000000)::bigint,
                         (extract(epoch FROM m.retry_at - now()) * 1000000)::bigint])
                         WITH ORDINALITY AS p(part, at)
                     WHERE m.lane = w.lane AND m.id > w.above AND m.id <= coalesce(h.id, l.id, 9223372036854775807)
                         AND CASE WHEN m.retry_at > now() THEN true ELSE false END
                     ORDER BY m.id, p.at)
                 END
             FROM unnest($1::integer[], $2::bigint[]) WITH ORDINALITY AS w(lane, above, place)
             CROSS JOIN LATERAL (
                 SELECT (
                     SELECT r.id
                     FROM (
                         SELECT m.lane, m.id, m.topic, m.key, m.ordered, m.retry_at FROM mainstay_outbox_message m
                         WHERE m.lane = w.lane AND m.id > w.above
                         ORDER BY m.id LIMIT $5
                     ) r
                     WHERE CASE
                         WHEN r.topic = ANY ($4) THEN false
                         WHEN NOT $7 THEN true
                         WHEN r.retry_at > now() THEN false
                         WHEN r.ordered THEN NOT EXISTS (
                             SELECT FROM mainstay_outbox_message b
                             WHERE b.lane = r.lane AND b.key = r.key AND b.id < r.id AND b.retry_at > now() AND b.holds)
                         ELSE true
                     END
                     ORDER BY r.id LIMIT 1) AS id
                 OFFSET 0
             ) h
             CROSS JOIN LATERAL (
                 SELECT CASE WHEN h.id IS NULL THEN
                     (SELECT m.id FROM mainstay_outbox_message m WHERE m.lane = w.lane AND m.id > w.above
                      ORDER BY m.id OFFSET $5 - 1 LIMIT 1)
                 END AS id
                 OFFSET 0
             ) l
             ORDER BY w.place",
        )
        .bind(column(&ask.lanes, |look| look.lane))
        .bind(column(&ask.lanes, |look| look.above))
        .bind(ask.running)
        .bind(ask.skip_topics)
        .bind(i64::from(ask.window))
        .bind(ask.newest)
        .bind(ask.held)
        .fetch_all(&pool)
        .await?;
        let first = rows.first();
        let all = first.and_then(|(.., running, _, _, _)| running.as_ref());
        let last = rows.iter().filter_map(|(.., last, _, _)| *last).max();
        let next = first.and_then(|(.., next, _)| *next);
        let held = rows.iter().flat_map(|(lane, .., held)| {
            let (rows, _) = held.as_deref().unwrap_or_default().as_chunks();
            rows.iter()
                .map(|&[id, at, left]| waiting(*lane, (id, at, left)))
        });
        Ok(Heads {
            ended_below: first.map_or(0, |(_, _, _, first_running, ..)| {
                first_running.unsigned_abs()
            }),
            running: all.map(|all| column(all, |writer| writer.unsigned_abs())),
            heads: column(&rows, |(lane, row, last, ..)| {
                (*lane, Head::new(*row, *last))
            }),
            held: held.collect(),
            newest: last.zip(next).map(|(id, next)| (id, next.unsigned_abs())),
        })
    }

    async fn settle(
        pool: PgPool,
        keep: bool,
        settlements: Vec<Settlement>,
    ) -> Result<Vec<i32>, Error> {
        settle(pool, keep, settlements).await
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
                 greatest(enqueued_at, due_at)
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

fn due<'q>(text: &'static str, ask: &'q Ask, bytes: u64) -> Query<'q, Postgres, PgArguments> {
    sqlx::query(text)
        .bind(column(&ask.lanes, |look| look.lane))
        .bind(column(&ask.lanes, |look| look.above))
        .bind(i64::from(ask.batch))
        .bind(i64::from(ask.total))
        .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
        .bind(&ask.skip_topics)
}
