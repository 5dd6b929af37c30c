//! Rows that know their own keys: what a type says of its column, and what [`derive(Keyset)`](crate::Keyset) builds on.

use uuid::Uuid;

use crate::key::{Key, KeyKind, Keys};
use crate::keyset::KeysetDef;
use crate::micros::UnixMicros;

/// A row type with an order of its own. Derived (feature `derive`); with several orders, the first.
///
/// It is enough to make a row's cursor without fetching it:
///
/// ```
/// use mainstay_pagination::{CursorCodec, CursorError, Cursor, Fingerprint, Keyset};
///
/// fn cursor_of<T: Keyset>(row: &T, tenant: &str, codec: &CursorCodec) -> Result<Cursor, CursorError> {
///     let list = Fingerprint::of(&T::ORDER, ("tickets", tenant));
///     codec.encode(&row.keys(), list, std::time::SystemTime::now())
/// }
/// ```
pub trait Keyset {
    /// The order.
    const ORDER: KeysetDef;

    /// The row's place in the order.
    fn keys(&self) -> Keys;
}

/// A type whose values can be keys, and the kind of column that they come from.
///
/// Implemented for booleans, integers, floats, `String`, `Vec<u8>`, `Uuid`, [`UnixMicros`], and `Option`s of them; for
/// the types of `time`, `chrono` and `rust_decimal` by the features of these names. Implement it for a type of your
/// own, or say the column's `kind`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say which kind of column it is",
    label = "not a `KeyValue`",
    note = "say it with `#[keyset(kind = timestamptz)]` where the type is known, or implement `KeyValue` for a type of your own",
    note = "the types of `time`, `chrono` and `rust_decimal` need the feature of that name"
)]
pub trait KeyValue {
    /// What the column holds.
    const KIND: KeyKind;

    /// Whether a value may be NULL: an `Option`.
    const NULLABLE: bool = false;

    /// The value as a key.
    fn to_key(&self) -> Key;
}

impl<T: KeyValue> KeyValue for Option<T> {
    const KIND: KeyKind = T::KIND;
    const NULLABLE: bool = true;

    fn to_key(&self) -> Key {
        self.as_ref().map_or(Key::Null, T::to_key)
    }
}

macro_rules! key_values {
    ($($type:ty => $kind:ident, |$value:ident| $key:expr;)*) => {$(
        impl KeyValue for $type {
            const KIND: KeyKind = KeyKind::$kind;

            fn to_key(&self) -> Key {
                let $value = self;
                $key
            }
        }
    )*};
}

key_values! {
    bool => Bool, |value| Key::Bool(*value);
    i8 => I64, |value| Key::I64(i64::from(*value));
    i16 => I64, |value| Key::I64(i64::from(*value));
    i32 => I64, |value| Key::I64(i64::from(*value));
    i64 => I64, |value| Key::I64(*value);
    u8 => U64, |value| Key::U64(u64::from(*value));
    u16 => U64, |value| Key::U64(u64::from(*value));
    u32 => U64, |value| Key::U64(u64::from(*value));
    u64 => U64, |value| Key::U64(*value);
    f32 => F64, |value| Key::from(f64::from(*value));
    f64 => F64, |value| Key::from(*value);
    String => Text, |value| Key::Text(value.clone());
    Vec<u8> => Bytes, |value| Key::Bytes(value.clone());
    Uuid => Uuid, |value| Key::Uuid(*value);
    UnixMicros => Timestamptz, |value| Key::Micros(value.0);
}

/// Instants and days outside what 64 and 32 bits hold are the outermost; no database has such.
#[cfg(feature = "time")]
mod time_values {
    use time::{Date, OffsetDateTime, PrimitiveDateTime, Time};

    use super::{Key, KeyKind, KeyValue};

    /// The day of 1970-01-01 in the Julian calendar's count.
    const EPOCH: i32 = 2_440_588;

    fn micros(at: OffsetDateTime) -> i64 {
        i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000)).unwrap_or(i64::MAX)
    }

    key_values! {
        OffsetDateTime => Timestamptz, |value| Key::Micros(micros(*value));
        PrimitiveDateTime => Timestamp, |value| Key::Micros(micros(value.assume_utc()));
        Date => Date, |value| Key::Date(value.to_julian_day() - EPOCH);
        Time => Time, |value| {
            let (h, m, s, micro) = value.as_hms_micro();
            let seconds = (i64::from(h) * 60 + i64::from(m)) * 60 + i64::from(s);
            Key::Time(seconds * 1_000_000 + i64::from(micro))
        };
    }
}

#[cfg(feature = "chrono")]
mod chrono_values {
    use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Timelike};

    use super::{Key, KeyKind, KeyValue};

    impl<Z: TimeZone> KeyValue for DateTime<Z> {
        const KIND: KeyKind = KeyKind::Timestamptz;

        fn to_key(&self) -> Key {
            Key::Micros(self.timestamp_micros())
        }
    }

    key_values! {
        NaiveDateTime => Timestamp, |value| Key::Micros(value.and_utc().timestamp_micros());
        NaiveDate => Date, |value| Key::Date(value.to_epoch_days());
        NaiveTime => Time, |value| {
            let micros = i64::from(value.nanosecond() / 1_000);
            Key::Time(i64::from(value.num_seconds_from_midnight()) * 1_000_000 + micros)
        };
    }
}

#[cfg(feature = "rust_decimal")]
key_values! {
    rust_decimal::Decimal => Decimal, |value| Key::Decimal(value.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_fits_the_kind_its_type_says() {
        #[expect(
            clippy::needless_pass_by_value,
            reason = "a table reads better without &"
        )]
        fn check<T: KeyValue>(value: T, key: Key) {
            assert_eq!(value.to_key(), key);
            assert!(key.fits(T::KIND));
            assert_eq!(Some(value).to_key(), key);
            assert_eq!(<Option<T>>::KIND, T::KIND);
            assert!(<Option<T>>::NULLABLE && !T::NULLABLE);
            assert_eq!(None::<T>.to_key(), Key::Null);
        }
        check(true, Key::Bool(true));
        check(-1_i16, Key::I64(-1));
        check(1_u32, Key::U64(1));
        check(0.5_f32, Key::from(0.5));
        check("a".to_owned(), Key::from("a"));
        check(vec![1_u8], Key::Bytes(vec![1]));
        check(Uuid::nil(), Key::Uuid(Uuid::nil()));
        check(UnixMicros(-1), Key::Micros(-1));
        #[cfg(feature = "time")]
        {
            let before = time::OffsetDateTime::UNIX_EPOCH - time::Duration::nanoseconds(1_500);
            check(before, Key::Micros(-2));
            check(before.date(), Key::Date(-1));
            check(time::Time::MIDNIGHT, Key::Time(0));
            check(before.time(), Key::Time(86_399_999_998));
            check(
                time::PrimitiveDateTime::new(before.date(), before.time()),
                Key::Micros(-2),
            );
        }
        #[cfg(feature = "chrono")]
        {
            let before = chrono::DateTime::from_timestamp_nanos(-1_500);
            check(before, Key::Micros(-2));
            check(before.naive_utc(), Key::Micros(-2));
            check(before.date_naive(), Key::Date(-1));
            check(before.time(), Key::Time(86_399_999_998));
        }
        #[cfg(feature = "rust_decimal")]
        check(
            rust_decimal::Decimal::new(-150, 2),
            Key::Decimal("-1.50".into()),
        );
    }
}
