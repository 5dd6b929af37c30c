//! Bringing the outbox's tables to the version this code knows.

use sqlx::Pool;

use crate::{
    error::Error,
    lane::{LANES_DEFAULT, LANES_MAX},
    store::OutboxDb,
};

/// Creates or upgrades the outbox's tables; a fresh outbox gets 64 lanes.
///
/// Processes may race: they take turns under a lock. Versions are kept in `mainstay_outbox_migrations`, apart from
/// your own migrations. Tables are created in the connection's default schema (Postgres: first in `search_path`).
///
/// # Errors
/// [`Error`] of the database, or [`ErrorKind::NewerSchema`](crate::ErrorKind::NewerSchema) when newer code has been here.
///
/// # Cancel safety
/// Atomic; it goes on in the background when the future is dropped.
pub async fn migrate<Db: OutboxDb>(pool: &Pool<Db>) -> Result<(), Error> {
    Db::migrate(pool.clone(), LANES_DEFAULT, false).await
}

/// As [`migrate`], with this many lanes (1 to 1024; cut to that range). They are fixed at the first migration.
///
/// Lanes are how many relays can share the work and how many batches go out side by side; every idle look probes each.
///
/// # Errors
/// As [`migrate`], and [`ErrorKind::LaneCount`](crate::ErrorKind::LaneCount) when the outbox has another number of lanes.
///
/// # Cancel safety
/// As [`migrate`].
pub async fn migrate_with_lanes<Db: OutboxDb>(pool: &Pool<Db>, lanes: u16) -> Result<(), Error> {
    Db::migrate(pool.clone(), lanes.clamp(1, LANES_MAX), true).await
}
