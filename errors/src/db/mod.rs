//! `sqlx::Error`, classified: what a client may know of it, and whether the work may be tried again.
//!
//! Only codes are read, never messages: messages follow the server's locale and echo values. SQLite
//! names no constraints, so a mapping by constraint name works on Postgres alone;
//! [`on_unique`](DbResultExt::on_unique) works on every database.
//!
//! | condition | answer | advice | outcome |
//! |---|---|---|---|
//! | unique, exclusion | 409 `already_exists` | never | not applied |
//! | foreign key, either side | 409 `reference_conflict` | after state change | not applied |
//! | serialization, deadlock, lock timeout | 503 `transaction_conflict` | transaction | not applied |
//! | statement timeout, cancel | 504 `database_timeout` | same key only | unknown |
//! | read-only, cannot connect, full disk, pool | 503 `database_unavailable` | backoff | not applied |
//! | connection lost, commit unknown | 503 `database_connection_lost` | same key only | unknown |
//! | data exception | 400 `value_refused` | never | not applied |
//! | damaged data | 500 `data_loss` | never | unknown |
//! | everything else | 500 `internal` | never | unknown |

mod condition;

use std::fmt;
use std::io;

pub use condition::{Backend, Condition, classify};

use crate::{ByConstraint, Descriptor, Error, Fault};

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

    /// The database's own code, where it sent one.
    #[must_use]
    pub fn code(&self) -> Option<String> {
        self.0
            .error
            .as_database_error()?
            .code()
            .map(std::borrow::Cow::into_owned)
    }

    /// The constraint that was violated, where the database names it (Postgres).
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
            condition: condition_of(&error),
            error,
        }))
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::from(DbFault::from(error))
    }
}

/// Reads what sqlx says into the pure table.
fn condition_of(error: &sqlx::Error) -> Condition {
    match error {
        sqlx::Error::Database(error) => database(error.as_ref()),
        sqlx::Error::Io(error) => match error.kind() {
            // Nothing was sent yet. Unreachable is not among them: a connection that was in use reports it
            // too, once its retransmissions have run out.
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Condition::CannotConnect,
            _ => Condition::ConnectionLost,
        },
        sqlx::Error::WorkerCrashed | sqlx::Error::Protocol(_) => Condition::ConnectionLost,
        sqlx::Error::PoolTimedOut => Condition::PoolTimedOut,
        sqlx::Error::PoolClosed => Condition::PoolClosed,
        sqlx::Error::RowNotFound => Condition::RowNotFound,
        _ => Condition::Other,
    }
}

fn database(error: &(dyn sqlx::error::DatabaseError + 'static)) -> Condition {
    use sqlx::error::ErrorKind;

    if let (Some(backend), Some(code)) = (backend(error), error.code()) {
        return classify(backend, &code);
    }
    // A driver this crate does not know still says the five kinds.
    match error.kind() {
        ErrorKind::UniqueViolation => Condition::UniqueViolation,
        ErrorKind::ForeignKeyViolation => Condition::ForeignKeyViolation,
        ErrorKind::NotNullViolation => Condition::NotNullViolation,
        ErrorKind::CheckViolation => Condition::CheckViolation,
        ErrorKind::ExclusionViolation => Condition::ExclusionViolation,
        _ => Condition::Other,
    }
}

fn backend(error: &(dyn sqlx::error::DatabaseError + 'static)) -> Option<Backend> {
    #[cfg(feature = "postgres")]
    if error
        .try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
        .is_some()
    {
        return Some(Backend::Postgres);
    }
    #[cfg(feature = "sqlite")]
    if error
        .try_downcast_ref::<sqlx::sqlite::SqliteError>()
        .is_some()
    {
        return Some(Backend::Sqlite);
    }
    let _ = error;
    None
}

impl fmt::Display for DbFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.condition.as_str())?;
        let Some(error) = self.0.error.as_database_error() else {
            return Ok(());
        };
        if let Some(code) = error.code() {
            write!(f, " ({code})")?;
        }
        if let Some(table) = error.table() {
            write!(f, " on table {table}")?;
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
    /// The error below, unless its text may echo a value of the request into the log.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if self.0.condition.may_echo_values() {
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

/// Says at the call site what a database error means there.
///
/// Whatever is not meant becomes a [`DbFault`] inside the caller's error type.
pub trait DbResultExt<T> {
    /// A violation of the constraint `name` is this error. For databases that name constraints (Postgres).
    ///
    /// # Errors
    /// `error`, or any other failure as a [`DbFault`].
    fn on_constraint<E: From<DbFault>>(self, name: &str, error: E) -> Result<T, E>;

    /// A violation of any unique key is this error. For every database.
    ///
    /// # Errors
    /// `error`, or any other failure as a [`DbFault`].
    fn on_unique<E: From<DbFault>>(self, error: E) -> Result<T, E>;

    /// A violation of a constraint becomes the variant that was declared with
    /// `#[fault(constraint = "..")]`. For databases that name constraints (Postgres).
    ///
    /// # Errors
    /// The variant, or any other failure as a [`DbFault`].
    fn by_constraint<E: ByConstraint + From<DbFault>>(self) -> Result<T, E>;

    /// No row is this error.
    ///
    /// # Errors
    /// `error`, or any other failure as a [`DbFault`].
    fn or_not_found<E: From<DbFault>>(self, error: E) -> Result<T, E>;
}

impl<T> DbResultExt<T> for Result<T, sqlx::Error> {
    fn on_constraint<E: From<DbFault>>(self, name: &str, error: E) -> Result<T, E> {
        self.map_err(DbFault::from).map_err(|fault| {
            if fault.constraint() == Some(name) {
                error
            } else {
                fault.into()
            }
        })
    }

    fn on_unique<E: From<DbFault>>(self, error: E) -> Result<T, E> {
        self.map_err(DbFault::from)
            .map_err(|fault| match fault.condition() {
                Condition::UniqueViolation => error,
                _ => fault.into(),
            })
    }

    fn by_constraint<E: ByConstraint + From<DbFault>>(self) -> Result<T, E> {
        self.map_err(DbFault::from).map_err(|fault| {
            fault
                .constraint()
                .and_then(E::by_constraint)
                .unwrap_or_else(|| fault.into())
        })
    }

    fn or_not_found<E: From<DbFault>>(self, error: E) -> Result<T, E> {
        self.map_err(|found| match found {
            sqlx::Error::RowNotFound => error,
            found => DbFault::from(found).into(),
        })
    }
}

#[cfg(test)]
mod tests {
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
