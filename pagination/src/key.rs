//! Sort key values as a cursor carries them: read from a row, bound to the next query, never compared here.
//!
//! Only the database decides which of two keys comes first (collation, NaN, time zones), so [`Key`] has
//! no order. Each value keeps every bit the database gave: timestamps to its own microsecond, floats by
//! their bits, text and bytes as they are.

use std::fmt;
use std::ops::Deref;

use uuid::Uuid;

use crate::keyset::COLUMNS_MAX;

/// What a key column holds, and therefore how it is read from a row and bound to a query.
///
/// The kind names the column's own type in each database; a value of another type in that column is an
/// error when the row is read, because an anchor bound as another type may compare differently or keep
/// the index from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyKind {
    /// Postgres `bool`, SQLite `INTEGER` 0 or 1.
    Bool,
    /// Postgres `int2`, `int4` or `int8`, SQLite `INTEGER`, the signed integers of MySQL and MariaDB.
    I64,
    /// The unsigned integers of MySQL and MariaDB; an integer that is never negative elsewhere.
    U64,
    /// Postgres `float4` or `float8`, SQLite `REAL`, MySQL and MariaDB `DOUBLE`.
    F64,
    /// Postgres `numeric`, MySQL and MariaDB `DECIMAL`, SQLite a column of numeric affinity, whose values are
    /// integers or floats there.
    Decimal,
    /// Postgres `text` or `varchar`, SQLite `TEXT`. Compared by the database, in the column's collation.
    Text,
    /// Postgres `bytea`, SQLite `BLOB`.
    Bytes,
    /// Postgres `uuid`, SQLite `BLOB` of 16 bytes.
    Uuid,
    /// Postgres `timestamptz`, SQLite `INTEGER` microseconds since the Unix epoch.
    Timestamptz,
    /// Postgres `timestamp` (without time zone), SQLite `INTEGER` microseconds since the Unix epoch.
    Timestamp,
    /// `date`, SQLite `INTEGER` days since the Unix epoch.
    Date,
    /// `time` (without time zone), SQLite `INTEGER` microseconds since midnight.
    Time,
}

impl KeyKind {
    /// The kind's name as it enters the order's fingerprint; never change one.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::I64 => "i64",
            Self::F64 => "f64",
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Uuid => "uuid",
            Self::Timestamptz => "timestamptz",
            Self::Timestamp => "timestamp",
            Self::U64 => "u64",
            Self::Decimal => "decimal",
            Self::Date => "date",
            Self::Time => "time",
        }
    }
}

/// One value of a row's sort key.
///
/// Floats are compared by bits here (`PartialEq` on [`Key::F64Bits`]), so that NaN equals itself and a
/// round trip can be asserted; the database's own comparison decides the order of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Key {
    /// SQL NULL.
    #[default]
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    I64(i64),
    /// An integer that is never negative.
    U64(u64),
    /// A float, as the bits of its IEEE 754 double.
    F64Bits(u64),
    /// A decimal as text, with the digits behind the point that the database gave: `-12.50`, or `NaN`, `Infinity`
    /// and `-Infinity` of Postgres.
    Decimal(String),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A UUID.
    Uuid(Uuid),
    /// Microseconds since the Unix epoch; `i64::MAX` and `i64::MIN` are Postgres' `infinity` and `-infinity`.
    Micros(i64),
    /// Days since the Unix epoch; `i32::MAX` and `i32::MIN` are Postgres' `infinity` and `-infinity`.
    Date(i32),
    /// Microseconds since midnight. (A `TIME` of MySQL and MariaDB may be negative or beyond a day.)
    Time(i64),
}

impl Key {
    /// Whether the value may stand in a column of this kind. NULL fits every kind; whether the column
    /// admits it is the column's own business.
    #[must_use]
    pub const fn fits(&self, kind: KeyKind) -> bool {
        matches!(
            (self, kind),
            (Self::Null, _)
                | (Self::Bool(_), KeyKind::Bool)
                | (Self::I64(_), KeyKind::I64)
                | (Self::U64(_), KeyKind::U64)
                | (Self::Decimal(_), KeyKind::Decimal)
                | (Self::F64Bits(_), KeyKind::F64)
                | (Self::Text(_), KeyKind::Text)
                | (Self::Bytes(_), KeyKind::Bytes)
                | (Self::Uuid(_), KeyKind::Uuid)
                | (Self::Micros(_), KeyKind::Timestamptz | KeyKind::Timestamp)
                | (Self::Date(_), KeyKind::Date)
                | (Self::Time(_), KeyKind::Time)
        )
    }

