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

#[cfg(test)]
mod tests {
    use sqlx::migrate::MigrateError;

    use super::super::DbFault;

    /// Seen from the log.
    fn source(error: sqlx::Error) -> Option<String> {
        let fault = DbFault::from(error);
        std::error::Error::source(&fault).map(ToString::to_string)
    }

    #[test]
    fn the_text_of_a_value_that_was_not_understood_is_withheld() {
        for error in [
            sqlx::Error::Decode("hunter2".into()),
            sqlx::Error::Encode("hunter2".into()),
            sqlx::Error::AnyDriverError("hunter2".into()),
            sqlx::Error::ColumnDecode {
                index: "\"mood\"".to_owned(),
                source: "hunter2".into(),
            },
        ] {
            assert_eq!(source(error), None);
        }
    }

    #[test]
    fn a_migration_that_failed_is_as_talkative_as_its_cause() {
        let migrate = |error| sqlx::Error::Migrate(Box::new(error));
        let echo = MigrateError::Execute(sqlx::Error::Decode("hunter2".into()));
        assert_eq!(source(migrate(echo)), None);
        let kept = source(migrate(MigrateError::VersionMissing(3)));
        assert!(kept.is_some_and(|text| text.contains('3')));
    }
}
