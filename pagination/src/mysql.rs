//! MySQL and MariaDB: how keys are read and bound. Its twins are `postgres.rs` and `sqlite.rs`.

use std::fmt;
use std::io::Write;

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::mysql::types::{MySqlTime, MySqlTimeSign};
use sqlx::mysql::{MySqlRow, MySqlTypeInfo, MySqlValueRef};
use sqlx::{Decode, Encode, MySql, Pool, QueryBuilder, Row, Type, TypeInfo, ValueRef};
use uuid::Uuid;

use crate::calendar::{DAY, date_of, days_of};
use crate::database::{PageDb, RowsFuture, common, sealed};
use crate::error::PageError;
use crate::key::{Key, KeyKind};
use crate::keyset::OrderColumn;
use crate::micros::UnixMicros;
use crate::seek::Dialect;

/// From year 1 to year 9999, in days since the Unix epoch: year 0 is where zero dates live.
const DAYS: std::ops::RangeInclusive<i64> = -719_162..=2_932_896;
/// A `TIME` reaches this many microseconds (838:59:59.999999) to either side.
const TIME_MAX: i64 = 3_020_399_999_999;
/// As a `DECIMAL(65, 30)` has them; a text compared with a decimal would be compared as a float.
const DIGITS_BEFORE_POINT: usize = 35;
const DIGITS_BEHIND_POINT: usize = 30;

impl sealed::Sealed for MySql {}

impl PageDb for MySql {
    const DIALECT: Dialect = Dialect::Mysql;
    const AGREES: (&'static str, &'static str) = ("", "");
    // MariaDB tells the share of the rows that is kept if asked to, MySQL always; only MariaDB reads this comment.
    const EXPLAIN_ROWS: Option<&'static str> = Some("EXPLAIN /*M! EXTENDED */ ");

    fn bind(query: &mut QueryBuilder<Self>, key: &Key, _: KeyKind) {
        match key {
            Key::Null => query.push("NULL"),
            Key::Bool(value) => query.push_bind(*value),
            Key::I64(value) => query.push_bind(*value),
            Key::U64(value) => query.push_bind(*value),
            Key::F64Bits(bits) => query.push_bind(f64::from_bits(*bits)),
            // The casts are of the parameter, not of the column: the index serves as before.
            Key::Decimal(text) => query
                .push("CAST(")
                .push_bind(text.as_str())
                .push(" AS DECIMAL(65, 30))"),
            // Compared in the column's own character set and collation, which win over a parameter's.
            Key::Text(value) => query.push_bind(value.as_str()),
            Key::Bytes(value) => query.push_bind(value.as_slice()),
            Key::Uuid(value) => query.push_bind(*value),
            // sqlx panics on a parameter that cannot be encoded.
            Key::Micros(_) | Key::Date(_) if !Self::bindable(key) => query.push("NULL"),
            Key::Micros(micros) => query
                .push("CAST(")
                .push_bind(Instant(*micros))
                .push(" AS DATETIME(6))"),
            Key::Date(days) => query
                .push("CAST(")
                .push_bind(Day(i64::from(*days)))
                .push(" AS DATE)"),
            Key::Time(micros) => match time(*micros) {
                Some(time) => query.push_bind(time),
                None => query.push("NULL"),
            },
        };
    }

    fn bindable(key: &Key) -> bool {
        match key {
            Key::F64Bits(bits) => f64::from_bits(*bits).is_finite(),
            Key::Decimal(text) => fits_decimal(text),
            Key::Micros(micros) => DAYS.contains(&micros.div_euclid(DAY)),
            Key::Date(days) => DAYS.contains(&i64::from(*days)),
            Key::Time(micros) => time(*micros).is_some(),
            _ => true,
        }
    }

