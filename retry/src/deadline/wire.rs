//! How a deadline is said on the wire: relative, so that the two machines need not agree on the time.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};

use super::Deadline;
use crate::retry_after;

/// The request header with the time left, in whole milliseconds, rounded down.
///
/// A duration and not a date: the two machines need not agree on the time.
pub const HEADER: HeaderName = HeaderName::from_static("x-deadline-ms");

/// What gRPC has instead: at most eight digits and a unit, one of `H`, `M`, `S`, `m`, `u` and `n`.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The most that eight digits can say.
const GRPC_DIGITS_MAX: u128 = 99_999_999;

/// Units of `grpc-timeout` in nanoseconds, finest first.
const GRPC_UNITS: [(u128, char); 6] = [
    (1, 'n'),
    (1_000, 'u'),
    (1_000_000, 'm'),
    (1_000_000_000, 'S'),
    (60_000_000_000, 'M'),
    (3_600_000_000_000, 'H'),
];

/// Whether this is a gRPC request, by its content type: `application/grpc`, with or without a codec or `-web`.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let rest = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b'-' | b';')))
}

impl Deadline {
    /// The sooner of what [`HEADER`] and [`GRPC_TIMEOUT`] say. What is not exactly one readable value is no deadline.
    pub(super) fn read(headers: &HeaderMap, now: Instant) -> Option<Self> {
        let plain = only(headers, &HEADER).and_then(retry_after::millis);
        [plain, grpc_timeout(headers)]
            .into_iter()
            .flatten()
            .min()
            .map(|time| Self::after(now, time))
    }

    /// What [`GRPC_TIMEOUT`] says, if it is there; the clock is only looked at then.
    pub(crate) fn of_grpc(headers: &HeaderMap, now: impl FnOnce() -> Instant) -> Option<Self> {
        grpc_timeout(headers).map(|time| Self::after(now(), time))
    }

    /// Tells the server the time left at `now`: in [`GRPC_TIMEOUT`] if the request is gRPC's, else in [`HEADER`].
    /// What [`HEADER`] said before comes back.
    pub(super) fn write(
        self,
        headers: &mut HeaderMap,
        grpc: bool,
        now: Instant,
    ) -> Option<HeaderValue> {
        let left = self.remaining(now);
        if grpc {
            headers.insert(GRPC_TIMEOUT, grpc_value(left));
            return None;
        }
        headers.insert(HEADER, millis_value(left))
    }

    /// The sooner of this and what a [`HEADER`] said.
    pub(super) fn or_sooner(self, said: &HeaderValue, now: Instant) -> Self {
        let said = retry_after::millis(said.as_bytes());
        said.map_or(self, |said| self.min(Self::after(now, said)))
    }

    /// Brings the headers that are there up to date. They are shortened only: a caller may have asked for less.
    pub(crate) fn rewrite(self, headers: &mut HeaderMap, now: Instant) {
        let left = self.remaining(now);
        if headers.contains_key(HEADER) {
            let said = only(headers, &HEADER).and_then(retry_after::millis);
            if said.is_none_or(|said| left < said) {
                headers.insert(HEADER, millis_value(left));
            }
        }
        if headers.contains_key(GRPC_TIMEOUT)
            && grpc_timeout(headers).is_none_or(|said| left < said)
        {
            headers.insert(GRPC_TIMEOUT, grpc_value(left));
        }
    }
}

/// The caller's own `grpc-timeout`, as tonic's `Request::set_timeout` writes it.
pub(super) fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    only(headers, &GRPC_TIMEOUT).and_then(parse_grpc)
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.as_bytes()),
        _ => None,
    }
}

fn millis_value(left: Duration) -> HeaderValue {
    HeaderValue::from(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
}

/// The finest unit that eight digits reach, rounded down: the server must not outlive its caller.
fn grpc_value(left: Duration) -> HeaderValue {
    let nanos = left.as_nanos();
    let most = GRPC_UNITS
        .iter()
        .map(|&(unit, letter)| (nanos / unit, letter))
        .find(|&(number, _)| number <= GRPC_DIGITS_MAX);
    let (number, letter) = most.unwrap_or((GRPC_DIGITS_MAX, 'H'));
    HeaderValue::try_from(format!("{number}{letter}"))
        .unwrap_or_else(|_| HeaderValue::from_static("0n"))
}

/// As the gRPC over HTTP/2 protocol has it: one to eight digits and a unit. Zero is read as no time at all.
fn parse_grpc(value: &[u8]) -> Option<Duration> {
    let (letter, digits) = value.trim_ascii().split_last()?;
    let (unit, _) = GRPC_UNITS
        .iter()
        .find(|(_, name)| *name == char::from(*letter))?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u32 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let unit = Duration::from_nanos(u64::try_from(*unit).ok()?);
    unit.checked_mul(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_read_to_the_letter() {
        let cases: &[(&str, Option<Duration>)] = &[
            ("1H", Some(Duration::from_secs(3_600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("0n", Some(Duration::ZERO)),
            ("00000007S", Some(Duration::from_secs(7))),
            (" 8S ", Some(Duration::from_secs(8))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3_600))),
            ("000000007S", None),
            ("", None),
            ("S", None),
            ("7", None),
            ("7s", None),
            ("7h", None),
            ("-7S", None),
            ("+7S", None),
            ("7.5S", None),
            ("7 S", None),
            ("7SS", None),
            ("७S", None),
        ];
        for (value, expected) in cases {
            assert_eq!(parse_grpc(value.as_bytes()), *expected, "{value:?}");
        }
    }

    #[test]
    fn grpc_timeouts_are_written_as_fine_as_eight_digits_allow() {
        let cases = [
            (Duration::ZERO, "0n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_000), "100000u"),
            (Duration::from_nanos(5_000_000_999), "5000000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(99_999), "99999000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::from_secs(100_000_000), "1666666M"),
            (Duration::MAX, "99999999H"),
        ];
        for (left, expected) in cases {
            assert_eq!(grpc_value(left), expected, "{left:?}");
        }
    }

    #[test]
    fn a_request_is_grpcs_by_its_content_type() {
        for (content_type, grpc) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;x=1", true),
            ("application/grpc-web+proto", true),
            ("application/grpcish", false),
            ("application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            assert_eq!(is_grpc(&headers), grpc, "{content_type}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_back_and_never_longer(nanos in 0..u64::MAX) {
            let left = Duration::from_nanos(nanos);
            let read = parse_grpc(grpc_value(left).as_bytes()).unwrap();
            proptest::prop_assert!(read <= left);
            // Eight digits: at most one part in a hundred thousand is lost, or a nanosecond.
            proptest::prop_assert!(left - read <= left / 100_000 + Duration::from_nanos(1), "{left:?} {read:?}");
        }

        #[test]
        fn any_bytes_are_read_without_panic(value: Vec<u8>) {
            let _ = parse_grpc(&value);
        }
    }
}
