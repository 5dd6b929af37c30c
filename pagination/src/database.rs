//! What pagination needs of a database, so that generic code needs one bound: `D: PageDb`.

use std::pin::Pin;

use sqlx::{Database, Pool, QueryBuilder};

use crate::error::PageError;
use crate::key::{Key, KeyKind};
use crate::keyset::OrderColumn;
use crate::quoted::Quoted;
use crate::seek::Dialect;

/// A database that can be paged through: `sqlx::Postgres`, `sqlx::Sqlite` and `sqlx::MySql`, by feature. Sealed.
///
/// Generic code needs this bound, and one on the row type:
///
/// ```
/// use mainstay_pagination::{Column, CursorCodec, KeysetDef, Page, PageDb, PageError, PageRequest, PushKey, UnixMicros};
/// use sqlx::{FromRow, Pool, QueryBuilder};
///
/// #[derive(FromRow)]
/// struct Payment { id: uuid::Uuid, created_at: UnixMicros }
///
/// const NEWEST: KeysetDef = KeysetDef::new("payments.newest")
///     .desc(Column::timestamptz("created_at").not_null())
///     .unique_desc(Column::uuid("id").not_null());
///
/// async fn list<D: PageDb>(
///     pool: &Pool<D>, codec: &CursorCodec, tenant: &str, request: &PageRequest,
/// ) -> Result<Page<Payment>, PageError>
/// where
///     Payment: for<'r> FromRow<'r, D::Row>,
/// {
///     NEWEST
///         .select(|q: &mut QueryBuilder<D>| {
///             q.push("SELECT id, created_at FROM payment WHERE tenant = ").push_key(tenant);
///         })
///         .bind_to(("payments", tenant))
///         .fetch(pool, request, codec)
///         .await
/// }
/// ```
///
/// `push_key` is `push_bind` without a bound per type; a transaction is passed as `&mut *tx`.
pub trait PageDb: Database + sealed::Sealed {
    /// Its planner settings.
    #[doc(hidden)]
    const DIALECT: Dialect;

    /// What stands before and after agreement with the anchor (`c = ?`, `c IS NULL`), to tell the planner
    /// that it is the way in.
    #[doc(hidden)]
    const AGREES: (&'static str, &'static str);

    /// Pushes the value as a bind parameter of the column's own type. With a value that is not
    /// [`bindable`](Self::bindable) the statement fails or finds nothing; it never panics.
    #[doc(hidden)]
    fn bind(query: &mut QueryBuilder<Self>, key: &Key, kind: KeyKind);

    /// Whether the database can hold the value at all; only a cursor that is not signed can name another.
    #[doc(hidden)]
    fn bindable(key: &Key) -> bool;

    /// Reads a row's key.
    #[doc(hidden)]
    fn read(row: &Self::Row, column: &OrderColumn) -> Result<Key, PageError>;

    /// Reads the probe's answer: whether the column of this name is not NULL.
    #[doc(hidden)]
    fn is_some(row: &Self::Row, column: &str) -> Result<bool, PageError>;

    /// Whether all columns but the last, which is the probe's, are NULL.
    #[doc(hidden)]
    fn is_blank(row: &Self::Row) -> Result<bool, PageError>;

    /// What makes a query tell how many rows the planner expects, if the database can.
    #[doc(hidden)]
    const EXPLAIN_ROWS: Option<&'static str>;

    /// Reads the answer to that.
    #[doc(hidden)]
    fn explained_rows(rows: &[Self::Row]) -> Result<u64, PageError>;

    /// Has the statement explained, for [`seeks`](crate::seeks).
    #[cfg(feature = "proof")]
    #[doc(hidden)]
    fn judge(
        connection: &mut Self::Connection,
        query: QueryBuilder<Self>,
        claim: crate::proof::Claim,
    ) -> impl Future<Output = Result<crate::proof::Verdict, sqlx::Error>> + Send;

    #[doc(hidden)]
    fn pool_rows(pool: &Pool<Self>, query: QueryBuilder<Self>) -> RowsFuture<'_, Self>;

    #[doc(hidden)]
    fn connection_rows(
        connection: &mut Self::Connection,
        query: QueryBuilder<Self>,
    ) -> RowsFuture<'_, Self>;
}

