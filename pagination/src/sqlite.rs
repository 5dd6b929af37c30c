//! SQLite: how keys are read and bound. Its twin is `postgres.rs`.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::sqlite::{SqliteArgumentsBuffer, SqliteRow, SqliteTypeInfo, SqliteValueRef};
use sqlx::{Decode, Encode, Pool, QueryBuilder, Row, Sqlite, Type, TypeInfo, ValueRef};
use uuid::Uuid;

use crate::database::{PageDb, RowsFuture, common, sealed};
use crate::decimal;
use crate::error::PageError;
use crate::key::{Key, KeyKind};
use crate::keyset::OrderColumn;
use crate::micros::UnixMicros;
use crate::seek::Dialect;

impl sealed::Sealed for Sqlite {}

impl PageDb for Sqlite {
    const DIALECT: Dialect = Dialect::Sqlite;
    // SQLite weighs ranges as if they were read whole, whatever the LIMIT. With ANALYZE and many rows that
    // share a value it would rather walk the rowid and filter; a small likelihood makes it take the index.
    const AGREES: (&'static str, &'static str) = ("likelihood(", ", 0.0001)");

    fn bind(query: &mut QueryBuilder<Self>, key: &Key, _: KeyKind) {
        match key {
            Key::Null => query.push("NULL"),
            Key::Bool(value) => query.push_bind(i64::from(*value)),
            Key::I64(value) | Key::Micros(value) => query.push_bind(*value),
            Key::U64(value) => match i64::try_from(*value) {
                Ok(value) => query.push_bind(value),
                Err(_) => query.push("NULL"),
            },
            Key::F64Bits(bits) => query.push_bind(f64::from_bits(*bits)),
            // As the column has it: an integer if it is one, otherwise a float.
            Key::Decimal(text) => match (text.parse::<i64>(), text.parse::<f64>()) {
                (Ok(integer), _) => query.push_bind(integer),
                (_, Ok(float)) => query.push_bind(float),
                _ => query.push("NULL"),
            },
            Key::Date(days) => query.push_bind(i64::from(*days)),
            Key::Time(micros) => query.push_bind(*micros),
            Key::Text(value) => query.push_bind(value.as_str()),
            Key::Bytes(value) => query.push_bind(value.as_slice()),
            Key::Uuid(value) => query.push_bind(*value),
        };
    }

    fn bindable(key: &Key) -> bool {
        match key {
            // SQLite keeps NaN as NULL.
            Key::F64Bits(bits) => !f64::from_bits(*bits).is_nan(),
            Key::Decimal(text) => text.parse::<f64>().is_ok_and(|float| !float.is_nan()),
            Key::U64(value) => i64::try_from(*value).is_ok(),
            _ => true,
        }
    }

    fn read(row: &SqliteRow, column: &OrderColumn) -> Result<Key, PageError> {
        let value = row
            .try_get_raw(column.name())
            .map_err(PageError::database)?;
        if value.is_null() {
            return Ok(Key::Null);
        }
        // The value's own storage class, not the declared type: SQLite compares by class first, so an
        // anchor of another class would stand before or after all of the column.
        let info = value.type_info().into_owned();
        let mismatch = || PageError::key_type(column, info.name());
        let key = match (column.kind(), info.name()) {
            (KeyKind::Bool, "INTEGER") => match get::<i64>(value) {
                Ok(n @ (0 | 1)) => Ok(Key::Bool(n == 1)),
                Ok(_) => return Err(mismatch()),
                Err(error) => Err(error),
            },
            (KeyKind::I64, "INTEGER") => get::<i64>(value).map(Key::I64),
            (KeyKind::U64, "INTEGER") => match get::<i64>(value).map(u64::try_from) {
                Ok(Ok(n)) => Ok(Key::U64(n)),
                Ok(Err(_)) => return Err(mismatch()),
                Err(error) => Err(error),
            },
            (KeyKind::F64, "REAL") => get::<f64>(value).map(Key::from),
            (KeyKind::Decimal, "INTEGER") => get::<i64>(value).map(|n| Key::Decimal(n.to_string())),
            (KeyKind::Decimal, "REAL") => {
                get::<f64>(value).map(|f| Key::Decimal(decimal::of_f64(f)))
            }
            (KeyKind::Date, "INTEGER") => match get::<i64>(value).map(i32::try_from) {
                Ok(Ok(days)) => Ok(Key::Date(days)),
                Ok(Err(_)) => return Err(mismatch()),
                Err(error) => Err(error),
            },
            (KeyKind::Time, "INTEGER") => get::<i64>(value).map(Key::Time),
            (KeyKind::Text, "TEXT") => get::<String>(value).map(Key::Text),
            (KeyKind::Bytes, "BLOB") => get::<Vec<u8>>(value).map(Key::Bytes),
            (KeyKind::Uuid, "BLOB") => get::<Uuid>(value).map(Key::Uuid),
            (KeyKind::Timestamptz | KeyKind::Timestamp, "INTEGER") => {
                get::<i64>(value).map(Key::Micros)
            }
            _ => return Err(mismatch()),
        };
        key.map_err(|source| PageError::decode(column, source))
    }

    common!(SqliteRow);

    const EXPLAIN_ROWS: Option<&'static str> = None;

    fn explained_rows(_: &[SqliteRow]) -> Result<u64, PageError> {
        Ok(0)
    }

    #[cfg(feature = "proof")]
    async fn judge(
        connection: &mut Self::Connection,
        query: QueryBuilder<Self>,
        claim: crate::proof::Claim,
    ) -> Result<crate::proof::Verdict, sqlx::Error> {
        crate::proof::sqlite::judge(connection, query, &claim).await
    }
}

/// `T::decode`, for this database.
fn get<'r, T: Decode<'r, Sqlite>>(value: SqliteValueRef<'r>) -> Result<T, BoxDynError> {
    T::decode(value)
}

impl Type<Sqlite> for UnixMicros {
    fn type_info() -> SqliteTypeInfo {
        <i64 as Type<Sqlite>>::type_info()
    }

    fn compatible(info: &SqliteTypeInfo) -> bool {
        <i64 as Type<Sqlite>>::compatible(info)
    }
}

impl Encode<'_, Sqlite> for UnixMicros {
    fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Sqlite>::encode(self.0, buffer)
    }
}

impl Decode<'_, Sqlite> for UnixMicros {
    fn decode(value: SqliteValueRef<'_>) -> Result<Self, BoxDynError> {
        get::<i64>(value).map(Self)
    }
}