    fn read(row: &MySqlRow, column: &OrderColumn) -> Result<Key, PageError> {
        let value = row
            .try_get_raw(column.name())
            .map_err(PageError::database)?;
        let info = value.type_info().into_owned();
        let mismatch = || PageError::key_type(column, info.name());
        if value.is_null() {
            // A zero date passes for NULL, but stands in another place of the order.
            return match bytes(value) {
                Err(_) => Ok(Key::Null),
                Ok(_) => Err(PageError::key_type(column, "zero date")),
            };
        }
        let key = match (column.kind(), info.name()) {
            (
                KeyKind::Bool,
                "BOOLEAN" | "TINYINT" | "SMALLINT" | "MEDIUMINT" | "INT" | "BIGINT",
            ) => match get::<i64>(value) {
                Ok(n @ (0 | 1)) => Ok(Key::Bool(n == 1)),
                Ok(_) => return Err(mismatch()),
                Err(error) => Err(error),
            },
            (KeyKind::I64, "BOOLEAN" | "TINYINT" | "SMALLINT" | "MEDIUMINT" | "INT" | "BIGINT") => {
                get::<i64>(value).map(Key::I64)
            }
            (
                KeyKind::U64,
                "TINYINT UNSIGNED" | "SMALLINT UNSIGNED" | "MEDIUMINT UNSIGNED" | "INT UNSIGNED"
                | "BIGINT UNSIGNED",
            ) => get::<u64>(value).map(Key::U64),
            (KeyKind::F64, "FLOAT") => get::<f32>(value).map(|f| Key::from(f64::from(f))),
            (KeyKind::F64, "DOUBLE") => get::<f64>(value).map(Key::from),
            (KeyKind::Decimal, "DECIMAL") => match bytes(value).map(std::str::from_utf8) {
                Ok(Ok(text)) if fits_decimal(text) => Ok(Key::Decimal(text.to_owned())),
                Ok(_) => return Err(mismatch()),
                Err(error) => Err(error),
            },
            (KeyKind::Text, _) if is_text(&info) => get::<String>(value).map(Key::Text),
            (
                KeyKind::Bytes,
                "VARBINARY" | "BINARY" | "BLOB" | "TINYBLOB" | "MEDIUMBLOB" | "LONGBLOB",
            ) if !is_string(&info) => get::<Vec<u8>>(value).map(Key::Bytes),
            (KeyKind::Uuid, "BINARY" | "VARBINARY") if !is_string(&info) => {
                get::<Uuid>(value).map(Key::Uuid)
            }
            (KeyKind::Timestamptz | KeyKind::Timestamp, "DATETIME" | "TIMESTAMP") => {
                micros(value).map(Key::Micros)
            }
            (KeyKind::Date, "DATE") => micros(value)
                .and_then(|micros| Ok(Key::Date(i32::try_from(micros.div_euclid(DAY))?))),
            (KeyKind::Time, "TIME") => get::<MySqlTime>(value).map(|time| {
                let magnitude = i64::from(time.hours()) * 3_600_000_000
                    + i64::from(time.minutes()) * 60_000_000
                    + i64::from(time.seconds()) * 1_000_000
                    + i64::from(time.microseconds());
                Key::Time(match time.sign() {
                    MySqlTimeSign::Positive => magnitude,
                    MySqlTimeSign::Negative => -magnitude,
                })
            }),
            _ => return Err(mismatch()),
        };
        key.map_err(|source| PageError::decode(column, source))
    }

    common!(MySqlRow);

    fn explained_rows(rows: &[MySqlRow]) -> Result<u64, PageError> {
        // One line per table of the join: how many rows of it per row of those before, and what share is kept.
        let mut product = 1.0;
        for row in rows {
            let rows = number(row, "rows").map_err(PageError::database)?;
            let percent = number(row, "filtered").map_err(PageError::database)?;
            product *= rows.unwrap_or(0.0) * percent.unwrap_or(100.0) / 100.0;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an estimate; `as` saturates"
        )]
        Ok(product.round() as u64)
    }

    #[cfg(feature = "proof")]
    async fn judge(
        connection: &mut Self::Connection,
        query: QueryBuilder<Self>,
        claim: crate::proof::Claim,
    ) -> Result<crate::proof::Verdict, sqlx::Error> {
        crate::proof::mysql::judge(connection, query, &claim).await
    }
}

