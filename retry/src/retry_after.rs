//! What a server says about when to come back: `Retry-After` and its relatives, and gRPC's retry pushback.
//!
//! Parsing is total and takes hostile input: whatever is not clearly a wait is no wait. Nothing is capped here;
//! [`RetryLayer::retry_after_cap`](crate::RetryLayer::retry_after_cap) does that.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, header};

/// Longer values are not read: the longest date form has 33 characters.
const LENGTH_MAX: usize = 64;

/// The wait that the headers of a 429 or 503 ask for, by the first of these that says one:
///
/// 1. `retry-after-ms`, whole milliseconds: what Azure and OpenAI send beside `Retry-After`, which rounds it up;
/// 2. `Retry-After`, as [`parse`] reads it, dates relative to the response's own `Date`;
/// 3. `RateLimit`, the structured field of the IETF draft: the longest `t` of the limits that have nothing left;
/// 4. `RateLimit-Reset` of its older revisions, in seconds, if `RateLimit-Remaining` is 0.
///
/// What cannot be read is passed over. Not read at all are the `X-RateLimit-Reset` of many services, which is seconds
/// at some and a Unix time at others: a classifier of one's own can, with [`unix_time`].
pub fn wait(headers: &HeaderMap) -> Option<Duration> {
    let value = |name: &HeaderName| headers.get(name).map(http::HeaderValue::as_bytes);
    let exact = value(&RETRY_AFTER_MS).and_then(millis);
    exact
        .or_else(|| parse(value(&header::RETRY_AFTER)?, server_time(headers)))
        .or_else(|| rate_limits(headers))
        .or_else(|| {
            let none_left = value(&RATE_LIMIT_REMAINING).and_then(seconds)?.is_zero();
            let reset = value(&RATE_LIMIT_RESET).and_then(seconds)?;
            none_left.then_some(reset)
        })
}

/// Several lines of one field are one list, by RFC 9651, and malformed as one.
fn rate_limits(headers: &HeaderMap) -> Option<Duration> {
    let lines = || {
        let lines = headers.get_all(RATE_LIMIT).iter();
        lines.map(http::HeaderValue::as_bytes)
    };
    if lines().nth(1).is_none() {
        return rate_limit(lines().next()?);
    }
    let bytes: usize = lines().map(<[u8]>::len).sum();
    (bytes <= RATE_LIMIT_LENGTH_MAX)
        .then(|| lines().collect::<Vec<_>>().join(&b","[..]))
        .and_then(|list| rate_limit(&list))
}

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATE_LIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// The server's own clock where it tells us, so that a skew between the machines does not become a wait.
fn server_time(headers: &HeaderMap) -> SystemTime {
    let date = headers
        .get(header::DATE)
        .and_then(|date| date.to_str().ok());
    match date.and_then(|date| httpdate::parse_http_date(date).ok()) {
        Some(date) => date,
        #[expect(
            clippy::disallowed_methods,
            reason = "a date without the server's Date has only our clock to go by"
        )]
        None => SystemTime::now(),
    }
}

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

/// The wait until a Unix time in whole seconds, as some services put it into a `Retry-After` or `X-RateLimit-Reset`.
///
/// A time in the past is none, as it is more likely a number of seconds that was taken for a date.
pub fn unix_time(value: &[u8], now: SystemTime) -> Option<Duration> {
    let at = SystemTime::UNIX_EPOCH.checked_add(seconds(value)?)?;
    at.duration_since(now).ok()
}

