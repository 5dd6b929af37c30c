//! The outbox on MySQL and MariaDB: what is due, what is in flight, what became of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sqlx::{MySql, MySqlConnection, MySqlPool};

use super::{
    super::{
        Ask, AskHeads, Candidate, Claim, Head, Heads, Held, InFlight, Look, Recorded, Settlement,
        micros, waiting,
    },
    apart, candidate, json,
    settle::settle,
    transaction,
};
use crate::error::Error;

/// How many rows a look at all lanes at once takes in. Fewer than that, and the lanes that they are in are all there is.
const GLANCE: usize = 1_000;

/// How long a statement may take between drawing its ids and writing the last of its rows, as far as nobody can tell.
///
/// A row is seen as soon as it is written, committed or not; an id that is drawn and whose row is not written is seen by
/// nobody. The marks pass it this long after it was drawn. That is wrong where its statement is held up in between, by a lock
/// on a gap or a disk that stands still; [`longest_statement`] finds those that are at it, as far as their connections are
/// shown to the relay: all with the privilege PROCESS, those of its own user without. What is neither shown nor written in
/// time is found by the sweep.
const DRAWN_TO_WRITTEN: Duration = Duration::from_secs(5);

/// For how many seconds a statement that may write is waited for. By default InnoDB ends the wait for a lock after 50.
const HELD_UP_MAX: i64 = 120;

/// A look that locks nothing and sees what is not committed yet; of what is deleted it sees nothing.
const BEGIN_DIRTY: &str =
    "SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED; START TRANSACTION READ ONLY";

/// What is due of a lane where no key is held back or parked and payloads are small: one walk along the primary key. A
/// payload of more bytes than that is left out, which says that `WHOLE` is to be asked.
const FREE: &str = "
    SELECT m.lane, m.id, m.attempts, m.suspect, 0, m.failures, m.event_id, m.source, m.type, m.topic, m.subject,
        timestampdiff(MICROSECOND, '1970-01-01', m.time), m.content_type, m.`key`, m.ordered, m.headers,
        CASE WHEN m.bytes <= ? THEN m.payload END, timestampdiff(MICROSECOND, m.enqueued_at, utc_timestamp(6))
    FROM mainstay_outbox_message m
    WHERE m.lane = ? AND m.id > ?
        AND locate(concat(0x00, m.topic, 0x00), ?) = 0
    ORDER BY m.id LIMIT ?";

/// What is due of a lane where messages of a key may have to wait or to be set aside, and payloads to be counted. Ids and
/// sizes come first, so that only those rows are read whole that are taken.
const WHOLE: &str = "
    SELECT m.lane, m.id, m.attempts, m.suspect,
        m.ordered AND EXISTS (
            SELECT 1 FROM mainstay_outbox_parked p
            WHERE p.lane = m.lane AND p.topic = m.topic AND p.`key` = m.`key` AND p.above < m.id),
        m.failures, m.event_id, m.source, m.type, m.topic, m.subject,
        timestampdiff(MICROSECOND, '1970-01-01', m.time), m.content_type, m.`key`, m.ordered, m.headers, m.payload,
        timestampdiff(MICROSECOND, m.enqueued_at, utc_timestamp(6))
    FROM (
        SELECT p.id, sum(p.bytes) OVER (ORDER BY p.id ROWS UNBOUNDED PRECEDING) - p.bytes AS bytes_before
        FROM (
            SELECT h.id, h.bytes FROM mainstay_outbox_message h
            WHERE h.lane = ? AND h.id > ?
                AND (h.retry_at IS NULL
                    OR h.retry_at <= least(utc_timestamp(6),
                        coalesce(timestamp('1970-01-01') + INTERVAL ? MICROSECOND, utc_timestamp(6))))
                AND locate(concat(0x00, h.topic, 0x00), ?) = 0
                AND NOT (h.ordered AND EXISTS (
                    SELECT 1 FROM mainstay_outbox_waiting b
                    WHERE b.lane = h.lane AND b.`key` = h.`key` AND b.id < h.id AND b.holds
                        AND b.retry_at > least(utc_timestamp(6),
                            coalesce(timestamp('1970-01-01') + INTERVAL ? MICROSECOND, utc_timestamp(6)))))
            ORDER BY h.id LIMIT ?
        ) p
    ) c
    STRAIGHT_JOIN mainstay_outbox_message m ON m.lane = ? AND m.id = c.id
    WHERE c.bytes_before < ?
    ORDER BY c.id";