/// `T::decode`, for this database.
fn get<'r, T: Decode<'r, MySql>>(value: MySqlValueRef<'r>) -> Result<T, BoxDynError> {
    T::decode(value)
}

/// A number of EXPLAIN's, which servers give different types.
fn number(row: &MySqlRow, name: &str) -> Result<Option<f64>, sqlx::Error> {
    let value = row.try_get_raw(name)?;
    if value.is_null() {
        return Ok(None);
    }
    let info = value.type_info().into_owned();
    let number = match info.name() {
        "DOUBLE" => get::<f64>(value),
        "FLOAT" => get::<f32>(value).map(f64::from),
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        name if name.contains("INT") => get::<i64>(value).map(|n| n as f64),
        _ => bytes(value).and_then(|text| Ok(std::str::from_utf8(text)?.parse()?)),
    };
    number
        .map(Some)
        .map_err(|source| sqlx::Error::ColumnDecode {
            index: name.to_owned(),
            source,
        })
}

/// A value as it came over the wire, whatever its type.
fn bytes(value: MySqlValueRef<'_>) -> Result<&[u8], BoxDynError> {
    get::<&[u8]>(value)
}

/// Whether it has a character set. (By name, a `VARCHAR` of a `_bin` collation is a `VARBINARY`.)
fn is_string(info: &MySqlTypeInfo) -> bool {
    <str as Type<MySql>>::compatible(info)
}

/// ENUM and SET are strings that are ordered by their number and compared with a parameter as text, so they
/// are no keys. sqlx shows which ones they are only when printed, and by name not even that if they have a `_bin`
/// collation.
fn is_text(info: &MySqlTypeInfo) -> bool {
    let shown = || format!("{info:?}");
    let fixed = matches!(info.name(), "CHAR" | "BINARY" | "ENUM" | "SET");
    is_string(info) && !(fixed && ["ENUM", "SET"].iter().any(|word| shown().contains(word)))
}

/// A date or a date and time, in microseconds since the Unix epoch.
///
/// On the wire of prepared statements it is a length of 4, 7 or 11, the year in two bytes, month, day, hour,
/// minute, second, and the microseconds in four, little endian.
fn micros(value: MySqlValueRef<'_>) -> Result<i64, BoxDynError> {
    let fields = match *bytes(value)? {
        [4, y0, y1, month, day] => ([y0, y1], [month, day, 0, 0, 0], [0; 4]),
        [7, y0, y1, month, day, h, m, s] => ([y0, y1], [month, day, h, m, s], [0; 4]),
        [11, y0, y1, month, day, h, m, s, a, b, c, d] => {
            ([y0, y1], [month, day, h, m, s], [a, b, c, d])
        }
        _ => return Err("a date in text form or of another shape; run the query prepared".into()),
    };
    let (year, [month, day, hour, minute, second], micro) = fields;
    if month == 0 || day == 0 {
        return Err("a date without a month or a day has no place in time".into());
    }
    let days = days_of(
        i64::from(u16::from_le_bytes(year)),
        i64::from(month),
        i64::from(day),
    );
    let seconds = i64::from(hour) * 3_600 + i64::from(minute) * 60 + i64::from(second);
    Ok(days * DAY + seconds * 1_000_000 + i64::from(u32::from_le_bytes(micro)))
}

fn time(micros: i64) -> Option<MySqlTime> {
    let sign = if micros < 0 {
        MySqlTimeSign::Negative
    } else {
        MySqlTimeSign::Positive
    };
    let magnitude = i64::try_from(micros.unsigned_abs()).ok()?;
    if magnitude > TIME_MAX {
        return None;
    }
    let part = |unit: i64, of: i64| u8::try_from(magnitude / unit % of).ok();
    MySqlTime::new(
        sign,
        u32::try_from(magnitude / 3_600_000_000).ok()?,
        part(60_000_000, 60)?,
        part(1_000_000, 60)?,
        u32::try_from(magnitude % 1_000_000).ok()?,
    )
    .ok()
}

