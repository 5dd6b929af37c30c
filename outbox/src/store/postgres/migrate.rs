//! The outbox on Postgres: its tables.

use sqlx::{PgPool, Postgres};

use super::super::Migrate;
use crate::error::{Error, ErrorKind};

/// The scripts in order; a database's version is how many of them it has seen.
const SCRIPTS: [&str; 2] = [
    include_str!("../../../migrations/postgres/0001_outbox.sql"),
    include_str!("../../../migrations/postgres/0002_operations.sql"),
];

impl Migrate for Postgres {
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
}

fn lane_count(stored: i32, asked: i32) -> Error {
    Error::new(ErrorKind::LaneCount {
        stored: stored as u16,
        asked: asked as u16,
    })
}
