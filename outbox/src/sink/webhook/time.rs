//! A time as RFC 3339 in UTC, which is how CloudEvents writes it; a date crate would be a dependency for one line.

use std::time::SystemTime;

use crate::message::to_micros;

/// For instance `2026-11-21T05:30:00.123456Z`. Times outside the years 0 to 9999 are cut to them.
pub(super) fn rfc3339(time: SystemTime) -> String {
    const DAY: i64 = 86_400;
    const FIRST: i64 = -62_167_219_200; // 0000-01-01
    const LAST: i64 = 253_402_300_799; // 9999-12-31T23:59:59
    let micros = to_micros(time);
    let seconds = micros.div_euclid(1_000_000).clamp(FIRST, LAST);
    let fraction = micros.rem_euclid(1_000_000);
    let (year, month, day) = civil(seconds.div_euclid(DAY));
    let clock = seconds.rem_euclid(DAY);
    let (hour, minute, second) = (clock / 3_600, clock / 60 % 60, clock % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

/// Year, month and day of a number of days since 1970, in the Gregorian calendar carried back.
///
/// Counted from a 1 March, so that the leap day is the last of its year, in eras of 400 years, which are all alike.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468; // from 1970-01-01 to 0000-03-01
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153; // months from March
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::from_micros;

    #[test]
    fn known_times_are_written_as_they_should() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_709_210_096, "2024-02-29T12:34:56.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
            (-1, "1969-12-31T23:59:59.000000Z"),
            (253_402_300_799, "9999-12-31T23:59:59.000000Z"),
        ] {
            assert_eq!(rfc3339(from_micros(seconds * 1_000_000)), text);
        }
        assert_eq!(
            rfc3339(from_micros(1_123_456)),
            "1970-01-01T00:00:01.123456Z"
        );
    }
}
