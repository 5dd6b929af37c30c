//! Reads what sqlx says into the pure table.

use std::error::Error as StdError;
use std::io;

use sqlx::error::{DatabaseError, ErrorKind};

use super::{Code, Condition, classify};

impl<'a> Code<'a> {
    /// The code of a driver's error. `None` for a driver whose feature is off or that this crate does not know.
    #[must_use]
    pub fn of(error: &'a (dyn DatabaseError + 'static)) -> Option<Self> {
        #[cfg(feature = "postgres")]
        if let Some(error) = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
            return Some(Self::Postgres(error.code()));
        }
        #[cfg(feature = "mysql")]
        if let Some(error) = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
            return Some(Self::MySql {
                number: error.number(),
                sqlstate: error.code().unwrap_or_default(),
            });
        }
        #[cfg(feature = "sqlite")]
        if let Some(error) = error.try_downcast_ref::<sqlx::sqlite::SqliteError>() {
            return error.code()?.parse().ok().map(Self::Sqlite);
        }
        let _ = error;
        None
    }
}

impl Condition {
    /// What `error` means, for who keeps it as it is: a loop that runs transactions again, for example.
    ///
    /// ```
    /// use mainstay_errors::db::Condition;
    ///
    /// assert_eq!(Condition::of(&sqlx::Error::PoolTimedOut), Condition::PoolTimedOut);
    /// ```
    #[must_use]
    pub fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => match Code::of(error.as_ref()) {
                Some(code) => classify(code),
                None => of_kind(&error.kind()),
            },
            sqlx::Error::Io(error) => match error.kind() {
                // Nothing was sent yet. Unreachable is not among them: a connection that was in use reports it
                // too, once its retransmissions have run out.
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Self::CannotConnect,
                _ => Self::ConnectionLost,
            },
            sqlx::Error::WorkerCrashed | sqlx::Error::Protocol(_) => Self::ConnectionLost,
            sqlx::Error::PoolTimedOut => Self::PoolTimedOut,
            sqlx::Error::PoolClosed => Self::PoolClosed,
            sqlx::Error::RowNotFound => Self::RowNotFound,
            _ => Self::Other,
        }
    }
}

/// A driver this crate does not know still says the five kinds.
fn of_kind(kind: &ErrorKind) -> Condition {
    match kind {
        ErrorKind::UniqueViolation => Condition::UniqueViolation,
        ErrorKind::ForeignKeyViolation => Condition::ForeignKeyViolation,
        ErrorKind::NotNullViolation => Condition::NotNullViolation,
        ErrorKind::CheckViolation => Condition::CheckViolation,
        ErrorKind::ExclusionViolation => Condition::ExclusionViolation,
        _ => Condition::Other,
    }
}

/// True when the text of `error`, or its `Debug`, may hold a value of the request or of a row.
pub(super) fn may_echo_values(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => Code::of(error.as_ref()).is_none_or(Code::may_echo_values),
        // "invalid value "hunter2" for enum Mood".
        sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::Encode(_)
        | sqlx::Error::AnyDriverError(_) => true,
        // A migration that failed has the database's error as a source.
        // A migration that failed has the database's error among its sources.
        error => {
            let sources = std::iter::successors(StdError::source(error), |&cause| cause.source());
            sources
                .take(crate::CHAIN_LINKS_MAX)
                .filter_map(|cause| cause.downcast_ref::<sqlx::Error>())
                .any(may_echo_values)
        }
    }
}
