//! `sqlx::Error`, classified: what a client may know of it, and whether the work may be tried again.
//!
//! Only codes are read, never messages: messages follow the server's locale and echo values. Postgres is
//! read by its SQLSTATE, SQLite by its extended result code, MySQL and MariaDB by their error number.
//!
//! | condition | Postgres | SQLite | MySQL, MariaDB | answer | advice | outcome |
//! |---|---|---|---|---|---|---|
//! | unique, exclusion | 23505, 23P01 | 1555, 2067, 2579 | 1022, 1062, 1169, 1586, 1761, 1762, 1859 | 409 `already_exists` | never | not applied |
//! | foreign key, either side | 23503, 23001 | 787 | 1216, 1217, 1451, 1452 | 409 `reference_conflict` | after state change | not applied |
//! | serialization | 40001 | 517 | 1020, 3101 | 503 `transaction_conflict` | transaction | not applied |
//! | deadlock | 40P01 | – | 1213, 1614 | as above | transaction | not applied |
//! | lock timeout, `NOWAIT` | 55P03 | 5, 6 | 1205, 1689, 3572 | as above | transaction | not applied |
//! | statement timeout, cancel | 57014 | 9 | 1317, 1969, 3024 | 504 `database_timeout` | same key only | unknown |
//! | read-only | 25006 | 8 | 1036, 1290, 1792, 1836, 1874 | 503 `database_unavailable` | backoff | not applied |
//! | cannot connect: full, starting, refused | 53300, 57P03, 08001, 08004 | 14 | 1040, 1047, 1129, 1203, 1226 | as above | backoff | not applied |
//! | out of disk or memory | 53100, 53200 | 7, 13 | 1021, 1037, 1038, 1041, 1114, 1135, 1206, 1461 | as above | backoff | not applied |
//! | pool timed out or closed | – | – | – | as above | backoff | not applied |
//! | connection lost: killed, shut down, broken | 57P01, 57P02, 57P04, 57P05, 25P03, 25P04, 08 | – | 1053, 1927, 2006, 2013, 3169, 4031 | 503 `database_connection_lost` | same key only | unknown |
//! | commit unknown | 08007, 40003 | – | 1180 | as above | same key only | unknown |
//! | data exception | 22 without 22012 | 18 | 1153, 1264, 1265, 1292, 1300, 1366, 1367, 1406, 1411, 1525, 1690 | 400 `value_refused` | never | not applied |
//! | damaged data | XX001, XX002 | 11, 26 | 1034, 1035, 1194, 1195, 1712, 1877 | 500 `data_loss` | never | unknown |
//! | not null, check | 23502, 23514 | 1299, 275 | 1048, 1364, 3819, 4025 | 500 `internal` | never | unknown |
//! | raised by a trigger or function | P0001 | 1811 | 1644 | 500 `internal` | never | unknown |
//! | everything else | | | | 500 `internal` | never | unknown |
//!
//! A code of SQLite stands for its extended ones too, except where those have a line of their own. A number of
//! MySQL that the table does not know is read by its SQLSTATE, where the class of that says enough.
//!
//! # Trying again
//!
//! After a `transaction_conflict` the transaction is rolled back and run again from its first read. The
//! database has not always rolled it back itself: see [`Condition::LockTimeout`] and [`Condition::Deadlock`].
//! "Not applied" is said of the transaction; who goes on after the error and commits, commits what came before it.
//!
//! A connection that was refused did nothing. One that broke while it was in use may have done everything, and so
//! may a statement that was cancelled around its commit.
//!
//! # Constraints
//!
//! Postgres alone names the violated constraint in a field, so a mapping by name
//! ([`on_constraint`](DbResultExt::on_constraint), [`by_constraint`](DbResultExt::by_constraint)) works
//! there alone; [`on_unique`](DbResultExt::on_unique) and [`on_foreign_key`](DbResultExt::on_foreign_key) work
//! on every database.
//!
//! # What the log gets
//!
//! A `DbFault` prints condition, code, table and constraint. The text of the driver's error follows as its source
//! only where it is known to hold no values: a duplicate key of MySQL, a malformed value, a failed row of
//! Postgres (in its `Debug`), a syntax error, a raised error and a value that could not be decoded are withheld. One
//! gap is SQLite's: its one code for most mistakes of a program also quotes the query of a full-text search.

mod call_site;
mod code;
mod condition;
mod driver;

use std::borrow::Cow;
use std::fmt;

pub use call_site::DbResultExt;
pub use code::{Code, classify};
pub use condition::Condition;

use crate::{Descriptor, Error, Fault};

/// A classified `sqlx::Error`. Its `Display` names condition, code, table and constraint, and no value.
pub struct DbFault(Box<Inner>);

