//! A column of an order: what it holds, and what was said about its NULLs.

use std::marker::PhantomData;

use crate::key::KeyKind;
use crate::keyed::KeyValue;
use crate::keyset::Nulls;

/// Nothing has been said about NULL yet; such a column cannot enter an order.
#[derive(Clone, Copy, Debug)]
pub enum Undecided {}
/// The column is `NOT NULL` in the database.
#[derive(Clone, Copy, Debug)]
pub enum NotNull {}
/// The column may be NULL, and it was said where NULL stands.
#[derive(Clone, Copy, Debug)]
pub enum Nullable {}

/// A key column of the base query, by its output name.
///
/// The name is the one the base query's result has: for `SELECT lower(name) AS name_key ...` it is
/// `name_key`, for `SELECT p.created_at ...` it is `created_at`. Expressions and joined columns are
/// therefore ordinary columns.
///
/// A column must say [`not_null`](Column::not_null), [`nulls_first`](Column::nulls_first) or
/// [`nulls_last`](Column::nulls_last) before it can enter an order: calling a nullable column NOT NULL
/// loses its NULL rows, and databases disagree about where NULL stands by default.
#[derive(Clone, Copy, Debug)]
pub struct Column<N = Undecided> {
    pub(crate) name: &'static str,
    pub(crate) kind: KeyKind,
    pub(crate) nulls: Option<Nulls>,
    pub(crate) joined: bool,
    decided: PhantomData<N>,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[must_use]
        pub const fn $name(name: &'static str) -> Self {
            Self { name, kind: KeyKind::$kind, nulls: None, joined: false, decided: PhantomData }
        }
    )*};
}

impl Column<Undecided> {
    constructors! {
        /// A boolean: Postgres `bool`, SQLite `INTEGER` 0 or 1, MySQL and MariaDB `BOOLEAN`.
        bool => Bool,
        /// An integer: Postgres `int2`, `int4` or `int8`, SQLite `INTEGER`, the signed integers of MySQL and MariaDB.
        i64 => I64,
        /// An integer that is never negative: the unsigned integers of MySQL and MariaDB, or one of the integers of
        /// the others.
        u64 => U64,
        /// A float: Postgres `float4` or `float8`, SQLite `REAL`, MySQL and MariaDB `DOUBLE`.
        ///
        /// Carried by its bits. NaN is a value on Postgres, above all others; SQLite and MySQL have none.
        f64 => F64,
        /// A decimal: Postgres `numeric`, MySQL and MariaDB `DECIMAL`. Carried as text, so that none is rounded.
        ///
        /// SQLite has no decimals: in a column of numeric affinity (`DECIMAL(10, 2)`) it keeps integers and floats, and
        /// those are the keys.
        decimal => Decimal,
        /// Text: Postgres `text` or `varchar`, SQLite `TEXT`, MySQL and MariaDB `VARCHAR`, `CHAR` or `TEXT` (not ENUM or SET).
        ///
        /// All keys of a row together fit a cursor up to about 700 bytes; a page that begins or ends at a longer
        /// one is an error (`PageError::KeyTooLarge`). Where users write the text, bound it: in the table,
        /// or with a column such as `left(title, 100) AS title_key` and an index on that expression.
        text => Text,
        /// Bytes: Postgres `bytea`, SQLite `BLOB`, MySQL and MariaDB `VARBINARY`, `BINARY` or `BLOB`.
        bytes => Bytes,
        /// A UUID: Postgres `uuid`, SQLite `BLOB` of 16 bytes, MySQL and MariaDB `BINARY(16)`.
        uuid => Uuid,
        /// An instant: Postgres `timestamptz`, SQLite `INTEGER` microseconds since the Unix epoch, MySQL and MariaDB
        /// `TIMESTAMP(6)` or a `DATETIME(6)` in UTC.
        timestamptz => Timestamptz,
        /// A local time: Postgres `timestamp`, SQLite `INTEGER` microseconds since the Unix epoch, MySQL and MariaDB
        /// `DATETIME(6)`.
        timestamp => Timestamp,
        /// A date: `date`, SQLite `INTEGER` days since the Unix epoch. (A date that SQLite keeps as text is a
        /// [`text`](Self::text) column.)
        date => Date,
        /// A time of day: `time` without time zone, SQLite `INTEGER` microseconds since midnight.
        time => Time,
    }

    /// A column that holds what the type says, as [`KeyValue`](crate::KeyValue) has it.
    #[must_use]
    pub const fn of<T: KeyValue>(name: &'static str) -> Self {
        Self {
            kind: T::KIND,
            ..Self::bool(name)
        }
    }

    /// The database declares the column NOT NULL. If that is not so, rows are lost: a NULL never compares.
    #[must_use]
    pub const fn not_null(self) -> Column<NotNull> {
        Column {
            name: self.name,
            kind: self.kind,
            nulls: None,
            joined: self.joined,
            decided: PhantomData,
        }
    }

    /// The column may be NULL, and its NULLs come before its values (whatever the direction).
    #[must_use]
    pub const fn nulls_first(self) -> Column<Nullable> {
        Column {
            name: self.name,
            kind: self.kind,
            nulls: Some(Nulls::First),
            joined: self.joined,
            decided: PhantomData,
        }
    }

    /// The column may be NULL, and its NULLs come after its values (whatever the direction).
    #[must_use]
    pub const fn nulls_last(self) -> Column<Nullable> {
        Column {
            name: self.name,
            kind: self.kind,
            nulls: Some(Nulls::Last),
            joined: self.joined,
            decided: PhantomData,
        }
    }
}

impl<N> Column<N> {
    /// The column comes from another table than the unique column.
    ///
    /// A row value over two tables is no seek anywhere, so Postgres gets such a column as a range of its own.
    /// The order is the same with and without; an index on the column alone serves.
    #[must_use]
    pub const fn joined(mut self) -> Self {
        self.joined = true;
        self
    }
}

/// A column about whose NULLs something was said: [`NotNull`] or [`Nullable`]. Sealed.
pub trait Decided: sealed::Sealed + Copy {}
impl Decided for NotNull {}
impl Decided for Nullable {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::NotNull {}
    impl Sealed for super::Nullable {}
}
