//! The outbox on Postgres: its tables.

use std::time::Duration;

use sqlx::{PgConnection, PgPool, Postgres};

use super::super::{Migrate, patience::Patience};
use crate::error::{Error, ErrorKind};

/// The scripts in order; a database's version is how many of them it has seen.
const SCRIPTS: [&str; 2] = [
    include_str!("../../../migrations/postgres/0001_outbox.sql"),
    include_str!("../../../migrations/postgres/0002_operations.sql"),
];

/// How long a migration waits for a table. Producers queue behind it meanwhile, and go on when it gives up; it comes back.
const LOCK_WAIT: Duration = Duration::from_millis(300);

impl Migrate for Postgres {
    async fn migrate(
        pool: PgPool,
        lanes: u16,
        exact: bool,
        patience: Duration,
    ) -> Result<(), Error> {
        // A task of its own: dropping a Postgres transaction while it begins would hand the open transaction back to
        // the pool.
        let task = tokio::spawn(async move {
            let mut patience = Patience::new(patience);
            loop {
                match migrate(&pool, lanes, exact, patience.left()).await {
                    Err(error)
                        if error.kind() == ErrorKind::LockTimeout && patience.again().await => {}
                    done => return done,
                }
            }
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

/// All of it in one transaction.
async fn migrate(pool: &PgPool, lanes: u16, exact: bool, turn: Duration) -> Result<(), Error> {
    // Whatever the application's default is: who had to wait for its turn must see what was done meanwhile.
    let mut tx = pool
        .begin_with("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
        .await?;
    // Held to the end of the transaction: processes that start together migrate one after the other. Nobody else waits
    // behind who waits for this. Outboxes in other schemas have locks of their own.
    wait_for_locks(&mut tx, turn).await?;
    sqlx::query(
        "SELECT pg_advisory_xact_lock(hashtextextended('mainstay outbox migrations ' || current_schema(), 0))",
    )
    .execute(&mut *tx)
    .await?;
    wait_for_locks(&mut tx, LOCK_WAIT).await?;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS mainstay_outbox_migrations (
            version    integer PRIMARY KEY,
            applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
        )",
    )
    .execute(&mut *tx)
    .await?;
    let found: i32 =
        sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM mainstay_outbox_migrations")
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
    sqlx::query("INSERT INTO mainstay_outbox_settings (lanes) VALUES ($1) ON CONFLICT DO NOTHING")
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
}

/// How long statements of this transaction wait for a lock from here on.
async fn wait_for_locks(tx: &mut PgConnection, limit: Duration) -> Result<(), sqlx::Error> {
    // Nought would be for ever.
    let millis = limit.as_millis().max(1).to_string();
    sqlx::query("SELECT set_config('lock_timeout', $1, true)")
        .bind(millis)
        .execute(tx)
        .await?;
    Ok(())
}

fn lane_count(stored: i32, asked: i32) -> Error {
    Error::new(ErrorKind::LaneCount {
        stored: stored as u16,
        asked: asked as u16,
    })
}
