//! Sort key values as a cursor carries them: read from a row, bound to the next query, never compared here.
//!
//! Only the database decides which of two keys comes first (collation, NaN, time zones), so [`Key`] has
//! no order. Each value keeps every bit the database gave: timestamps to its own microsecond, floats by
//! their bits, text and bytes as they are.

use uuid::Uuid;

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
    /// Postgres `int2`, `int4` or `int8`, SQLite `INTEGER`.
    I64,
    /// Postgres `float4` or `float8`, SQLite `REAL`.
    F64,
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
        }
    }
}

/// One value of a row's sort key.
///
/// Floats are compared by bits here (`PartialEq` on [`Key::F64Bits`]), so that NaN equals itself and a
/// round trip can be asserted; the database's own comparison decides the order of rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Key {
    /// SQL NULL.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    I64(i64),
    /// A float, as the bits of its IEEE 754 double.
    F64Bits(u64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A UUID.
    Uuid(Uuid),
    /// Microseconds since the Unix epoch; `i64::MAX` and `i64::MIN` are Postgres' `infinity` and `-infinity`.
    Micros(i64),
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
                | (Self::F64Bits(_), KeyKind::F64)
                | (Self::Text(_), KeyKind::Text)
                | (Self::Bytes(_), KeyKind::Bytes)
                | (Self::Uuid(_), KeyKind::Uuid)
                | (Self::Micros(_), KeyKind::Timestamptz | KeyKind::Timestamp)
        )
    }

    /// Whether the value is NULL.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
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