fn fits_decimal(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (before, behind) = digits.split_once('.').unwrap_or((digits, ""));
    !before.is_empty()
        && before.len() <= DIGITS_BEFORE_POINT
        && behind.len() <= DIGITS_BEHIND_POINT
        && before
            .bytes()
            .chain(behind.bytes())
            .all(|b| b.is_ascii_digit())
}

/// `2026-11-21`.
struct Day(i64);

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date_of(self.0);
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// `2026-11-21 09:30:00.000123`.
struct Instant(i64);

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, within) = (self.0.div_euclid(DAY), self.0.rem_euclid(DAY));
        let (seconds, micros) = (within / 1_000_000, within % 1_000_000);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        write!(
            f,
            "{} {hour:02}:{minute:02}:{second:02}.{micros:06}",
            Day(days)
        )
    }
}

/// As text of a fixed length, straight into the statement's buffer.
macro_rules! bound_as_text {
    ($what:ty, $length:literal) => {
        impl Type<MySql> for $what {
            fn type_info() -> MySqlTypeInfo {
                <str as Type<MySql>>::type_info()
            }
        }

        impl Encode<'_, MySql> for $what {
            fn encode_by_ref(&self, buffer: &mut Vec<u8>) -> Result<IsNull, BoxDynError> {
                buffer.push($length);
                let start = buffer.len();
                write!(buffer, "{self}")?;
                // A year of five digits is not bindable, and would be read as something else.
                if buffer.len() - start != $length {
                    return Err("MySQL has no time outside the years 1 to 9999".into());
                }
                Ok(IsNull::No)
            }
        }
    };
}

bound_as_text!(Day, 10);
bound_as_text!(Instant, 26);

impl Type<MySql> for UnixMicros {
    fn type_info() -> MySqlTypeInfo {
        <str as Type<MySql>>::type_info()
    }

    fn compatible(info: &MySqlTypeInfo) -> bool {
        matches!(info.name(), "DATETIME" | "TIMESTAMP")
    }
}

impl Encode<'_, MySql> for UnixMicros {
    fn encode_by_ref(&self, buffer: &mut Vec<u8>) -> Result<IsNull, BoxDynError> {
        if !DAYS.contains(&self.0.div_euclid(DAY)) {
            return Err("MySQL has no timestamp outside the years 1 to 9999".into());
        }
        Instant(self.0).encode_by_ref(buffer)
    }
}

impl Decode<'_, MySql> for UnixMicros {
    fn decode(value: MySqlValueRef<'_>) -> Result<Self, BoxDynError> {
        micros(value).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_to_the_microsecond() {
        for (micros, text) in [
            (0, "1970-01-01 00:00:00.000000"),
            (-1, "1969-12-31 23:59:59.999999"),
            (1_763_700_000_123_456, "2025-11-21 04:40:00.123456"),
        ] {
            assert_eq!(Instant(micros).to_string(), text);
        }
    }

    #[test]
    fn what_mysql_cannot_hold_is_not_bindable() {
        for (key, bindable) in [
            (Key::from(f64::NAN), false),
            (Key::from(f64::INFINITY), false),
            (Key::from(-0.0), true),
            (Key::Micros(i64::MAX), false),
            (Key::Micros(-719_162 * DAY), true),
            (Key::Micros(-719_162 * DAY - 1), false),
            (Key::Date(2_932_896), true),
            (Key::Date(2_932_897), false),
            (Key::Time(-TIME_MAX), false),
            (Key::Time(-3_020_399_000_000), true),
            (Key::Decimal("-12.50".into()), true),
            (Key::Decimal("NaN".into()), false),
            (Key::Decimal("1e5".into()), false),
            (Key::Decimal("9".repeat(36)), false),
        ] {
            assert_eq!(MySql::bindable(&key), bindable, "{key:?}");
        }
    }
}