struct Inner {
    condition: Condition,
    error: sqlx::Error,
}

impl DbFault {
    /// What happened.
    #[must_use]
    pub fn condition(&self) -> Condition {
        self.0.condition
    }

    /// The database's own code, where it sent one: the SQLSTATE of Postgres, SQLite's extended result code,
    /// the error number of MySQL and MariaDB.
    #[must_use]
    pub fn code(&self) -> Option<String> {
        let error = self.0.error.as_database_error()?;
        match Code::of(error) {
            Some(code) => Some(code.to_string()),
            None => error.code().map(Cow::into_owned),
        }
    }

    /// The constraint that was violated, where the database names it in a field (Postgres).
    #[must_use]
    pub fn constraint(&self) -> Option<&str> {
        self.0.error.as_database_error()?.constraint()
    }

    /// True when running the whole transaction again, from its first read, may succeed.
    #[must_use]
    pub fn is_transaction_conflict(&self) -> bool {
        self.0.condition.is_transaction_conflict()
    }

    /// The error as sqlx gave it. Its `Debug` shows values of the failed statement.
    #[must_use]
    pub fn into_inner(self) -> sqlx::Error {
        self.0.error
    }
}

impl From<sqlx::Error> for DbFault {
    fn from(error: sqlx::Error) -> Self {
        Self(Box::new(Inner {
            condition: Condition::of(&error),
            error,
        }))
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::from(DbFault::from(error))
    }
}

impl fmt::Display for DbFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.condition.as_str())?;
        if let Some(code) = self.code() {
            write!(f, " ({code})")?;
        }
        // The driver's own text is withheld, and without the column nobody finds the mistake.
        if let sqlx::Error::ColumnDecode { index, .. } = &self.0.error {
            write!(f, " while decoding column {index}")?;
        }
        let Some(error) = self.0.error.as_database_error() else {
            return Ok(());
        };
        if let Some(table) = error.table() {
            write!(f, " on table {table}")?;
        }
        #[cfg(feature = "postgres")]
        if let Some(column) = error
            .try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
            .and_then(|error| error.column())
        {
            write!(f, " in column {column}")?;
        }
        if let Some(constraint) = error.constraint() {
            write!(f, " by constraint {constraint}")?;
        }
        Ok(())
    }
}

/// As `Display`: the `Debug` of a driver's error shows the row.
impl fmt::Debug for DbFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DbFault({self})")
    }
}

impl std::error::Error for DbFault {
    /// The error below, unless its text may echo a value of the request or of a row into the log.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if driver::may_echo_values(&self.0.error) {
            None
        } else {
            Some(&self.0.error)
        }
    }
}

impl Fault for DbFault {
    const CATALOG: &'static [Descriptor] = &condition::CATALOG;

    fn descriptor(&self) -> &'static Descriptor {
        self.0.condition.descriptor()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn what_no_driver_is_needed_for_is_classified() {
        use std::io::Error as Io;
        for (error, condition) in [
            (sqlx::Error::PoolTimedOut, Condition::PoolTimedOut),
            (sqlx::Error::PoolClosed, Condition::PoolClosed),
            (sqlx::Error::WorkerCrashed, Condition::ConnectionLost),
            (sqlx::Error::RowNotFound, Condition::RowNotFound),
            (
                sqlx::Error::Io(Io::from(io::ErrorKind::ConnectionRefused)),
                Condition::CannotConnect,
            ),
            (
                sqlx::Error::Io(Io::from(io::ErrorKind::ConnectionReset)),
                Condition::ConnectionLost,
            ),
            (
                sqlx::Error::Io(Io::from(io::ErrorKind::UnexpectedEof)),
                Condition::ConnectionLost,
            ),
            (
                sqlx::Error::Io(Io::from(io::ErrorKind::HostUnreachable)),
                Condition::ConnectionLost,
            ),
            (
                sqlx::Error::Io(Io::from(io::ErrorKind::NetworkUnreachable)),
                Condition::ConnectionLost,
            ),
            (
                sqlx::Error::ColumnNotFound("secret".into()),
                Condition::Other,
            ),
        ] {
            assert_eq!(DbFault::from(error).condition(), condition);
        }
    }

    #[test]
    fn a_missing_row_is_internal_unless_the_call_site_says_so() {
        let missing = || Err::<(), _>(sqlx::Error::RowNotFound);
        assert_eq!(Error::from(missing().unwrap_err()).code(), "internal");
        let said: Result<(), Error> =
            missing().or_not_found(Error::internal("it was there yesterday"));
        assert_eq!(said.unwrap_err().chain(), ["it was there yesterday"]);
    }
}
