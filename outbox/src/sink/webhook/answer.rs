//! What an endpoint's answer means for the message.

use std::time::Duration;

use reqwest::{
    StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};

use crate::sink::{Outcome, Reason};

pub(super) fn verdict(status: StatusCode, headers: &HeaderMap) -> Outcome {
    let reason = Reason::new(&format!("the endpoint answered {}", status.as_u16()));
    match status.as_u16() {
        200..=299 => Outcome::Acked,
        429 | 503 => Outcome::Retry {
            after: retry_after(headers),
            reason,
        },
        408 | 409 | 425 => Outcome::Retry {
            after: None,
            reason,
        },
        400..=499 => Outcome::Reject { reason },
        _ => Outcome::Retry {
            after: None,
            reason,
        },
    }
}

/// `Retry-After` in seconds; the relay caps it. A date, garbage or several values are no wish at all.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let mut values = headers.get_all(RETRY_AFTER).iter();
    let (only, None) = (values.next()?, values.next()) else {
        return None;
    };
    let text = only.to_str().ok()?.trim();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // More digits than fit are a very long time.
    Some(Duration::from_secs(
        text.parse().unwrap_or(u64::from(u32::MAX)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: u16) -> &'static str {
        match verdict(StatusCode::from_u16(status).unwrap(), &HeaderMap::new()) {
            Outcome::Acked => "ack",
            Outcome::Retry { .. } => "retry",
            Outcome::Reject { .. } => "reject",
            Outcome::NotTried => "not tried",
        }
    }

    #[test]
    fn each_status_has_its_outcome() {
        for (statuses, expected) in [
            (&[200, 201, 204, 299][..], "ack"),
            (
                &[
                    301, 302, 307, 308, 408, 409, 425, 429, 500, 502, 503, 504, 599,
                ],
                "retry",
            ),
            (&[400, 401, 403, 404, 410, 413, 422], "reject"),
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
        assert_eq!(read(&["120"]), Some(120));
        assert_eq!(read(&[" 120 "]), Some(120));
        assert_eq!(read(&["0"]), Some(0));
        assert_eq!(read(&["99999999999999999999"]), Some(u64::from(u32::MAX)));
        for bad in [&["-1"][..], &["2.5"], &["soon"], &[""], &["1", "2"], &[]] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
