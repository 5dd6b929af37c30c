//! The outbox on MySQL and MariaDB: its tables.

use std::time::Duration;

use sqlx::{AssertSqlSafe, MySql, MySqlConnection, MySqlPool};

use super::{
    super::{Migrate, patience::Patience},
    apart, json,
};
use crate::error::{Error, ErrorKind};

/// The scripts in order; a database's version is how many of them it has seen.
const SCRIPTS: [&str; 1] = [include_str!("../../../migrations/mysql/0001_outbox.sql")];

/// How many rows producers have to lock instead of their keys: more than the transactions that run at once.
pub(super) const KEY_LOCKS: u16 = 1024;

impl Migrate for MySql {
    async fn migrate(
        pool: MySqlPool,
        lanes: u16,
        exact: bool,
        patience: Duration,
    ) -> Result<(), Error> {
        let task = tokio::spawn(async move {
            let mut conn = pool.acquire().await?;
            let migrated = in_turn(&mut conn, lanes, exact, Patience::new(patience)).await;
            // Not back to the pool: with it goes the lock, on every path.
            _ = conn.close().await;
            migrated
        });
        task.await.map_err(|_| Error::new(ErrorKind::Shutdown))?
    }

    async fn lanes(pool: MySqlPool) -> Result<u16, Error> {
        // Asked first without naming the table, which may not exist.
        let (found, stored) = apart(async move {
            let there: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM information_schema.tables
                 WHERE table_schema = database() AND table_name = 'mainstay_outbox_migrations')",
            )
            .fetch_one(&pool)
            .await?;
            if !there {
                return Ok((0, 0));
            }
            let found: i32 = sqlx::query_scalar(
                "SELECT coalesce(max(version), 0) FROM mainstay_outbox_migrations",
            )
            .fetch_one(&pool)
            .await?;
            if found == 0 {
                return Ok((0, 0));
            }
            let stored: i32 = sqlx::query_scalar("SELECT lanes FROM mainstay_outbox_settings")
                .fetch_one(&pool)
                .await?;
            Ok((found, stored))
        })
        .await?;
        let known = SCRIPTS.len() as i32;
        if found > known {
            return Err(Error::new(ErrorKind::NewerSchema { found, known }));
        }
        if found < known {
            return Err(Error::new(ErrorKind::NotMigrated));
        }
        Ok(stored as u16)
    }
}

/// One migrating process at a time, on a connection that nobody uses after it.
async fn in_turn(
    conn: &mut MySqlConnection,
    lanes: u16,
    exact: bool,
    mut patience: Patience,
) -> Result<(), Error> {
    let locked: Option<i64> = sqlx::query_scalar(
        "SELECT get_lock(sha2(concat('mainstay outbox migrations ', ifnull(database(), '')), 256), ?)",
    )
    .bind(patience.left().as_secs_f64())
    .fetch_one(&mut *conn)
    .await?;
    match locked {
        Some(1) => {}
        Some(_) => return Err(Error::new(ErrorKind::LockTimeout)),
        // Somebody ended the statement.
        None => return Err(Error::new(ErrorKind::Database)),
    }
    // A second is the least. Who waits for a table holds up everybody who wants to write to it; it gives up and comes back.
    sqlx::raw_sql("SET lock_wait_timeout = 1, innodb_lock_wait_timeout = 1")
        .execute(&mut *conn)
        .await?;
    loop {
        match migrate(&mut *conn, lanes, exact).await {
            Err(error) if error.kind() == ErrorKind::LockTimeout && patience.again().await => {}
            done => return done,
        }
    }
}

/// DDL commits by itself here, so each step is written to be repeated, and a version is noted after everything that belongs
/// to it.
async fn migrate(conn: &mut MySqlConnection, lanes: u16, exact: bool) -> Result<(), Error> {
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS mainstay_outbox_migrations (
            version    INT         NOT NULL PRIMARY KEY,
            applied_at DATETIME(6) NOT NULL DEFAULT (utc_timestamp(6))
        ) ENGINE = InnoDB",
    )
    .execute(&mut *conn)
    .await?;
    let found: i32 =
        sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM mainstay_outbox_migrations")
            .fetch_one(&mut *conn)
            .await?;
    let known = SCRIPTS.len() as i32;
    if found > known {
        return Err(Error::new(ErrorKind::NewerSchema { found, known }));
    }
    for (version, script) in (1..=known).zip(SCRIPTS).skip(found.unsigned_abs() as usize) {
        sqlx::raw_sql(script).execute(&mut *conn).await?;
        if version == 1 {
            fill(&mut *conn, lanes).await?;
        }
        sqlx::query("INSERT INTO mainstay_outbox_migrations (version) VALUES (?)")
            .bind(version)
            .execute(&mut *conn)
            .await?;
    }
    let wanted = i32::from(lanes);
    let stored: i32 = sqlx::query_scalar("SELECT lanes FROM mainstay_outbox_settings")
        .fetch_one(&mut *conn)
        .await?;
    if exact && stored != wanted {
        return Err(Error::new(ErrorKind::LaneCount {
            stored: stored as u16,
            asked: lanes,
        }));
    }
    rows(conn, stored as u16).await
}

/// What the tables of version 1 are made for. The first to be here says how many lanes there are.
async fn fill(conn: &mut MySqlConnection, lanes: u16) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO mainstay_outbox_settings (one, lanes) VALUES (1, ?) ON DUPLICATE KEY UPDATE one = one",
    )
    .bind(i32::from(lanes))
    .execute(&mut *conn)
    .await?;
    let lanes: u16 =
        sqlx::query_scalar("SELECT CAST(lanes AS UNSIGNED) FROM mainstay_outbox_settings")
            .fetch_one(&mut *conn)
            .await
            .map(|lanes: u64| lanes as u16)?;
    // DDL takes no parameters. From here on the table itself knows the lane of a row.
    let default = format!(
        "ALTER TABLE mainstay_outbox_message ALTER COLUMN lane SET DEFAULT (hash % {lanes})"
    );
    sqlx::raw_sql(AssertSqlSafe(default))
        .execute(&mut *conn)
        .await?;
    Ok(())
}

/// The rows that stand for lanes and for keys. Those that are missing, whyever, are put back; where none is nothing is
/// written, which would wait for whoever has them locked.
async fn rows(conn: &mut MySqlConnection, lanes: u16) -> Result<(), Error> {
    let all: bool = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM mainstay_outbox_lane WHERE lane < ?) >= ? AND (SELECT count(*) FROM mainstay_outbox_key_lock) >= ?",
    )
    .bind(lanes)
    .bind(lanes)
    .bind(KEY_LOCKS)
    .fetch_one(&mut *conn)
    .await?;
    if all {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO mainstay_outbox_lane (lane)
         SELECT n.lane FROM JSON_TABLE(?, '$[*]' COLUMNS (lane INT PATH '$')) n
         ON DUPLICATE KEY UPDATE mainstay_outbox_lane.lane = mainstay_outbox_lane.lane",
    )
    .bind(json(&(0..lanes).collect::<Vec<_>>()))
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        "INSERT INTO mainstay_outbox_key_lock (slot)
         SELECT n.slot FROM JSON_TABLE(?, '$[*]' COLUMNS (slot INT PATH '$')) n
         ON DUPLICATE KEY UPDATE mainstay_outbox_key_lock.slot = mainstay_outbox_key_lock.slot",
    )
    .bind(json(&(0..KEY_LOCKS).collect::<Vec<_>>()))
    .execute(&mut *conn)
    .await?;
    Ok(())
}