/// The wait in a `RateLimit` value: a list of limits by name, with `r`, the requests left, and `t`, the seconds until
/// there are more. The longest wait of the limits with nothing left.
///
/// ```
/// use std::time::Duration;
/// use mainstay_retry::retry_after;
///
/// let field = br#""burst";r=0;t=2, "daily";r=17;t=3600"#;
/// assert_eq!(retry_after::rate_limit(field), Some(Duration::from_secs(2)));
/// ```
pub fn rate_limit(value: &[u8]) -> Option<Duration> {
    if value.len() > RATE_LIMIT_LENGTH_MAX {
        return None;
    }
    let mut rest = std::str::from_utf8(value).ok()?.trim();
    let mut longest = None;
    loop {
        let (limit, after) = limit(rest)?;
        if limit.left == Some(0) {
            longest = longest.max(limit.time);
        }
        rest = after.trim_start();
        if rest.is_empty() {
            return longest.map(Duration::from_secs);
        }
        rest = rest.strip_prefix(',')?.trim_start();
    }
}

/// Room for a dozen limits.
const RATE_LIMIT_LENGTH_MAX: usize = 1_024;

#[derive(Default)]
struct Limit {
    left: Option<u64>,
    time: Option<u64>,
}

/// One member of the list, as RFC 9651 writes an item with parameters, and what follows it. A field that is not
/// well-formed is none at all, as that RFC wants.
fn limit(text: &str) -> Option<(Limit, &str)> {
    let mut rest = bare_item(text)?.1;
    let mut limit = Limit::default();
    while let Some(parameter) = rest.strip_prefix(';') {
        let parameter = parameter.trim_start_matches(' ');
        let (key, after) = split_while(parameter, |c| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.*".contains(c)
        });
        if !key.starts_with(|c: char| c.is_ascii_lowercase() || c == '*') {
            return None;
        }
        let (value, after) = match after.strip_prefix('=') {
            Some(value) => bare_item(value)?,
            None => ("", after), // a flag
        };
        // The last one of a name counts.
        match key {
            "r" => limit.left = Some(integer(value)?),
            "t" => limit.time = Some(integer(value)?),
            _ => {}
        }
        rest = after;
    }
    Some((limit, rest))
}

/// A string, a token, a number or a byte sequence, unread, and what follows it.
fn bare_item(text: &str) -> Option<(&str, &str)> {
    let end = if let Some(inside) = text.strip_prefix('"') {
        let mut escaped = false;
        let close = inside.find(|c| {
            let closes = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        })?;
        close + 2
    } else {
        let (item, _) = split_while(text, |c| {
            c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~:/?@=".contains(c)
        });
        item.len()
    };
    (end > 0).then(|| text.split_at(end))
}

fn split_while(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !belongs(c)).unwrap_or(text.len());
    text.split_at(end)
}