impl Claim for MySql {
    const DRAWN_TO_WRITTEN: Duration = DRAWN_TO_WRITTEN;

    async fn candidates(pool: MySqlPool, ask: Ask) -> Result<Vec<Candidate>, Error> {
        // No locks: only a lane's owner reads it here, and `record` checks that it still is. There is no LATERAL in MariaDB,
        // and only a range that is written into the statement seeks: one statement for each lane that may have something,
        // which a look along the index of the ids finds out while there is little.
        apart(async move {
            let mut conn = pool.acquire().await?;
            let skip = between_zeros(&ask.skip_topics);
            let glance = glance(&mut conn, lowest(&ask.lanes), &skip).await?;
            let mut rows: Vec<Candidate> = Vec::new();
            let mut bytes = 0;
            for look in &ask.lanes {
                let left = (ask.total as usize).saturating_sub(rows.len());
                if left == 0 || (bytes >= ask.bytes && !rows.is_empty()) {
                    break;
                }
                if glance.all && !glance.heads.contains_key(&look.lane) {
                    continue;
                }
                let limit = left.min(ask.batch as usize);
                let of_lane = due(
                    &mut conn,
                    &ask,
                    &skip,
                    *look,
                    limit,
                    ask.bytes.saturating_sub(bytes),
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
    ) -> Result<Recorded, Error> {
        let of = |batch: &InFlight| {
            let Held { lane, epoch } = batch.held;
            (
                lane,
                epoch,
                batch.rewinds,
                json(&batch.entry()),
                -batch.batch,
            )
        };
        let mut list: Vec<_> = batches.iter().map(of).collect();
        list.sort_unstable();
        let list = json(&list);
        transaction(pool, move |tx| {
            let list = list.clone();
            Box::pin(async move {
                sqlx::query(
                    "UPDATE JSON_TABLE(?, '$[*]' COLUMNS
                         (lane INT PATH '$[0]', epoch BIGINT PATH '$[1]', rewinds BIGINT PATH '$[2]', ids LONGTEXT PATH '$[3]',
                          number BIGINT PATH '$[4]')) w
                     STRAIGHT_JOIN mainstay_outbox_lane l ON l.lane = w.lane
                     SET l.in_flight = CASE
                             WHEN CAST(json_extract(l.in_flight, '$[0]') AS SIGNED) < w.number THEN l.in_flight -- of a later batch
                             WHEN l.rewinds = w.rewinds THEN w.ids
                         END,
                         l.lease_until = utc_timestamp(6) + INTERVAL ? MICROSECOND
                     WHERE l.epoch = w.epoch",
                )
                .bind(&list)
                .bind(micros(lease))
                .execute(&mut *tx)
                .await?;
                // An UPDATE cannot say which lanes it met. Those it met are locked: no taker and no operator can come
                // between, and what is told is what was written. Epochs only rise: none that it did not meet matches now.
                let rows: Vec<(i32, i64, i64)> = sqlx::query_as(
                    "SELECT l.lane, l.rewinds, timestampdiff(MICROSECOND, '1970-01-01', utc_timestamp(6))
                     FROM JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$[0]', epoch BIGINT PATH '$[1]')) w
                     STRAIGHT_JOIN mainstay_outbox_lane l ON l.lane = w.lane
                     WHERE l.epoch = w.epoch",
                )
                .bind(&list)
                .fetch_all(tx)
                .await?;
                Ok(Recorded {
                    stamp: rows.first().map(|(.., now)| written_by(*now)),
                    lanes: rows.into_iter().map(|(lane, rewinds, _)| (lane, rewinds)).collect(),
                })
            })
        })
        .await
    }

    async fn heads(pool: MySqlPool, ask: AskHeads) -> Result<Heads, Error> {
        apart(async move {
            let mut tx = pool.begin_with(BEGIN_DIRTY).await?;
            let now: i64 = sqlx::query_scalar(
                "SELECT timestampdiff(MICROSECOND, '1970-01-01', utc_timestamp(6))",
            )
            .fetch_one(&mut *tx)
            .await?;
            // Whoever is at it since before an id was seen may have drawn a lower one. Asked before the heads: what it has
            // written by then is among them. Nobody wants to know before `DRAWN_TO_WRITTEN` is nearly over.
            let ended_below = if ask.running {
                let longest = longest_statement(&mut tx).await?;
                now.min(now.saturating_sub(longest) + micros(DRAWN_TO_WRITTEN))
            } else {
                0
            };
            let skip = between_zeros(&ask.skip_topics);
            let lowest = lowest(&ask.lanes);
            // Where it matters what is held the lanes are looked at one by one: those have many rows.
            let glance = match ask.held {
                true => Glance::default(),
                false => glance(&mut tx, lowest, &skip).await?,
            };
            let mut heads = Vec::with_capacity(ask.lanes.len());
            let mut held = Vec::new();
            for look in &ask.lanes {
                let head = match glance.heads.get(&look.lane) {
                    Some(id) if *id > look.above => Head::Row(*id),
                    None if glance.all => Head::Nothing,
                    _ => head(&mut tx, *look, &skip, &ask, now).await?,
                };
                heads.push((look.lane, head));
                if ask.held {
                    let of_lane = waits(&mut tx, *look, head, now).await?;
                    held.extend(of_lane.into_iter().map(|row| waiting(look.lane, row)));
                }
            }
            let newest = if ask.newest {
                newest(&mut tx, lowest).await?
            } else {
                None
            };
            tx.commit().await?;
            Ok(Heads {
                ended_below: ended_below.unsigned_abs(),
                running: None,
                heads,
                held,
                newest,
            })
        })
        .await
    }

    async fn settle(
        pool: MySqlPool,
        keep: bool,
        settlements: Vec<Settlement>,
    ) -> Result<Vec<i32>, Error> {
        let settlements = Arc::new(settlements);
        transaction(pool, move |tx| {
            let settlements = Arc::clone(&settlements);
            Box::pin(async move { settle(tx, keep, &settlements).await })
        })
        .await
    }

    async fn promote(pool: MySqlPool, limit: u32) -> Result<u64, Error> {
        transaction(pool, move |tx| Box::pin(promote(tx, limit))).await
    }

    async fn forget(pool: MySqlPool, age: Duration, limit: u32) -> Result<u64, Error> {
        transaction(pool, move |tx| {
            Box::pin(async move {
                let done = sqlx::query(
                    "DELETE FROM mainstay_outbox_delivered
                     WHERE delivered_at < utc_timestamp(6) - INTERVAL ? MICROSECOND
                     ORDER BY delivered_at, id LIMIT ?",
                )
                .bind(micros(age))
                .bind(limit)
                .execute(tx)
                .await?;
                Ok(done.rows_affected())
            })
        })
        .await
    }
}

/// The first rows of all lanes.
#[derive(Default)]
struct Glance {
    /// The lowest id of each lane that they are in.
    heads: BTreeMap<i32, i64>,
    /// Whether these are all rows there are.
    all: bool,
}

/// Looks along the index of the ids, at so many rows and no more, whatever of them is to be skipped.
async fn glance(
    conn: &mut MySqlConnection,
    above: i64,
    skip: &[u8],
) -> Result<Glance, sqlx::Error> {
    let lanes: Vec<(i32, Option<i64>, i64)> = sqlx::query_as(
        "SELECT p.lane, min(CASE WHEN locate(concat(0x00, p.topic, 0x00), ?) = 0 THEN p.id END), count(*)
         FROM (
             SELECT m.lane, m.id, m.topic FROM mainstay_outbox_message m FORCE INDEX (mainstay_outbox_message_id)
             WHERE m.id > ? ORDER BY m.id LIMIT ?
         ) p
         GROUP BY p.lane",
    )
    .bind(skip)
    .bind(above)
    .bind(GLANCE as u64)
    .fetch_all(conn)
    .await?;
    let rows: i64 = lanes.iter().map(|(_, _, rows)| rows).sum();
    let head = |(lane, id, _): (i32, Option<i64>, i64)| id.map(|id| (lane, id));
    Ok(Glance {
        heads: lanes.into_iter().filter_map(head).collect(),
        all: rows.unsigned_abs() < GLANCE as u64,
    })
}

fn lowest(looks: &[Look]) -> i64 {
    looks.iter().map(|look| look.above).min().unwrap_or(0)
}

/// The first row of one lane, of so many.
async fn head(
    conn: &mut MySqlConnection,
    look: Look,
    skip: &[u8],
    ask: &AskHeads,
    now: i64,
) -> Result<Head, sqlx::Error> {
    let asked = if ask.held {
        sqlx::query_as(HEAD_DUE).bind(skip).bind(now).bind(now)
    } else {
        sqlx::query_as(HEAD).bind(skip)
    };
    let (row, rows, last): (Option<i64>, i64, Option<i64>) = asked
        .bind(look.lane)
        .bind(look.above)
        // Without anything to skip the first row is the head.
        .bind(if skip.len() > 1 || ask.held {
            ask.window
        } else {
            1
        })
        .fetch_one(conn)
        .await?;
    let full = rows >= i64::from(ask.window);
    Ok(Head::new(row, last.filter(|_| full)))
}

const HEAD: &str = "
    SELECT min(CASE WHEN locate(concat(0x00, r.topic, 0x00), ?) = 0 THEN r.id END), count(*), max(r.id)
    FROM (
        SELECT m.id, m.topic FROM mainstay_outbox_message m
        WHERE m.lane = ? AND m.id > ? ORDER BY m.id LIMIT ?
    ) r";

/// The same of what may go at a time, which must be that of [`waits`].
const HEAD_DUE: &str = "
    SELECT min(CASE
            WHEN locate(concat(0x00, r.topic, 0x00), ?) > 0 OR r.retry_at > timestamp('1970-01-01') + INTERVAL ? MICROSECOND
                THEN NULL
            WHEN r.ordered AND EXISTS (
                SELECT 1 FROM mainstay_outbox_waiting b
                WHERE b.lane = r.lane AND b.`key` = r.`key` AND b.id < r.id AND b.holds
                    AND b.retry_at > timestamp('1970-01-01') + INTERVAL ? MICROSECOND) THEN NULL
            ELSE r.id
        END), count(*), max(r.id)
    FROM (
        SELECT m.lane, m.id, m.topic, m.`key`, m.ordered, m.retry_at FROM mainstay_outbox_message m
        WHERE m.lane = ? AND m.id > ? ORDER BY m.id LIMIT ?
    ) r";

/// What waits for its retry up to the head of a lane, until when, and how long that is, in microseconds.
async fn waits(
    conn: &mut MySqlConnection,
    look: Look,
    head: Head,
    now: i64,
) -> Result<Vec<(i64, i64, i64)>, sqlx::Error> {
    let last = match head {
        Head::Row(id) | Head::NothingUpTo(id) => id,
        Head::Nothing => i64::MAX,
    };
    sqlx::query_as(
        "SELECT id, timestampdiff(MICROSECOND, '1970-01-01', retry_at),
             timestampdiff(MICROSECOND, '1970-01-01', retry_at) - ?
         FROM mainstay_outbox_waiting
         WHERE lane = ? AND id > ? AND id <= ? AND retry_at > timestamp('1970-01-01') + INTERVAL ? MICROSECOND",
    )
    .bind(now)
    .bind(look.lane)
    .bind(look.above)
    .bind(last)
    .bind(now)
    .fetch_all(conn)
    .await
}

/// The last row of all above that, with the time by which all that are before it stand.
async fn newest(conn: &mut MySqlConnection, above: i64) -> Result<Option<(i64, u64)>, sqlx::Error> {
    let last: Option<(i64, i64)> = sqlx::query_as(
        "SELECT id, timestampdiff(MICROSECOND, '1970-01-01', utc_timestamp(6))
         FROM mainstay_outbox_message WHERE id > ? ORDER BY id DESC LIMIT 1",
    )
    .bind(above)
    .fetch_optional(conn)
    .await?;
    Ok(last.map(|(id, now)| (id, written_by(now))))
}

/// When whatever was drawn until now, in microseconds since 1970, is written: the stamp of writers here.
fn written_by(now: i64) -> u64 {
    now.saturating_add(micros(DRAWN_TO_WRITTEN)).unsigned_abs()
}

/// For how many microseconds, at the most, somebody has been at a statement that may write here. What begins like a report or
/// the upkeep of tables does not, and may take hours; a stored function or a trigger that it calls might.
///
/// Nobody is waited for longer than [`HELD_UP_MAX`], or one CALL that takes a day would hold the marks for as long.
async fn longest_statement(conn: &mut MySqlConnection) -> Result<i64, sqlx::Error> {
    let seconds: i64 = sqlx::query_scalar(
        "SELECT CAST(coalesce(max(p.time), 0) AS SIGNED) FROM information_schema.processlist p
         WHERE p.command IN ('Query', 'Execute') AND p.db = database() AND p.id <> connection_id()
             AND p.time <= ?
             AND coalesce(p.info, '') NOT REGEXP
                 '^[[:space:](]*(SELECT|WITH|VALUES|TABLE|SHOW|ALTER|CREATE|DROP|OPTIMIZE|ANALYZE|CHECK)[^A-Za-z]'",
    )
    .bind(HELD_UP_MAX)
    .fetch_one(conn)
    .await?;
    // Whole seconds, rounded down.
    Ok(seconds.saturating_add(1).saturating_mul(1_000_000))
}

/// What is due of one lane, in order.
async fn due(
    conn: &mut MySqlConnection,
    ask: &Ask,
    skip: &[u8],
    look: Look,
    limit: usize,
    bytes: u64,
) -> Result<Vec<Candidate>, sqlx::Error> {
    if !ask.held_back && !ask.large {
        let rows = sqlx::query(FREE)
            .bind(bytes / (limit as u64).max(1))
            .bind(look.lane)
            .bind(look.above)
            .bind(skip)
            .bind(limit as u64)
            .fetch_all(&mut *conn)
            .await?;
        if let Some(due) = rows.iter().map(candidate).collect::<Result<_, _>>()? {
            return Ok(due);
        }
    }
    let rows = sqlx::query(WHOLE)
        .bind(look.lane)
        .bind(look.above)
        .bind(look.as_of)
        .bind(skip)
        .bind(look.as_of)
        .bind(limit as u64)
        .bind(look.lane)
        .bind(bytes)
        .fetch_all(conn)
        .await?;
    let due: Option<_> = rows.iter().map(candidate).collect::<Result<_, _>>()?;
    Ok(due.unwrap_or_default())
}

/// The topics that are passed over, as one text: each between zero bytes, which no topic holds.
fn between_zeros(topics: &[String]) -> Vec<u8> {
    let mut list = vec![0];
    for topic in topics {
        list.extend_from_slice(topic.as_bytes());
        list.push(0);
    }
    list
}

/// Two at once could give a key's later event the lower id: whoever does not get the lock leaves it to the other. The row of
/// the settings is locked by nobody else.
async fn promote(tx: &mut MySqlConnection, limit: u32) -> Result<u64, sqlx::Error> {
    let alone: Option<i32> =
        sqlx::query_scalar("SELECT lanes FROM mainstay_outbox_settings FOR UPDATE SKIP LOCKED")
            .fetch_optional(&mut *tx)
            .await?;
    if alone.is_none() {
        return Ok(0);
    }
    let ids: Vec<i64> = sqlx::query_scalar(
        "SELECT id FROM mainstay_outbox_later WHERE due_at <= utc_timestamp(6) ORDER BY due_at, id LIMIT ?",
    )
    .bind(limit)
    .fetch_all(&mut *tx)
    .await?;
    let ids = json(&ids);
    let done = sqlx::query(
        "INSERT INTO mainstay_outbox_message
             (hash, event_id, source, type, topic, subject, time, content_type, `key`, ordered, headers, payload, enqueued_at)
         SELECT l.hash, l.event_id, l.source, l.type, l.topic, l.subject, l.time, l.content_type, l.`key`, l.ordered,
             l.headers, l.payload, greatest(l.enqueued_at, l.due_at)
         FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) w
         STRAIGHT_JOIN mainstay_outbox_later l ON l.id = w.id
         ORDER BY l.due_at, l.id",
    )
    .bind(&ids)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "DELETE l
         FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) w
         STRAIGHT_JOIN mainstay_outbox_later l ON l.id = w.id",
    )
    .bind(&ids)
    .execute(&mut *tx)
    .await?;
    Ok(done.rows_affected())
}
