//! The outbox on SQLite: its tables.

use std::time::Duration;

use sqlx::{Sqlite, SqlitePool};

use super::super::{Migrate, patience::Patience};
use crate::error::{Error, ErrorKind};

/// The scripts in order; a database's version is how many of them it has seen.
const SCRIPTS: [&str; 2] = [
    include_str!("../../../migrations/sqlite/0001_outbox.sql"),
    include_str!("../../../migrations/sqlite/0002_operations.sql"),
];

impl Migrate for Sqlite {
    async fn migrate(
        pool: SqlitePool,
        lanes: u16,
        exact: bool,
        patience: Duration,
    ) -> Result<(), Error> {
        let task = tokio::spawn(async move {
            let mut patience = Patience::new(patience);
            loop {
                match migrate(&pool, lanes, exact).await {
                    Err(error)
                        if error.kind() == ErrorKind::LockTimeout && patience.again().await => {}
                    done => return done,
                }
            }
        });
        task.await.map_err(|_| Error::new(ErrorKind::Shutdown))?
    }

    async fn lanes(pool: SqlitePool) -> Result<u16, Error> {
        // Asked first without naming the table, which may not exist.
        let there: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'mainstay_outbox_migrations')",
        )
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
async fn migrate(pool: &SqlitePool, lanes: u16, exact: bool) -> Result<(), Error> {
    // The write lock makes processes that start together migrate one after the other.
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS mainstay_outbox_migrations (
            version    INTEGER PRIMARY KEY,
            applied_at INTEGER NOT NULL DEFAULT (CAST(round(unixepoch('subsec') * 1000000) AS INTEGER))
        ) STRICT",
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
        sqlx::query("INSERT INTO mainstay_outbox_migrations (version) VALUES (?1)")
            .bind(version)
            .execute(&mut *tx)
            .await?;
    }
    let wanted = i32::from(lanes);
    sqlx::query(
        "INSERT INTO mainstay_outbox_settings (one, lanes) VALUES (1, ?1) ON CONFLICT DO NOTHING",
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
        "WITH RECURSIVE n(lane) AS (SELECT 0 UNION ALL SELECT lane + 1 FROM n WHERE lane + 1 < ?1)
         INSERT INTO mainstay_outbox_lane (lane) SELECT lane FROM n WHERE true ON CONFLICT DO NOTHING",
    )
    .bind(stored)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

fn lane_count(stored: i32, asked: i32) -> Error {
    Error::new(ErrorKind::LaneCount {
        stored: stored as u16,
        asked: asked as u16,
    })
}
