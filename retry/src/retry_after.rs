//! What a server says about when to come back: the `Retry-After` header and gRPC's retry pushback.
//!
//! Parsing is total and takes hostile input: whatever is not clearly a wait is no wait. Nothing is capped here;
//! [`RetryLayer::retry_after_cap`](crate::RetryLayer::retry_after_cap) does that.

use std::time::{Duration, SystemTime};

/// Longer values are not read: the longest date form has 33 characters.
const LENGTH_MAX: usize = 64;

/// The wait in a `Retry-After` value: whole seconds, or any of the three HTTP date forms relative to `now`.
///
/// `now` should be the response's own `Date`, so that the two machines need not agree on the time. A date in the past
/// is no wait at all, [`Duration::ZERO`]; seconds beyond 64 bits are the longest wait.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use mainstay_retry::retry_after;
///
/// let now = SystemTime::UNIX_EPOCH;
/// assert_eq!(retry_after::parse(b" 120 ", now), Some(Duration::from_secs(120)));
/// assert_eq!(retry_after::parse(b"Thu, 01 Jan 1970 00:00:07 GMT", now), Some(Duration::from_secs(7)));
/// assert_eq!(retry_after::parse(b"soon", now), None);
/// ```
pub fn parse(value: &[u8], now: SystemTime) -> Option<Duration> {
    let text = text(value)?;
    if let Some(seconds) = whole_number(text) {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
}

/// What `grpc-retry-pushback-ms` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushback {
    /// Come back after this long.
    After(Duration),
    /// Do not come back: the value was negative or not a number, which gRFC A6 defines as a refusal.
    Stop,
}

/// Reads a `grpc-retry-pushback-ms` value.
pub fn pushback(value: &[u8]) -> Pushback {
    millis(value).map_or(Pushback::Stop, Pushback::After)
}

/// Whole milliseconds, and nothing else.
pub(crate) fn millis(value: &[u8]) -> Option<Duration> {
    text(value)
        .and_then(whole_number)
        .map(Duration::from_millis)
}

fn text(value: &[u8]) -> Option<&str> {
    let value = value.trim_ascii();
    if value.is_empty() || value.len() > LENGTH_MAX {
        return None;
    }
    std::str::from_utf8(value).ok()
}

/// Digits only: no sign, point or exponent. Too many of them saturate.
fn whole_number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the example date of RFC 9110.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    #[test]
    fn seconds_and_all_three_date_forms_are_read() {
        let cases: &[(&str, Option<u64>)] = &[
            ("120", Some(120)),
            ("120 ", Some(120)),
            (" 120", Some(120)),
            ("0", Some(0)),
            ("3600", Some(3_600)),
            ("007", Some(7)),
            ("99999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:44 GMT", Some(7)),
            ("Sunday, 06-Nov-94 08:49:44 GMT", Some(7)),
            ("Sun Nov  6 08:49:44 1994", Some(7)),
            ("Sun, 06 Nov 1994 08:49:30 GMT", Some(0)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            (
                "Fri, 31 Dec 9999 23:59:59 GMT",
                Some(253_402_300_799 - 784_111_777),
            ),
            ("", None),
            ("2.5", None),
            ("-1", None),
            ("+1", None),
            ("1e9", None),
            ("1,2", None),
            ("soon", None),
            ("Sun, 06 Nov 1994", None),
        ];
        for (value, seconds) in cases {
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(parse(value.as_bytes(), now()), expected, "{value:?}");
        }
    }

    #[test]
    fn oversize_and_binary_values_are_no_wait() {
        assert_eq!(parse(&[b'1'; 64 * 1024], now()), None);
        assert_eq!(parse(&[0xff, 0xfe], now()), None);
    }

    #[test]
    fn pushback_that_is_not_a_number_means_stop() {
        let after = |millis| Pushback::After(Duration::from_millis(millis));
        assert_eq!(pushback(b"5000"), after(5_000));
        assert_eq!(pushback(b" 5000 "), after(5_000));
        assert_eq!(pushback(b"0"), after(0));
        assert_eq!(pushback(b"-1"), Pushback::Stop);
        assert_eq!(pushback(b"not-a-number"), Pushback::Stop);
        assert_eq!(pushback(b""), Pushback::Stop);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(value: Vec<u8>) {
            let _ = parse(&value, now());
            let _ = pushback(&value);
        }
    }
}
