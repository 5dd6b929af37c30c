//! The outbox on Postgres: leases of lanes, on its own clock.

use std::time::Duration;

use sqlx::{PgPool, Postgres};
use uuid::Uuid;

use super::{
    super::{Grant, Held, Lanes, Server, Survey, micros},
    column,
};
use crate::error::Error;

impl Lanes for Postgres {
    fn dedicated(pool: &PgPool, limit: Duration) -> Option<PgPool> {
        // There is one right plan for each statement of a relay: by the primary keys, in their order. Left to choose, the
        // planner sorts whole lanes when it believes that they end soon, plans lists of thousands of ids anew each time,
        // and compiles what takes longer to compile than to run. What else the application set up for its connections stays.
        // A statement that was given up ends a moment later: nobody would hear of it, and the next ones would stand beside it.
        let given_up = limit + Duration::from_secs(1);
        let options = pool.connect_options().as_ref().clone().options([
            ("jit", "off"),
            ("enable_bitmapscan", "off"),
            ("enable_seqscan", "off"),
            ("plan_cache_mode", "force_generic_plan"),
            ("statement_timeout", &given_up.as_millis().to_string()),
        ]);
        let few = pool
            .options()
            .clone()
            .min_connections(0)
            .max_connections(2)
            .test_before_acquire(false);
        Some(few.connect_lazy_with(options))
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
        // The order makes sure that the index of what waits is looked at: without statistics the planner may believe that
        // any row will do, and would read the whole backlog to find that none does.
        //
        // A server is known by its start, to the microsecond, and a database that took another's name in it by its number.
        // Anybody may ask that. Where it listens is a matter of the connection, and the cluster's own number is also that of
        // its replicas, and read from a file.
        type Row = (i64, i64, i64, i64, bool, bool, Vec<String>, i64, i64);
        let (relays, free, rewinds, cache, held_back, due, paused, database, started_micros): Row =
            sqlx::query_as(
                "SELECT
                     (SELECT count(*) FROM mainstay_outbox_relay WHERE alive_until > clock_timestamp()),
                     l.free, l.rewinds,
                     (SELECT seqcache FROM pg_sequence
                      WHERE seqrelid = pg_get_serial_sequence('mainstay_outbox_message', 'id')::regclass),
                     (SELECT true FROM mainstay_outbox_message WHERE retry_at IS NOT NULL
                      ORDER BY lane, key, id LIMIT 1) IS NOT NULL
                         OR EXISTS (SELECT FROM mainstay_outbox_parked),
                     EXISTS (SELECT FROM mainstay_outbox_later WHERE due_at <= now()),
                     ARRAY(SELECT pattern FROM mainstay_outbox_pause),
                     (SELECT oid::bigint FROM pg_database WHERE datname = current_database()),
                     (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint
                 FROM (
                     SELECT count(*) FILTER (WHERE lease_until IS NULL OR lease_until <= clock_timestamp()) AS free,
                         coalesce(sum(rewinds), 0)::bigint AS rewinds
                     FROM mainstay_outbox_lane) l",
            )
            .fetch_one(&pool)
            .await?;
        Ok(Survey {
            relays: relays as u16,
            free: free as u16,
            rewinds,
            ids_in_order: cache <= 1,
            held_back,
            due,
            paused,
            server: Some(Server {
                name: format!("database {database}"),
                started_micros,
                blur_micros: 0,
            }),
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
        let rows: Vec<(i32, i64, i64, i64)> = sqlx::query_as(
            r#"WITH free AS (
                 SELECT lane, in_flight FROM mainstay_outbox_lane
                 WHERE lease_until IS NULL OR lease_until <= clock_timestamp()
                 ORDER BY lane LIMIT $3
                 FOR UPDATE SKIP LOCKED
             ), charged AS (
                 UPDATE mainstay_outbox_message m
                 SET attempts = m.attempts + 1, suspect = true,
                     last_reason = 'the relay lost its lane while publishing',
                     failures = CASE WHEN m.failures = '[]' THEN '[[' ELSE left(m.failures, -1) || ',[' END
                         || m.attempts + 1 || ',' || (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
                         || ',"the relay lost its lane while publishing"]]'
                 FROM free f
                 WHERE m.lane = f.lane AND m.id = ANY (f.in_flight)
                 RETURNING m.lane
             )
             UPDATE mainstay_outbox_lane l
             SET owner = $1, epoch = l.epoch + 1, in_flight = NULL,
                 lease_until = clock_timestamp() + $2 * interval '1 microsecond'
             FROM free f
             WHERE l.lane = f.lane
             RETURNING l.lane, l.epoch, l.rewinds, (SELECT count(*) FROM charged c WHERE c.lane = l.lane)"#,
        )
        .bind(relay)
        .bind(micros(lease))
        .bind(i64::from(count))
        .fetch_all(&pool)
        .await?;
        let grant = |(lane, epoch, rewinds, charged): (i32, i64, i64, i64)| Grant {
            lane,
            epoch,
            rewinds,
            charged: charged as u32,
        };
        Ok(rows.into_iter().map(grant).collect())
    }

    async fn renew(pool: PgPool, lease: Duration, held: Vec<Held>) -> Result<Vec<i32>, Error> {
        let lanes = sqlx::query_scalar(
            "UPDATE mainstay_outbox_lane l
             SET lease_until = clock_timestamp() + $3 * interval '1 microsecond'
             FROM unnest($1::integer[], $2::bigint[]) AS w(lane, epoch)
             WHERE l.lane = w.lane AND l.epoch = w.epoch AND l.owner IS NOT NULL
             RETURNING l.lane",
        )
        .bind(column(&held, |held| held.lane))
        .bind(column(&held, |held| held.epoch))
        .bind(micros(lease))
        .fetch_all(&pool)
        .await?;
        Ok(lanes)
    }

    async fn release(pool: PgPool, held: Vec<Held>, attempted: bool) -> Result<(), Error> {
        sqlx::query(
            "UPDATE mainstay_outbox_lane l
             SET owner = NULL, lease_until = NULL, in_flight = CASE WHEN $3 THEN l.in_flight END
             FROM unnest($1::integer[], $2::bigint[]) AS w(lane, epoch)
             WHERE l.lane = w.lane AND l.epoch = w.epoch",
        )
        .bind(column(&held, |held| held.lane))
        .bind(column(&held, |held| held.epoch))
        .bind(attempted)
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
}
