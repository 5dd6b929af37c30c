//! What Postgres' errors mean here.

use std::borrow::Cow;

use sqlx::error::DatabaseError;

use crate::{Error, ErrorKind};

pub(crate) fn error(error: sqlx::Error) -> Error {
    let kind = match &error {
        sqlx::Error::Database(refused) => match refused.code().as_deref() {
            Some("40001" | "40P01" | "55P03" | "57014") => ErrorKind::Busy,
            Some("25P02") => ErrorKind::TransactionEnded,
            Some(code)
                if code.starts_with("08")
                    || code.starts_with("53")
                    || code.starts_with("57P")
                    || code == "25006"
                    || code == "25P03" =>
            {
                ErrorKind::Unavailable
            }
            _ => ErrorKind::Database,
        },
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => ErrorKind::Unavailable,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => ErrorKind::Corrupt,
        _ => ErrorKind::Database,
    };
    Error::new(kind, error)
}

/// A standby refuses `READ WRITE` as a feature that it lacks: the database to write to is elsewhere.
pub(super) fn not_begun(refused: sqlx::Error) -> Error {
    if code_of(&refused).is_some_and(|code| code == "0A000") {
        Error::new(ErrorKind::Unavailable, refused)
    } else {
        error(refused)
    }
}

/// A deferred constraint or its trigger, a serialization failure, a deadlock: refused. What else may be sent in answer
/// to a COMMIT, such as a shutdown or a failing disk, does not say on which side of it the server was; 40003 even says
/// that nobody knows.
pub(super) fn not_committed(lost: sqlx::Error) -> Error {
    const REFUSED: [&str; 4] = ["23", "40001", "40P01", "P0"];
    if code_of(&lost).is_some_and(|code| REFUSED.iter().any(|start| code.starts_with(start))) {
        error(lost)
    } else {
        Error::new(ErrorKind::Unavailable, lost)
    }
}

pub(super) fn code_of(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(DatabaseError::code)
}

#[cfg(test)]
mod tests {
    use std::error::Error as StdError;
    use std::fmt;

    use sqlx::error::ErrorKind as SqlKind;

    use super::*;

    #[derive(Debug)]
    struct Answer(&'static str);

    impl fmt::Display for Answer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl StdError for Answer {}

    impl DatabaseError for Answer {
        fn message(&self) -> &str {
            self.0
        }
        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
        }
        fn kind(&self) -> SqlKind {
            SqlKind::Other
        }
        fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
            self
        }
        fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
            self
        }
        fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
            self
        }
    }

    fn answer(code: &'static str) -> sqlx::Error {
        sqlx::Error::Database(Box::new(Answer(code)))
    }

    #[test]
    fn a_standby_is_a_database_that_cannot_be_reached() {
        assert_eq!(not_begun(answer("0A000")).kind(), ErrorKind::Unavailable);
        assert_eq!(not_begun(answer("57P03")).kind(), ErrorKind::Unavailable);
        assert_eq!(error(answer("0A000")).kind(), ErrorKind::Database);
    }

    #[test]
    fn only_a_refusal_says_that_nothing_was_committed() {
        for (code, kind) in [
            ("23503", ErrorKind::Database),
            ("P0001", ErrorKind::Database),
            ("40001", ErrorKind::Busy),
            ("40P01", ErrorKind::Busy),
            ("40003", ErrorKind::Unavailable),
            ("57P01", ErrorKind::Unavailable),
            ("58030", ErrorKind::Unavailable),
            ("XX000", ErrorKind::Unavailable),
        ] {
            assert_eq!(not_committed(answer(code)).kind(), kind, "{code}");
        }
    }
}
