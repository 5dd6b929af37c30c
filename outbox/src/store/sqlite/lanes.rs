//! The outbox on SQLite: leases of lanes, on its own clock.

use std::time::Duration;

use sqlx::{Sqlite, SqlitePool};
use uuid::Uuid;

use super::{
    super::{Grant, Held, Lanes, Server, Survey, micros},
    immediate,
};
use crate::error::Error;

impl Lanes for Sqlite {
    async fn heartbeat(pool: SqlitePool, relay: Uuid, lease: Duration) -> Result<(), Error> {
        immediate(pool, move |tx| Box::pin(async move {
            sqlx::query(
                "DELETE FROM mainstay_outbox_relay
                 WHERE alive_until < CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) - 60000000 AND id <> ?1",
            )
            .bind(relay)
            .execute(&mut *tx)
            .await?;
            sqlx::query(
                "INSERT INTO mainstay_outbox_relay (id, alive_until)
                 VALUES (?1, CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) + ?2)
                 ON CONFLICT (id) DO UPDATE SET alive_until = excluded.alive_until",
            )
            .bind(relay)
            .bind(micros(lease))
            .execute(&mut *tx)
            .await?;
            Ok(())
        }))
        .await
    }

    async fn survey(pool: SqlitePool) -> Result<Survey, Error> {
        // There is no server, and a file that is open is not to be replaced; but a backup may be read into it. That raises its
        // schema's number, as each change of the schema does.
        type Row = (i64, i64, i64, bool, bool, String, i64);
        let (relays, free, rewinds, held_back, due, paused, schema): Row = sqlx::query_as(
            "SELECT
                 (SELECT count(*) FROM mainstay_outbox_relay
                  WHERE alive_until > CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)),
                 (SELECT count(*) FROM mainstay_outbox_lane
                  WHERE lease_until IS NULL
                      OR lease_until <= CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)),
                 (SELECT coalesce(sum(rewinds), 0) FROM mainstay_outbox_lane),
                 EXISTS (SELECT 1 FROM mainstay_outbox_message WHERE retry_at IS NOT NULL)
                     OR EXISTS (SELECT 1 FROM mainstay_outbox_parked),
                 EXISTS (SELECT 1 FROM mainstay_outbox_later
                         WHERE due_at <= CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)),
                 (SELECT json_group_array(pattern) FROM mainstay_outbox_pause),
                 (SELECT schema_version FROM pragma_schema_version)",
        )
        .fetch_one(&pool)
        .await?;
        Ok(Survey {
            relays: relays as u16,
            free: free as u16,
            rewinds,
            ids_in_order: true,
            held_back,
            due,
            paused: serde_json::from_str(&paused).unwrap_or_default(),
            server: Some(Server {
                name: format!("schema {schema}"),
                started_micros: 0,
                blur_micros: 0,
            }),
        })
    }

    async fn acquire(
        pool: SqlitePool,
        relay: Uuid,
        lease: Duration,
        count: u16,
    ) -> Result<Vec<Grant>, Error> {
        immediate(pool, move |tx| {
            Box::pin(async move {
                let free: Vec<(i32, Option<String>)> = sqlx::query_as(
                    "SELECT lane, in_flight FROM mainstay_outbox_lane
                 WHERE lease_until IS NULL
                     OR lease_until <= CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)
                 ORDER BY lane LIMIT ?1",
                )
                .bind(i64::from(count))
                .fetch_all(&mut *tx)
                .await?;
                let mut grants = Vec::with_capacity(free.len());
                for (lane, in_flight) in free {
                    let mut charged = 0;
                    if let Some(ids) = in_flight {
                        let done = sqlx::query(
                            r#"UPDATE mainstay_outbox_message
                         SET attempts = attempts + 1, suspect = 1,
                             last_reason = 'the relay lost its lane while publishing',
                             failures = CASE WHEN failures = '[]' THEN '[['
                                     ELSE substr(failures, 1, length(failures) - 1) || ',[' END
                                 || (attempts + 1) || ','
                                 || CAST(round(unixepoch('subsec') * 1000000) AS INTEGER)
                                 || ',"the relay lost its lane while publishing"]]'
                         WHERE lane = ?1 AND id IN (SELECT value FROM json_each(?2))"#,
                        )
                        .bind(lane)
                        .bind(ids)
                        .execute(&mut *tx)
                        .await?;
                        charged = done.rows_affected() as u32;
                    }
                    let (epoch, rewinds) = sqlx::query_as(
                        "UPDATE mainstay_outbox_lane
                     SET owner = ?1, epoch = epoch + 1, in_flight = NULL,
                         lease_until = CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) + ?2
                     WHERE lane = ?3
                     RETURNING epoch, rewinds",
                    )
                    .bind(relay)
                    .bind(micros(lease))
                    .bind(lane)
                    .fetch_one(&mut *tx)
                    .await?;
                    grants.push(Grant {
                        lane,
                        epoch,
                        rewinds,
                        charged,
                    });
                }
                Ok(grants)
            })
        })
        .await
    }

    async fn renew(pool: SqlitePool, lease: Duration, held: Vec<Held>) -> Result<Vec<i32>, Error> {
        immediate(pool, move |tx| {
            Box::pin(async move {
                let mut lanes = Vec::with_capacity(held.len());
                for Held { lane, epoch } in held {
                    let done = sqlx::query(
                        "UPDATE mainstay_outbox_lane
                     SET lease_until = CAST(round(unixepoch('subsec') * 1000000) AS INTEGER) + ?3
                     WHERE lane = ?1 AND epoch = ?2 AND owner IS NOT NULL",
                    )
                    .bind(lane)
                    .bind(epoch)
                    .bind(micros(lease))
                    .execute(&mut *tx)
                    .await?;
                    if done.rows_affected() == 1 {
                        lanes.push(lane);
                    }
                }
                Ok(lanes)
            })
        })
        .await
    }

    async fn release(pool: SqlitePool, held: Vec<Held>, attempted: bool) -> Result<(), Error> {
        immediate(pool, move |tx| {
            Box::pin(async move {
                for Held { lane, epoch } in held {
                    sqlx::query(
                        "UPDATE mainstay_outbox_lane
                     SET owner = NULL, lease_until = NULL, in_flight = CASE WHEN ?3 THEN in_flight END
                     WHERE lane = ?1 AND epoch = ?2",
                    )
                    .bind(lane)
                    .bind(epoch)
                    .bind(attempted)
                    .execute(&mut *tx)
                    .await?;
                }
                Ok(())
            })
        })
        .await
    }

    async fn retire(pool: SqlitePool, relay: Uuid) -> Result<(), Error> {
        sqlx::query("DELETE FROM mainstay_outbox_relay WHERE id = ?1")
            .bind(relay)
            .execute(&pool)
            .await?;
        Ok(())
    }
}
