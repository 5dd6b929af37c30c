//! The outbox on MySQL and MariaDB: leases of lanes, on its own clock.
//!
//! Its clock is `utc_timestamp`, whatever the session's time zone is. That is the time at which a statement began, also if
//! it then waited for a lock: a lease is never longer than it says.

use std::time::Duration;

use sqlx::{MySql, MySqlPool};
use uuid::Uuid;

use super::{
    super::{Grant, Held, Lanes, Server, Survey, micros},
    apart, json, text, transaction,
};
use crate::error::Error;

impl Lanes for MySql {
    async fn heartbeat(pool: MySqlPool, relay: Uuid, lease: Duration) -> Result<(), Error> {
        transaction(pool, move |tx| {
            Box::pin(async move {
                sqlx::query(
                    "DELETE FROM mainstay_outbox_relay
                     WHERE alive_until < utc_timestamp(6) - INTERVAL 1 MINUTE AND id <> ?",
                )
                .bind(relay)
                .execute(&mut *tx)
                .await?;
                // Not at once: a look may be of a time before, but not by more than a statement may take.
                sqlx::query(
                    "DELETE FROM mainstay_outbox_waiting
                     WHERE retry_at < utc_timestamp(6) - INTERVAL 2 HOUR ORDER BY retry_at LIMIT 1000",
                )
                .execute(&mut *tx)
                .await?;
                sqlx::query(
                    "INSERT INTO mainstay_outbox_relay (id, alive_until)
                     VALUES (?, utc_timestamp(6) + INTERVAL ? MICROSECOND)
                     ON DUPLICATE KEY UPDATE alive_until = utc_timestamp(6) + INTERVAL ? MICROSECOND",
                )
                .bind(relay)
                .bind(micros(lease))
                .bind(micros(lease))
                .execute(&mut *tx)
                .await?;
                Ok(())
            })
        })
        .await
    }

    async fn survey(pool: MySqlPool) -> Result<Survey, Error> {
        // Two statements, as there are no arrays: a pause may be seen a moment later than the rest.
        apart(async move {
            let mut conn = pool.acquire().await?;
            type Row = (i64, i64, i64, i64, bool, bool, String, i64, i64);
            let (relays, free, rewinds, step, held_back, due, host, port, started): Row = sqlx::query_as(
                "SELECT
                     (SELECT count(*) FROM mainstay_outbox_relay WHERE alive_until > utc_timestamp(6)),
                     (SELECT count(*) FROM mainstay_outbox_lane
                      WHERE lease_until IS NULL OR lease_until <= utc_timestamp(6)),
                     (SELECT CAST(coalesce(sum(rewinds), 0) AS SIGNED) FROM mainstay_outbox_lane),
                     CAST(@@auto_increment_increment AS SIGNED),
                     EXISTS (SELECT 1 FROM mainstay_outbox_waiting WHERE retry_at > utc_timestamp(6))
                         OR EXISTS (SELECT 1 FROM mainstay_outbox_parked),
                     EXISTS (SELECT 1 FROM mainstay_outbox_later WHERE due_at <= utc_timestamp(6)),
                     coalesce(@@hostname, ''), CAST(@@port AS SIGNED), CAST(uuid_short() >> 24 AS SIGNED)",
            )
            .fetch_one(&mut *conn)
            .await?;
            let paused = sqlx::query("SELECT pattern FROM mainstay_outbox_pause")
                .fetch_all(&mut *conn)
                .await?;
            let paused = paused.iter().map(|row| text(row, "pattern"));
            Ok(Survey {
                relays: relays as u16,
                free: free as u16,
                rewinds,
                // Where several servers take writes each hands out every n-th id, in no order with the others.
                ids_in_order: step <= 1,
                held_back,
                due,
                paused: paused.collect::<Result<_, _>>()?,
                server: Some(server(&host, port, started)),
            })
        })
        .await
    }

