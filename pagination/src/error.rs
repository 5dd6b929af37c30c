//! Why there is no page.

use crate::cursor::CursorError;
use crate::request::LimitError;

/// Why a page could not be made. [`is_callers_mistake`](Self::is_callers_mistake) tells a 400 from a 500.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// The page size is out of bounds. The caller's mistake.
    #[error("limit: {0}")]
    Limit(#[from] LimitError),
    /// The cursor was refused. The caller's mistake.
    #[error("{parameter}: {source}")]
    Cursor {
        /// The parameter that it came in, as the request's [`Preset`](crate::Preset) calls it: `after`, `page_token`.
        parameter: &'static str,
        /// What is wrong with it.
        source: CursorError,
    },
    /// A key column declared NOT NULL holds NULL: rows would be lost.
    #[error("the key column {column} is declared not null but holds NULL")]
    NullKey {
        /// Its name.
        column: &'static str,
    },
    /// A key column holds another type than declared: the anchor would be compared wrongly.
    #[error("the key column {column} is declared as {declared} but holds {found}")]
    KeyType {
        /// Its name.
        column: &'static str,
        /// What the order says it holds.
        declared: &'static str,
        /// What the database says it holds.
        found: String,
    },
    /// Two rows share a key although its last column should be unique (a join repeats rows?): the next
    /// page would skip one of them.
    #[error("two rows of the order {order} have the same key")]
    NotUnique {
        /// The order's name.
        order: &'static str,
    },
    /// A row's key is too large for a cursor (about 700 bytes of text).
    #[error("a key of the order {order} is too large for a cursor")]
    KeyTooLarge {
        /// The order's name.
        order: &'static str,
    },
    /// The database failed, or a row could not be decoded.
    #[error("the page could not be read")]
    Database(#[source] sqlx::Error),
}

impl PageError {
    /// Whether the request was wrong, rather than the declaration or the database.
    #[must_use]
    pub const fn is_callers_mistake(&self) -> bool {
        matches!(self, Self::Limit(_) | Self::Cursor { .. })
    }

    pub(crate) const fn database(source: sqlx::Error) -> Self {
        Self::Database(source)
    }

    #[cfg(any(feature = "postgres", feature = "sqlite", feature = "mysql"))]
    pub(crate) fn decode(
        column: &crate::keyset::OrderColumn,
        source: sqlx::error::BoxDynError,
    ) -> Self {
        Self::Database(sqlx::Error::ColumnDecode {
            index: column.name().to_owned(),
            source,
        })
    }

    pub(crate) fn key_type(column: &crate::keyset::OrderColumn, found: &str) -> Self {
        Self::KeyType {
            column: column.name(),
            declared: column.kind().as_str(),
            found: found.to_owned(),
        }
    }
}
