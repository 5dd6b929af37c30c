//! What can go wrong between the outbox and its database.

use std::fmt;

use sqlx::error::DatabaseError;

/// Why an operation on the outbox's tables failed. Opaque: ask [`kind`](Error::kind); the cause is in `source()`.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    source: Option<sqlx::Error>,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The database refused or could not be reached. Whether the statement took effect may be unknown.
    Database,
    /// The tables are not there, or older than this code: run `migrate`.
    NotMigrated,
    /// The tables were migrated by newer code than this.
    NewerSchema {
        /// The version found.
        found: i32,
        /// The newest version this code knows.
        known: i32,
    },
    /// The number of lanes asked for is not the one the outbox was created with.
    LaneCount {
        /// Lanes the outbox has.
        stored: u16,
        /// Lanes asked for.
        asked: u16,
    },
    /// Others held a lock for too long: a relay that is settling, an operator, a stray transaction. Nothing was changed by
    /// what did not get it; do it again.
    ///
    /// Migrations try for a minute. Operators' commands wait 5 s; on MySQL and MariaDB `innodb_lock_wait_timeout` if that is less, on SQLite the
    /// `busy_timeout` of the connection.
    LockTimeout,
    /// What was to be paused or resumed is neither a topic, nor a prefix that ends in `*`, nor `*`.
    Pattern,
    /// The operation's task was cancelled because the runtime is shutting down.
    Shutdown,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind) -> Self {
        Self(Box::new(Inner { kind, source: None }))
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }
}

impl From<sqlx::Error> for Error {
    fn from(source: sqlx::Error) -> Self {
        let kind = source
            .as_database_error()
            .map_or(ErrorKind::Database, kind_of);
        Self(Box::new(Inner {
            kind,
            source: Some(source),
        }))
    }
}

/// What the database says by its code; where that says too little, by its words.
fn kind_of(refused: &dyn DatabaseError) -> ErrorKind {
    // SQLSTATEs are shared there by errors that have nothing in common.
    #[cfg(feature = "mysql")]
    if let Some(refused) = refused.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
        return match refused.number() {
            1205 => ErrorKind::LockTimeout,
            // No such table, no such column.
            1054 | 1146 => ErrorKind::NotMigrated,
            _ => ErrorKind::Database,
        };
    }
    match refused.code().as_deref() {
        // Postgres: lock_not_available. SQLite: SQLITE_BUSY.
        Some("55P03" | "5") => ErrorKind::LockTimeout,
        // Postgres: undefined_table, undefined_column.
        Some("42P01" | "42703") => ErrorKind::NotMigrated,
        // SQLITE_ERROR.
        Some("1") if is_missing(refused.message()) => ErrorKind::NotMigrated,
        _ => ErrorKind::Database,
    }
}

fn is_missing(said: &str) -> bool {
    said.starts_with("no such table")
        || said.starts_with("no such column")
        || said.contains("has no column named")
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.kind {
            ErrorKind::Database => f.write_str("the outbox's database failed"),
            ErrorKind::NotMigrated => {
                f.write_str("the outbox's tables are missing or old: run migrate")
            }
            ErrorKind::NewerSchema { found, known } => write!(
                f,
                "the outbox's tables are of version {found}, this code knows {known}: deploy newer code"
            ),
            ErrorKind::LaneCount { stored, asked } => {
                write!(f, "the outbox has {stored} lanes, {asked} were asked for")
            }
            ErrorKind::LockTimeout => {
                f.write_str("a lock that the outbox needs was not given in time: do it again")
            }
            ErrorKind::Pattern => {
                f.write_str("not a topic pattern: a topic, a prefix ending in *, or *")
            }
            ErrorKind::Shutdown => f.write_str("the runtime is shutting down"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("source", &self.0.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source as _)
    }
}