    async fn acquire(
        pool: MySqlPool,
        relay: Uuid,
        lease: Duration,
        count: u16,
    ) -> Result<Vec<Grant>, Error> {
        transaction(pool, move |tx| {
            Box::pin(async move {
                // SKIP LOCKED: a lane that somebody is settling or taking at this moment is not free. The locked row is
                // read in its newest version, so what was settled meanwhile is not charged.
                let free: Vec<(i32, i64, i64, Option<String>)> = sqlx::query_as(
                    "SELECT lane, epoch, rewinds, in_flight FROM mainstay_outbox_lane
                     WHERE lease_until IS NULL OR lease_until <= utc_timestamp(6)
                     ORDER BY lane LIMIT ?
                     FOR UPDATE SKIP LOCKED",
                )
                .bind(count)
                .fetch_all(&mut *tx)
                .await?;
                let mut grants = Vec::with_capacity(free.len());
                for (lane, epoch, rewinds, in_flight) in free {
                    let mut charged = 0;
                    if let Some(ids) = in_flight {
                        let done = sqlx::query(
                            r#"UPDATE JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) f
                             STRAIGHT_JOIN mainstay_outbox_message m ON m.lane = ? AND m.id = f.id
                             SET m.failures = concat(
                                     CASE WHEN coalesce(m.failures, '[]') = '[]' THEN '[['
                                         ELSE concat(left(m.failures, char_length(m.failures) - 1), ',[') END,
                                     m.attempts + 1, ',', timestampdiff(MICROSECOND, '1970-01-01', utc_timestamp(6)),
                                     ',"the relay lost its lane while publishing"]]'),
                                 m.attempts = m.attempts + 1, m.suspect = true,
                                 m.last_reason = 'the relay lost its lane while publishing'"#,
                        )
                        .bind(ids)
                        .bind(lane)
                        .execute(&mut *tx)
                        .await?;
                        charged = done.rows_affected() as u32;
                    }
                    grants.push(Grant {
                        lane,
                        epoch: epoch + 1,
                        rewinds,
                        charged,
                    });
                }
                let lanes: Vec<i32> = grants.iter().map(|grant| grant.lane).collect();
                sqlx::query(
                    "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$')) w
                     STRAIGHT_JOIN mainstay_outbox_lane l ON l.lane = w.lane
                     SET l.owner = ?, l.epoch = l.epoch + 1, l.in_flight = NULL,
                         l.lease_until = utc_timestamp(6) + INTERVAL ? MICROSECOND",
                )
                .bind(json(&lanes))
                .bind(relay)
                .bind(micros(lease))
                .execute(&mut *tx)
                .await?;
                Ok(grants)
            })
        })
        .await
    }

    async fn renew(pool: MySqlPool, lease: Duration, held: Vec<Held>) -> Result<Vec<i32>, Error> {
        let wanted = pairs(&held);
        transaction(pool, move |tx| {
            let wanted = wanted.clone();
            Box::pin(async move {
                sqlx::query(
                    "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$[0]', epoch BIGINT PATH '$[1]')) w
                     STRAIGHT_JOIN mainstay_outbox_lane l ON l.lane = w.lane
                     SET l.lease_until = utc_timestamp(6) + INTERVAL ? MICROSECOND
                     WHERE l.epoch = w.epoch AND l.owner IS NOT NULL",
                )
                .bind(&wanted)
                .bind(micros(lease))
                .execute(&mut *tx)
                .await?;
                // An UPDATE cannot say which lanes it met. Those it met are locked, and epochs only rise.
                sqlx::query_scalar(
                    "SELECT l.lane
                     FROM JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$[0]', epoch BIGINT PATH '$[1]')) w
                     STRAIGHT_JOIN mainstay_outbox_lane l ON l.lane = w.lane
                     WHERE l.epoch = w.epoch AND l.owner IS NOT NULL",
                )
                .bind(&wanted)
                .fetch_all(tx)
                .await
            })
        })
        .await
    }

    async fn release(pool: MySqlPool, held: Vec<Held>, attempted: bool) -> Result<(), Error> {
        let wanted = pairs(&held);
        transaction(pool, move |tx| {
            let wanted = wanted.clone();
            Box::pin(async move {
                sqlx::query(
                    "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$[0]', epoch BIGINT PATH '$[1]')) w
                     STRAIGHT_JOIN mainstay_outbox_lane l ON l.lane = w.lane
                     SET l.owner = NULL, l.lease_until = NULL, l.in_flight = CASE WHEN ? THEN l.in_flight END
                     WHERE l.epoch = w.epoch",
                )
                .bind(&wanted)
                .bind(attempted)
                .execute(tx)
                .await?;
                Ok(())
            })
        })
        .await
    }

    async fn retire(pool: MySqlPool, relay: Uuid) -> Result<(), Error> {
        transaction(pool, move |tx| {
            Box::pin(async move {
                sqlx::query("DELETE FROM mainstay_outbox_relay WHERE id = ?")
                    .bind(relay)
                    .execute(tx)
                    .await?;
                Ok(())
            })
        })
        .await
    }
}

/// Lanes and epochs as JSON, in the order of the lanes, which is the order in which everybody locks them.
fn pairs(held: &[Held]) -> String {
    let mut pairs: Vec<(i32, i64)> = held.iter().map(|held| (held.lane, held.epoch)).collect();
    pairs.sort_unstable();
    json(&pairs)
}

/// Told by the upper part of a `uuid_short`: the server's number, and the second in which it was started. MySQL and MariaDB both
/// say it to anybody, in the same statement; `server_uuid` and `server_uid` are only on one of them, and `Uptime` takes another
/// statement. The lower part counts calls, everybody's: with every 16 million of them the second goes up by one. Nobody makes
/// so many between two surveys.
fn server(host: &str, port: i64, short: i64) -> Server {
    let (number, second) = (short >> 32, short & i64::from(u32::MAX));
    Server {
        name: format!("{host}:{port}, server_id {number}"),
        started_micros: second.saturating_mul(1_000_000),
        blur_micros: 1_000_000,
    }
}
