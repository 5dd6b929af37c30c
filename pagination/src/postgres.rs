//! Postgres: how keys are read and bound. Its twin is `sqlite.rs`.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgRow, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{Decode, Encode, Pool, Postgres, QueryBuilder, Row, Type, TypeInfo, ValueRef};
use uuid::Uuid;

use crate::database::{PageDb, RowsFuture, sealed};
use crate::error::PageError;
use crate::key::{Key, KeyKind};
use crate::keyset::OrderColumn;
use crate::micros::UnixMicros;
use crate::seek::Dialect;

/// 2000-01-01, from which Postgres counts, in microseconds since the Unix epoch.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;
/// The first instant Postgres takes (4714-11-24 BC), in microseconds since its own epoch.
const POSTGRES_MIN: i64 = -211_813_488_000_000_000;

/// The OIDs of the two types, as they are in every Postgres.
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;

impl sealed::Sealed for Postgres {}

impl PageDb for Postgres {
    const DIALECT: Dialect = Dialect::POSTGRES;
    const AGREES: (&'static str, &'static str) = ("", "");

    fn bind(query: &mut QueryBuilder<Self>, key: &Key, kind: KeyKind) {
        match key {
            Key::Null => query.push("NULL"),
            Key::Bool(value) => query.push_bind(*value),
            Key::I64(value) => query.push_bind(*value),
            Key::F64Bits(bits) => query.push_bind(f64::from_bits(*bits)),
            Key::Text(value) => query.push_bind(value.as_str()),
            Key::Bytes(value) => query.push_bind(value.as_slice()),
            Key::Uuid(value) => query.push_bind(*value),
            // sqlx panics on a parameter that cannot be encoded; this the database refuses instead.
            Key::Micros(value) if to_postgres(*value).is_err() => {
                query.push("timestamptz '4715-01-01 00:00:00 BC'")
            }
            Key::Micros(value) if kind == KeyKind::Timestamp => {
                query.push_bind(Stamp::<TIMESTAMP>(*value))
            }
            Key::Micros(value) => query.push_bind(Stamp::<TIMESTAMPTZ>(*value)),
        };
    }

    fn bindable(key: &Key) -> bool {
        match key {
            Key::Text(text) => !text.contains('\0'),
            Key::Micros(micros) => to_postgres(*micros).is_ok(),
            _ => true,
        }
    }

    fn read(row: &PgRow, column: &OrderColumn) -> Result<Key, PageError> {
        let value = row
            .try_get_raw(column.name())
            .map_err(PageError::database)?;
        if value.is_null() {
            return Ok(Key::Null);
        }
        // Only the column's own types are taken: an anchor bound as a type that needs a cast, such as text
        // for citext, is compared by other rules than ORDER BY's.
        let info = value.type_info().into_owned();
        let mismatch = || PageError::key_type(column, info.name());
        let key = match (column.kind(), info.name()) {
            (KeyKind::Bool, "BOOL") => get::<bool>(value).map(Key::Bool),
            (KeyKind::I64, "INT2" | "INT4" | "INT8") => get::<i64>(value).map(Key::I64),
            (KeyKind::F64, "FLOAT4") => get::<f32>(value).map(|f| Key::from(f64::from(f))),
            (KeyKind::F64, "FLOAT8") => get::<f64>(value).map(Key::from),
            (KeyKind::Text, "TEXT" | "VARCHAR") => get::<String>(value).map(Key::Text),
            (KeyKind::Bytes, "BYTEA") => get::<Vec<u8>>(value).map(Key::Bytes),
            (KeyKind::Uuid, "UUID") => get::<Uuid>(value).map(Key::Uuid),
            (KeyKind::Timestamptz, "TIMESTAMPTZ") | (KeyKind::Timestamp, "TIMESTAMP") => {
                from_postgres(&value).map(Key::Micros)
            }
            _ => return Err(mismatch()),
        };
        key.map_err(|source| PageError::decode(column, source))
    }

    fn is_some(row: &PgRow, column: &str) -> Result<bool, PageError> {
        row.try_get_raw(column)
            .map(|value| !value.is_null())
            .map_err(PageError::database)
    }

    fn is_blank(row: &PgRow) -> Result<bool, PageError> {
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
}

/// `T::decode`, for this database.
fn get<'r, T: Decode<'r, Postgres>>(value: PgValueRef<'r>) -> Result<T, BoxDynError> {
    T::decode(value)
}

impl Type<Postgres> for UnixMicros {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("timestamptz")
    }
}

impl Encode<'_, Postgres> for UnixMicros {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode(to_postgres(self.0)?, buffer)
    }
}

impl Decode<'_, Postgres> for UnixMicros {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        from_postgres(&value).map(Self)
    }
}

/// A key of the type with this OID. (As a `timestamptz`, a `timestamp` would be compared in the session's time
/// zone.) A type given by its name costs each connection a query to look it up.
struct Stamp<const OID: u32>(i64);

impl<const OID: u32> Type<Postgres> for Stamp<OID> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(OID))
    }
}

impl<const OID: u32> Encode<'_, Postgres> for Stamp<OID> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode(to_postgres(self.0)?, buffer)
    }
}

/// The outermost values are Postgres' infinities, which are outermost there, too.
fn to_postgres(micros: i64) -> Result<i64, BoxDynError> {
    match micros {
        i64::MIN | i64::MAX => Ok(micros),
        _ => micros
            .checked_sub(POSTGRES_EPOCH)
            .filter(|since| *since >= POSTGRES_MIN)
            .ok_or_else(|| "Postgres has no timestamp before 4714 BC".into()),
    }
}

fn from_postgres(value: &PgValueRef<'_>) -> Result<i64, BoxDynError> {
    if value.format() == PgValueFormat::Text {
        return Err("a timestamp in text form; run the query prepared".into());
    }
    let since = i64::from_be_bytes(value.as_bytes()?.try_into()?);
    match since {
        i64::MIN | i64::MAX => Ok(since),
        _ => since
            .checked_add(POSTGRES_EPOCH)
            .filter(|micros| *micros != i64::MAX)
            .ok_or_else(|| {
                "a timestamp after the year 294246 does not fit 64 bits of Unix microseconds".into()
            }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_types_of_keys_need_no_lookup() {
        assert!(
            <Stamp<TIMESTAMP> as Type<Postgres>>::type_info()
                .oid()
                .is_some()
        );
        assert!(
            <Stamp<TIMESTAMPTZ> as Type<Postgres>>::type_info()
                .oid()
                .is_some()
        );
    }

    #[test]
    fn instants_postgres_cannot_hold_are_not_bindable() {
        for (micros, bindable) in [
            (0, true),
            (i64::MAX, true),
            (i64::MAX - 1, true),
            (i64::MIN, true),
            (i64::MIN + 1, false),
            (POSTGRES_MIN + POSTGRES_EPOCH, true),
            (POSTGRES_MIN + POSTGRES_EPOCH - 1, false),
        ] {
            assert_eq!(
                Postgres::bindable(&Key::Micros(micros)),
                bindable,
                "{micros}"
            );
        }
        assert!(!Postgres::bindable(&Key::Text("a\0b".into())));
    }
}
