//! The trace id of a W3C `traceparent` header, where the header is sound.

/// The trace id: 32 lower-case hex digits, not all zero. `None` when anything about the header is wrong, because a
/// header that is half right was made by somebody who guesses (W3C Trace Context §3.2).
///
/// A version above 00 may append fields, each behind a dash; 00 has none.
pub(crate) fn trace_id(header: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(header).ok()?;
    let mut fields = text.splitn(5, '-');
    let (version, trace, parent) = (fields.next()?, fields.next()?, fields.next()?);
    let (flags, rest) = (fields.next()?, fields.next());
    let is_sound = is_hex(version, 2)
        && version != "ff"
        && is_id(trace, 32)
        && is_id(parent, 16)
        && is_hex(flags, 2)
        && (version != "00" || rest.is_none());
    is_sound.then_some(trace)
}

fn is_hex(field: &str, len: usize) -> bool {
    field.len() == len
        && field
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
}

fn is_id(field: &str, len: usize) -> bool {
    is_hex(field, len) && field.bytes().any(|b| b != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_sound_header_has_a_trace_id() {
        for good in [
            format!("00-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{TRACE}-00f067aa0ba902b7-00"),
            format!("01-{TRACE}-00f067aa0ba902b7-01-more-of-it"),
            format!("fe-{TRACE}-00f067aa0ba902b7-ff"),
        ] {
            assert_eq!(trace_id(good.as_bytes()), Some(TRACE), "{good}");
        }
    }

    #[test]
    fn anything_wrong_makes_the_whole_header_nothing() {
        let zero = "0".repeat(32);
        for bad in [
            String::new(),
            TRACE.to_owned(),
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("0-{TRACE}-00f067aa0ba902b7-01"),
            format!("0g-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{zero}-00f067aa0ba902b7-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            format!("00-{TRACE}0-00f067aa0ba902b7-01"),
            format!("00-{TRACE}-00f067aa0ba902b7"),
            format!("00-{TRACE}-00f067aa0ba902b7-1"),
            format!("00-{TRACE}-00f067aa0ba902b7-01-"),
            format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            format!("01-{TRACE}-00f067aa0ba902b7-01more"),
            format!(" 00-{TRACE}-00f067aa0ba902b7-01"),
            format!("00_{TRACE}_00f067aa0ba902b7_01"),
            format!("00-{}é-00f067aa0ba902b7-01", &TRACE[..30]),
        ] {
            assert_eq!(trace_id(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(trace_id(&[0xff; 55]), None);
    }
}
