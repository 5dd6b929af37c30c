//! Bringing the outbox's tables to the version this code knows.

use std::time::Duration;

use sqlx::Pool;

use crate::{
    error::Error,
    lane::{LANES_DEFAULT, LANES_MAX},
    store::OutboxDb,
};

/// As long as a deployment may well stand; whoever holds a lock for longer has to be asked.
const PATIENCE: Duration = Duration::from_secs(60);

/// Creates or upgrades the outbox's tables; a fresh outbox gets 64 lanes.
///
/// Processes may race: they take turns under a lock. Versions are kept in `mainstay_outbox_migrations`, apart from
/// your own migrations. Tables are created in the connection's default schema (Postgres: first in `search_path`).
///
/// On Postgres an outbox can have a schema of its own, and a database several such: name it in the address of every pool that
/// works with it, those of producers, relays and operators alike, `postgres://../shop?options=-csearch_path=billing`. The
/// schema must exist. A producer whose own tables are elsewhere names both, `billing,public`; but no path may lead through
/// two schemas that have an outbox, as the first that is found would be taken. Several in one database share nothing but
/// the locks of strict keys, for which writers of one key in both wait for each other; the lock under which a relay lets
/// delayed events in, for a statement; and wakes, each of which costs the others' relays an empty look. On MySQL and MariaDB a
/// schema is a database.
///
/// Upgrades change tables that are in use. Whoever waits for such a table holds up everybody who comes after, so this waits
/// for a third of a second (a second on MySQL and MariaDB) and tries again some seconds later, for a minute at most: behind a
/// dump, a long transaction or somebody who reads, producers and relays go on.
///
/// # Errors
/// [`Error`] of the database, [`ErrorKind::NewerSchema`](crate::ErrorKind::NewerSchema) when newer code has been here, or
/// [`ErrorKind::LockTimeout`](crate::ErrorKind::LockTimeout) when others held a table, or were migrating, for all of the
/// minute. Then nothing is changed; on MySQL and MariaDB, where each statement commits, what is done is not done again.
///
/// # Cancel safety
/// Goes on in the background when the future is dropped. Atomic but on MySQL and MariaDB, where a migration that was cut off
/// is taken up by the next.
pub async fn migrate<Db: OutboxDb>(pool: &Pool<Db>) -> Result<(), Error> {
    Db::migrate(pool.clone(), LANES_DEFAULT, false, PATIENCE).await
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
    Db::migrate(pool.clone(), lanes.clamp(1, LANES_MAX), true, PATIENCE).await
}