    /// The value as a column of this kind holds it, where its type says less: an integer that is an instant, text that
    /// is a decimal. Any other value stays what it is.
    #[doc(hidden)]
    #[must_use]
    pub fn of_kind(self, kind: KeyKind) -> Self {
        match (self, kind) {
            (Self::I64(n), KeyKind::Timestamptz | KeyKind::Timestamp) => Self::Micros(n),
            (Self::I64(n), KeyKind::Time) => Self::Time(n),
            (Self::I64(n), KeyKind::Date) => i32::try_from(n).map_or(Self::I64(n), Self::Date),
            (Self::I64(n), KeyKind::U64) => u64::try_from(n).map_or(Self::I64(n), Self::U64),
            (Self::I64(n @ (0 | 1)), KeyKind::Bool) => Self::Bool(n == 1),
            (Self::U64(n), KeyKind::I64) => i64::try_from(n).map_or(Self::U64(n), Self::I64),
            (Self::Text(text), KeyKind::Decimal) => Self::Decimal(text),
            (key, _) => key,
        }
    }

    /// Whether the value is NULL.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

/// The keys of one row, in the order's columns: what [`CursorCodec::decode`](crate::CursorCodec::decode) reads. A slice
/// of [`Key`]s that needs no heap for up to three.
#[derive(Clone)]
pub struct Keys(Inline);

/// Most orders have two columns, and what is moved about is better small.
const INLINE: usize = 3;

#[derive(Clone)]
enum Inline {
    Few([Key; INLINE], usize),
    Many(Vec<Key>),
}

impl Keys {
    pub(crate) const fn new() -> Self {
        Self(Inline::Few([const { Key::Null }; INLINE], 0))
    }

    #[inline]
    pub(crate) fn push(&mut self, key: Key) {
        match &mut self.0 {
            Inline::Few(keys, len) => match keys.get_mut(*len) {
                Some(next) => {
                    *next = key;
                    *len += 1;
                }
                None => {
                    let mut all = Vec::with_capacity(COLUMNS_MAX);
                    all.extend(keys.iter_mut().map(std::mem::take));
                    all.push(key);
                    self.0 = Inline::Many(all);
                }
            },
            Inline::Many(keys) => keys.push(key),
        }
    }
}

/// # Panics
/// With more than [`COLUMNS_MAX`] keys, while it is compiled.
impl<const N: usize> From<[Key; N]> for Keys {
    fn from(keys: [Key; N]) -> Self {
        const {
            assert!(N <= COLUMNS_MAX, "an order has at most COLUMNS_MAX columns");
        }
        let mut all = Self::new();
        for key in keys {
            all.push(key);
        }
        all
    }
}

impl Deref for Keys {
    type Target = [Key];

    fn deref(&self) -> &[Key] {
        match &self.0 {
            Inline::Few(keys, len) => keys.get(..*len).unwrap_or_default(),
            Inline::Many(keys) => keys,
        }
    }
}

impl From<Keys> for Vec<Key> {
    fn from(keys: Keys) -> Self {
        match keys.0 {
            Inline::Few(keys, len) => keys.into_iter().take(len).collect(),
            Inline::Many(keys) => keys,
        }
    }
}

impl PartialEq<[Key]> for Keys {
    fn eq(&self, other: &[Key]) -> bool {
        **self == *other
    }
}

impl PartialEq for Keys {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Keys {}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl From<bool> for Key {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i32> for Key {
    fn from(value: i32) -> Self {
        Self::I64(i64::from(value))
    }
}

impl From<i64> for Key {
    fn from(value: i64) -> Self {
        Self::I64(value)
    }
}

impl From<u64> for Key {
    fn from(value: u64) -> Self {
        Self::U64(value)
    }
}

impl From<f64> for Key {
    fn from(value: f64) -> Self {
        Self::F64Bits(value.to_bits())
    }
}

impl From<&str> for Key {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Key {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&[u8]> for Key {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(value.to_vec())
    }
}

impl From<Vec<u8>> for Key {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(value)
    }
}

impl From<Uuid> for Key {
    fn from(value: Uuid) -> Self {
        Self::Uuid(value)
    }
}
