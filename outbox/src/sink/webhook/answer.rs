//! What an endpoint's answer means for the message.

use std::time::{Duration, SystemTime};

use mainstay_retry::retry_after;
use reqwest::{
    StatusCode,
    header::{DATE, HeaderMap, RETRY_AFTER},
};

use crate::sink::{Outcome, Reason};

/// What an answer speaks of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The message.
    Message(Outcome),
    /// The endpoint, which is no more.
    Gone,
    /// The message or the endpoint: what stands before an endpoint says so when that is away, and when this message breaks it.
    Unclear {
        after: Option<Duration>,
        reason: Reason,
    },
}

pub(super) fn verdict(status: StatusCode, headers: &HeaderMap) -> Verdict {
    let reason = Reason::new(&format!("the endpoint answered {}", status.as_u16()));
    Verdict::Message(match status.as_u16() {
        200..=299 => Outcome::Acked,
        410 => return Verdict::Gone,
        502..=504 | 520..=524 => {
            return Verdict::Unclear {
                after: retry_after(headers),
                reason,
            };
        }
        429 => Outcome::Retry {
            after: retry_after(headers),
            reason,
        },
        // What the endpoint says of this message. Any other 4xx speaks of the endpoint as it is now, such as a wrong secret or
        // a route that is being deployed: that must not bury the backlog.
        400 | 413 | 414 | 415 | 422 | 431 => Outcome::Reject { reason },
        _ => Outcome::Retry {
            after: None,
            reason,
        },
    })
}

/// What `Retry-After` asks for, in seconds or until a date; the relay caps it. Several values are no wish at all.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let mut values = headers.get_all(RETRY_AFTER).iter();
    let (only, None) = (values.next()?, values.next()) else {
        return None;
    };
    retry_after::parse(only.as_bytes(), server_time(headers))
}

/// The endpoint's own clock where it tells, so that a skew between the machines does not become a wait.
fn server_time(headers: &HeaderMap) -> SystemTime {
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    match date.and_then(|date| httpdate::parse_http_date(date).ok()) {
        Some(date) => date,
        #[expect(
            clippy::disallowed_methods,
            reason = "a date from a server that does not tell its own time has only our clock to go by"
        )]
        None => SystemTime::now(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: u16) -> &'static str {
        match verdict(StatusCode::from_u16(status).unwrap(), &HeaderMap::new()) {
            Verdict::Message(Outcome::Acked) => "ack",
            Verdict::Message(Outcome::Retry { .. }) => "retry",
            Verdict::Message(Outcome::Reject { .. }) => "reject",
            Verdict::Message(Outcome::NotTried) => "not tried",
            Verdict::Gone => "gone",
            Verdict::Unclear { .. } => "unclear",
        }
    }

    #[test]
    fn each_status_has_its_outcome() {
        for (statuses, expected) in [
            (&[200, 201, 204, 299][..], "ack"),
            (
                &[
                    301, 302, 307, 308, 401, 403, 404, 405, 408, 409, 425, 429, 500, 501, 505, 599,
                ],
                "retry",
            ),
            (&[400, 413, 414, 415, 422, 431], "reject"),
            (&[410], "gone"),
            (&[502, 503, 504, 520, 521, 522, 523, 524], "unclear"),
        ] {
            for status in statuses {
                assert_eq!(kind(*status), expected, "{status}");
            }
        }
    }

    #[test]
    fn retry_after_is_read_or_ignored_but_never_fails() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(RETRY_AFTER, value.parse().unwrap());
            }
            retry_after(&headers).map(|wait| wait.as_secs())
        };
        let mut dated = HeaderMap::new();
        dated.insert("date", "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap());
        dated.insert(
            RETRY_AFTER,
            "Sun, 06 Nov 1994 08:51:37 GMT".parse().unwrap(),
        );
        assert_eq!(retry_after(&dated), Some(Duration::from_secs(120)));
        assert_eq!(read(&["120"]), Some(120));
        assert_eq!(read(&[" 120 "]), Some(120));
        assert_eq!(read(&["0"]), Some(0));
        assert_eq!(read(&["99999999999999999999"]), Some(u64::MAX));
        assert_eq!(
            read(&["Fri, 31 Dec 9999 23:59:59 GMT"]).map(|s| s > 1_000_000),
            Some(true)
        );
        assert_eq!(read(&["Thu, 01 Jan 1970 00:00:00 GMT"]), Some(0));
        for bad in [&["-1"][..], &["2.5"], &["soon"], &[""], &["1", "2"], &[]] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
