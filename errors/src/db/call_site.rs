//! What a database error means at one place of the program.

use super::{Condition, DbFault};
use crate::ByConstraint;

/// Says at the call site what a database error means there.
///
/// Whatever is not meant becomes a [`DbFault`] inside the caller's error type.
///
/// ```no_run
/// # #[cfg(all(feature = "derive", feature = "sqlite"))] {
/// use mainstay_errors::Fault;
/// use mainstay_errors::db::{DbFault, DbResultExt};
///
/// #[derive(Debug, thiserror::Error, Fault)]
/// enum OrderError {
///     #[error("there is no such customer")]
///     #[fault(invalid_argument, public, pointer = "/customer")]
///     NoSuchCustomer,
///     #[error(transparent)]
///     #[fault(delegate)]
///     Database(#[from] DbFault),
/// }
///
/// async fn order(pool: &sqlx::SqlitePool, customer: i64) -> Result<(), OrderError> {
///     sqlx::query("INSERT INTO orders (customer_id) VALUES (?)")
///         .bind(customer)
///         .execute(pool)
///         .await
///         .on_foreign_key(OrderError::NoSuchCustomer)?;
///     Ok(())
/// }
/// # }
/// ```
pub trait DbResultExt<T> {
    /// A violation of the constraint `name` is this error.
    ///
    /// For Postgres, the one database that names the constraint in a field. SQLite, MySQL and MariaDB have
    /// the name in the text of their message or not at all, and text is never matched on: there, this
    /// finds nothing, and [`on_unique`](Self::on_unique) and [`on_foreign_key`](Self::on_foreign_key) are
    /// what works.
    ///
    /// # Errors
    /// `error`, or any other failure as a [`DbFault`].
    fn on_constraint<E: From<DbFault>>(self, name: &str, error: E) -> Result<T, E>;

    /// A violation of any unique key is this error. For every database.
    ///
    /// # Errors
    /// `error`, or any other failure as a [`DbFault`].
    fn on_unique<E: From<DbFault>>(self, error: E) -> Result<T, E>;

    /// A violation of any foreign key is this error. For every database.
    ///
    /// Which side was violated is known here, by the statement, and not by every database: an insert
    /// points at something that is not there (`invalid_argument`, or `not_found`), a delete would
    /// remove something that is still pointed at (`failed_precondition`).
    ///
    /// # Errors
    /// `error`, or any other failure as a [`DbFault`].
    fn on_foreign_key<E: From<DbFault>>(self, error: E) -> Result<T, E>;

    /// A violation of a constraint becomes the variant that was declared with
    /// `#[fault(constraint = "..")]`. For Postgres, as [`on_constraint`](Self::on_constraint).
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
        on_condition(self, Condition::UniqueViolation, error)
    }

    fn on_foreign_key<E: From<DbFault>>(self, error: E) -> Result<T, E> {
        on_condition(self, Condition::ForeignKeyViolation, error)
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
        on_condition(self, Condition::RowNotFound, error)
    }
}

fn on_condition<T, E: From<DbFault>>(
    result: Result<T, sqlx::Error>,
    condition: Condition,
    error: E,
) -> Result<T, E> {
    result.map_err(DbFault::from).map_err(|fault| {
        if fault.condition() == condition {
            error
        } else {
            fault.into()
        }
    })
}