/// A non-negative integer of RFC 9651: at most fifteen digits.
fn integer(text: &str) -> Option<u64> {
    (text.len() <= 15 && !text.is_empty()).then(|| whole_number(text))?
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

/// Whole seconds, and nothing else.
fn seconds(value: &[u8]) -> Option<Duration> {
    text(value).and_then(whole_number).map(Duration::from_secs)
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
    fn unix_times_are_read_by_who_asks_for_them() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for (value, seconds) in [
            ("1000000007", Some(7)),
            ("1000000000", Some(0)),
            ("999999999", None),
            ("1000000007.5", None),
            ("-1", None),
            ("", None),
        ] {
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(unix_time(value.as_bytes(), now), expected, "{value:?}");
        }
        let _ = unix_time(b"99999999999999999999", now);
    }

    #[test]
    fn rate_limits_are_read_where_nothing_is_left() {
        let cases: &[(&str, Option<u64>)] = &[
            (r#""default";r=0;t=7"#, Some(7)),
            (r#"  "default" ;r=0;t=7"#, None),
            (r#""default"; r=0; t=7"#, Some(7)),
            (r#"default;r=0;t=7"#, Some(7)),
            (r#""default";t=7;r=0"#, Some(7)),
            (r#""default";r=0;t=0"#, Some(0)),
            (r#""default";r=1;t=7"#, None),
            (r#""default";r=0"#, None),
            (r#""default";t=7"#, None),
            (r#""a";r=0;t=2, "b";r=0;t=9,"c";r=5;t=100"#, Some(9)),
            (r#""a;r=0;t=99\", \"";r=0;t=3;pk=:c2VjcmV0:;q"#, Some(3)),
            (r#""default";r=0;t=7;t=8"#, Some(8)),
            (r#""default";r=0;t=-7"#, None),
            (r#""default";r=0;t=7.5"#, None),
            (r#""default";r=0;t="7""#, None),
            (r#""default";r=0;t=1234567890123456"#, None),
            (r#""default";r=0;t=7,"#, None),
            (r#""default";r=0;t=7 nonsense"#, None),
            (r#""default"#, None),
            (r#"limit=100, remaining=0, reset=7"#, None),
            ("", None),
            (";", None),
        ];
        for (field, seconds) in cases {
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(rate_limit(field.as_bytes()), expected, "{field}");
        }
    }

    #[test]
    fn one_header_goes_before_another_and_what_is_malformed_is_passed_over() {
        let read = |headers: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, http::HeaderValue::from_static(value));
            }
            wait(&map)
        };
        let ms = |n| Some(Duration::from_millis(n));
        let limit = ("ratelimit", "\"default\";r=0;t=7");
        type Headers<'a> = &'a [(&'static str, &'static str)];
        let cases: &[(Headers<'_>, Option<Duration>)] = &[
            (&[("retry-after", "3"), limit], ms(3_000)),
            (&[("retry-after", "soon"), limit], ms(7_000)),
            (
                &[("retry-after", "3"), ("retry-after-ms", "2500")],
                ms(2_500),
            ),
            (
                &[("retry-after", "3"), ("retry-after-ms", "2.5")],
                ms(3_000),
            ),
            (
                &[
                    ("retry-after", "3"),
                    ("retry-after", "9"),
                    ("retry-after", "x"),
                ],
                ms(3_000),
            ),
            (&[limit], ms(7_000)),
            (
                &[
                    ("ratelimit", "nonsense;"),
                    ("ratelimit-remaining", "0"),
                    ("ratelimit-reset", "5"),
                ],
                ms(5_000),
            ),
            (
                &[("ratelimit-remaining", "1"), ("ratelimit-reset", "5")],
                None,
            ),
            // Lines of a list are one list, and none when any of it is malformed.
            (&[("ratelimit", "\"a\";r=5;t=60"), limit], ms(7_000)),
            (&[limit, ("ratelimit", "\"b\";r=0;t=9")], ms(9_000)),
            (&[limit, ("ratelimit", "nonsense;")], None),
            (&[("ratelimit-reset", "5")], None),
            (&[("x-ratelimit-reset", "1000000007")], None),
            (&[], None),
        ];
        for (headers, expected) in cases {
            assert_eq!(read(headers), *expected, "{headers:?}");
        }
    }

    #[test]
    fn oversize_and_binary_values_are_no_wait() {
        assert_eq!(parse(&[b'1'; 64 * 1024], now()), None);
        assert_eq!(parse(&[0xff, 0xfe], now()), None);
        assert_eq!(rate_limit(&[b'a'; 64 * 1024]), None);
    }

    #[test]
    fn pushback_that_is_not_a_number_means_stop() {
        let after = |millis| Pushback::After(Duration::from_millis(millis));
        assert_eq!(pushback(b"5000"), after(5_000));
        assert_eq!(pushback(b" 5000 "), after(5_000));
        assert_eq!(pushback(b"0"), after(0));
        assert_eq!(pushback(b"999999"), after(999_999));
        assert_eq!(pushback(b"-1"), Pushback::Stop);
        assert_eq!(pushback(b"not-a-number"), Pushback::Stop);
        assert_eq!(pushback(b""), Pushback::Stop);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(value: Vec<u8>) {
            let _ = parse(&value, now());
            let _ = pushback(&value);
            let _ = rate_limit(&value);
            let _ = unix_time(&value, now());
        }
    }
}
