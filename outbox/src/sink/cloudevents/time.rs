//! Times as CloudEvents writes and reads them: RFC 3339.

use std::time::SystemTime;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::message::{from_micros, to_micros};

/// RFC 3339 in UTC with microseconds. Times outside the years 0 to 9999 are cut to them.
pub(super) fn rfc3339(time: SystemTime) -> String {
    const FIRST: i64 = -62_167_219_200; // 0000-01-01
    const LAST: i64 = 253_402_300_799; // 9999-12-31T23:59:59
    let micros = to_micros(time);
    let seconds = micros.div_euclid(1_000_000).clamp(FIRST, LAST);
    let fraction = micros.rem_euclid(1_000_000);
    // The clamp keeps it in the range that a date can say.
    let date = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    let (hour, minute, second) = date.to_hms();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

/// What RFC 3339 says, in any offset, to the microsecond.
pub(super) fn parse(text: &str) -> Option<SystemTime> {
    let date = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let micros = i64::try_from(date.unix_timestamp_nanos().div_euclid(1_000)).ok()?;
    Some(from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times_are_written_as_they_should_and_read_back() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_709_210_096, "2024-02-29T12:34:56.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
            (-1, "1969-12-31T23:59:59.000000Z"),
            (253_402_300_799, "9999-12-31T23:59:59.000000Z"),
        ] {
            let time = from_micros(seconds * 1_000_000);
            assert_eq!(rfc3339(time), text);
            assert_eq!(parse(text), Some(time));
        }
        assert_eq!(
            rfc3339(from_micros(1_123_456)),
            "1970-01-01T00:00:01.123456Z"
        );
        assert_eq!(
            rfc3339(from_micros(i64::MAX)),
            "9999-12-31T23:59:59.775807Z"
        );
    }

    #[test]
    fn times_of_other_writers_are_read() {
        for (text, micros) in [
            ("2018-04-05T17:31:00Z", 1_522_949_460_000_000),
            ("2018-04-05T19:31:00+02:00", 1_522_949_460_000_000),
            ("1970-01-01T00:00:00.1234567Z", 123_456),
        ] {
            assert_eq!(parse(text), Some(from_micros(micros)), "{text}");
        }
        for text in ["", "yesterday", "2018-04-05", "2018-13-05T17:31:00Z"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