/// What is the same on every database but for the types, which sqlx' generics would ask a bound each for.
#[cfg(any(feature = "postgres", feature = "sqlite", feature = "mysql"))]
macro_rules! common {
    ($row:ty) => {
        fn is_some(row: &$row, column: &str) -> Result<bool, PageError> {
            row.try_get_raw(column)
                .map(|value| !value.is_null())
                .map_err(PageError::database)
        }

        fn is_blank(row: &$row) -> Result<bool, PageError> {
            for i in 0..row.len().saturating_sub(1) {
                if !row.try_get_raw(i).map_err(PageError::database)?.is_null() {
                    return Ok(false);
                }
            }
            Ok(true)
        }

        fn pool_rows(pool: &Pool<Self>, mut query: QueryBuilder<Self>) -> RowsFuture<'_, Self> {
            Box::pin(async move { query.build().fetch_all(pool).await })
        }

        fn connection_rows(
            connection: &mut Self::Connection,
            mut query: QueryBuilder<Self>,
        ) -> RowsFuture<'_, Self> {
            Box::pin(async move { query.build().fetch_all(connection).await })
        }
    };
}

#[cfg(any(feature = "postgres", feature = "sqlite", feature = "mysql"))]
pub(crate) use common;

pub(crate) mod sealed {
    pub trait Sealed {}
}

/// Rows on their way.
pub(crate) type RowsFuture<'e, D> =
    Pin<Box<dyn Future<Output = Result<Vec<<D as Database>::Row>, sqlx::Error>> + Send + 'e>>;

/// Where a page can be fetched from: `&Pool<D>`, or `&mut D::Connection` (for a transaction or a pooled
/// connection: `&mut *tx`).
///
/// sqlx's `Executor` is implemented for the same two, but asks generic code for a bound of its own.
pub trait PageSource<D: PageDb>: Send {
    /// Runs the query and collects its rows.
    #[doc(hidden)]
    fn rows(&mut self, query: QueryBuilder<D>) -> RowsFuture<'_, D>;
}

impl<D: PageDb> PageSource<D> for &Pool<D> {
    fn rows(&mut self, query: QueryBuilder<D>) -> RowsFuture<'_, D> {
        D::pool_rows(self, query)
    }
}

impl<D: PageDb> PageSource<D> for &mut <D as Database>::Connection {
    fn rows(&mut self, query: QueryBuilder<D>) -> RowsFuture<'_, D> {
        D::connection_rows(self, query)
    }
}

/// `push_bind` for generic code: any value that can be a [`Key`], without a bound per type and database.
pub trait PushKey {
    /// Pushes the value as a bind parameter (NULL as the word). Timestamps are bound as `timestamptz` on
    /// Postgres, integers as `int8`.
    ///
    /// It never panics, whatever the value, where `push_bind` panics on one that cannot be encoded. Postgres
    /// answers text with a NUL, and an instant before 4714 BC, with an error: check a client's filter first if
    /// that should be a 400.
    fn push_key(&mut self, value: impl Into<Key>) -> &mut Self;
}

impl<D: PageDb> PushKey for QueryBuilder<D> {
    fn push_key(&mut self, value: impl Into<Key>) -> &mut Self {
        let key = value.into();
        let kind = match key {
            Key::Null => return self.push("NULL"),
            Key::Bool(_) => KeyKind::Bool,
            Key::I64(_) => KeyKind::I64,
            Key::U64(_) => KeyKind::U64,
            Key::F64Bits(_) => KeyKind::F64,
            Key::Decimal(_) => KeyKind::Decimal,
            Key::Text(_) => KeyKind::Text,
            Key::Bytes(_) => KeyKind::Bytes,
            Key::Uuid(_) => KeyKind::Uuid,
            Key::Micros(_) => KeyKind::Timestamptz,
            Key::Date(_) => KeyKind::Date,
            Key::Time(_) => KeyKind::Time,
        };
        D::bind(self, &key, kind);
        self
    }
}

/// An index hint for generic code.
pub trait PushIndexHint {
    /// Behind the table's name: makes MySQL and MariaDB read the table by this index.
    ///
    /// They would rather read all rows of the filter's columns (`ref`) than a range that begins at the cursor, and
    /// throw away what lies before it: with a filter on an index's first column, 6 to 13 ms instead of 0.2 ms in a
    /// tenant of 200,000 rows. Postgres and SQLite choose right by themselves; for them nothing is written.
    ///
    /// The name is written into the statement, so it must not come from a client.
    fn push_index_hint(&mut self, index: &'static str) -> &mut Self;
}

impl<D: PageDb> PushIndexHint for QueryBuilder<D> {
    fn push_index_hint(&mut self, index: &'static str) -> &mut Self {
        match D::DIALECT {
            Dialect::Mysql => {
                let name = Quoted(Dialect::Mysql, index);
                self.push(" FORCE INDEX (").push(name).push(")")
            }
            Dialect::Postgres | Dialect::Sqlite => self,
        }
    }
}
