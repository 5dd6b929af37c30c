//! Postgres: how keys are read and bound. Its twin is `sqlite.rs`.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgRow, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{Decode, Encode, Pool, Postgres, QueryBuilder, Row, Type, TypeInfo, ValueRef};
use uuid::Uuid;

use crate::database::{PageDb, RowsFuture, common, sealed};
use crate::decimal;
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
/// 2000-01-01, from which Postgres counts days, in days since the Unix epoch.
const POSTGRES_EPOCH_DAYS: i32 = 10_957;
/// The first day Postgres takes and the first that it does not (5874898-06-03), in days since its own epoch.
const POSTGRES_DAYS: std::ops::Range<i32> = -2_451_545..2_145_031_949;
/// 24:00:00, which is a time of day on Postgres, in microseconds.
const MIDNIGHT: i64 = 86_400_000_000;

impl sealed::Sealed for Postgres {}

impl PageDb for Postgres {
    const DIALECT: Dialect = Dialect::Postgres;
    const AGREES: (&'static str, &'static str) = ("", "");

    fn bind(query: &mut QueryBuilder<Self>, key: &Key, kind: KeyKind) {
        match key {
            Key::Null => query.push("NULL"),
            Key::Bool(value) => query.push_bind(*value),
            Key::I64(value) => query.push_bind(*value),
            Key::U64(value) => match i64::try_from(*value) {
                Ok(value) => query.push_bind(value),
                Err(_) => query.push("NULL"),
            },
            Key::F64Bits(bits) => query.push_bind(f64::from_bits(*bits)),
            // The cast is of the parameter, not of the column: the index serves as before.
            Key::Decimal(text) => query
                .push("CAST(")
                .push_bind(text.as_str())
                .push(" AS numeric)"),
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
            Key::Date(days) => match to_postgres_days(*days) {
                Some(days) => query.push_bind(Days(days)),
                None => query.push("date '4715-01-01 BC'"),
            },
            Key::Time(micros) if (0..=MIDNIGHT).contains(micros) => {
                query.push_bind(TimeOfDay(*micros))
            }
            Key::Time(_) => query.push("time '24:00:01'"),
        };
    }

    fn bindable(key: &Key) -> bool {
        match key {
            Key::Text(text) => !text.contains('\0'),
            Key::Micros(micros) => to_postgres(*micros).is_ok(),
            Key::U64(value) => i64::try_from(*value).is_ok(),
            Key::Date(days) => to_postgres_days(*days).is_some(),
            Key::Time(micros) => (0..=MIDNIGHT).contains(micros),
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
            (KeyKind::U64, "INT2" | "INT4" | "INT8") => {
                match get::<i64>(value).map(u64::try_from) {
                    Ok(Ok(n)) => Ok(Key::U64(n)),
                    Ok(Err(_)) => return Err(mismatch()),
                    Err(error) => Err(error),
                }
            }
            (KeyKind::Decimal, "NUMERIC") => binary(&value)
                .and_then(decimal::of_numeric)
                .map(Key::Decimal),
            (KeyKind::Date, "DATE") => from_postgres_days(&value).map(Key::Date),
            (KeyKind::Time, "TIME") => binary(&value)
                .and_then(|bytes| Ok(Key::Time(i64::from_be_bytes(bytes.try_into()?)))),
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

    common!(PgRow);

    const EXPLAIN_ROWS: Option<&'static str> = Some("EXPLAIN ");

    fn explained_rows(rows: &[PgRow]) -> Result<u64, PageError> {
        let Some(row) = rows.first() else {
            return Ok(0);
        };
        // `Seq Scan on t  (cost=0.00..13.70 rows=370 width=36)`
        let line: String = row.try_get(0).map_err(PageError::database)?;
        let digits = line.split_once(" rows=").map(|(_, rest)| rest);
        let digits = digits.and_then(|rest| rest.split(' ').next());
        Ok(digits.and_then(|rows| rows.parse().ok()).unwrap_or(0))
    }

    #[cfg(feature = "proof")]
    async fn judge(
        connection: &mut Self::Connection,
        query: QueryBuilder<Self>,
        claim: crate::proof::Claim,
    ) -> Result<crate::proof::Verdict, sqlx::Error> {
        crate::proof::postgres::judge(connection, query, &claim).await
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

/// A `date`, in Postgres' own days.
struct Days(i32);

impl Type<Postgres> for Days {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1082))
    }
}

impl Encode<'_, Postgres> for Days {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode(self.0, buffer)
    }
}

/// A `time`, in microseconds since midnight.
struct TimeOfDay(i64);

impl Type<Postgres> for TimeOfDay {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1083))
    }
}

impl Encode<'_, Postgres> for TimeOfDay {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode(self.0, buffer)
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

/// A value's bytes, which are binary in the answers of prepared statements.
fn binary<'r>(value: &PgValueRef<'r>) -> Result<&'r [u8], BoxDynError> {
    if value.format() == PgValueFormat::Text {
        return Err("a key in text form; run the query prepared".into());
    }
    value.as_bytes()
}

fn to_postgres_days(days: i32) -> Option<i32> {
    match days {
        i32::MIN | i32::MAX => Some(days),
        _ => days
            .checked_sub(POSTGRES_EPOCH_DAYS)
            .filter(|since| POSTGRES_DAYS.contains(since)),
    }
}

fn from_postgres_days(value: &PgValueRef<'_>) -> Result<i32, BoxDynError> {
    let since = i32::from_be_bytes(binary(value)?.try_into()?);
    match since {
        i32::MIN | i32::MAX => Ok(since),
        // The last day of Postgres is a million days short of what fits.
        _ => Ok(since.saturating_add(POSTGRES_EPOCH_DAYS)),
    }
}

fn from_postgres(value: &PgValueRef<'_>) -> Result<i64, BoxDynError> {
    let since = i64::from_be_bytes(binary(value)?.try_into()?);
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
