//! `grpc-message`: the text for people, bounded as it travels.

/// The most bytes of a `grpc-message` as it travels, percent-encoded (2 KiB): text that is not ASCII takes three for
/// each of its own. With [`STATUS_BYTES_MAX`](crate::STATUS_BYTES_MAX) of details the trailers stay under the
/// 16 KiB of headers that clients accept by default.
pub const MESSAGE_BYTES_MAX: usize = 2048;

/// The text up to the bound, cut between two characters.
pub(super) fn bounded(text: &str) -> &str {
    let mut travelling = 0;
    for (at, c) in text.char_indices() {
        travelling += if is_bare(c) { 1 } else { 3 * c.len_utf8() };
        if travelling > MESSAGE_BYTES_MAX {
            return text.split_at_checked(at).map_or("", |(kept, _)| kept);
        }
    }
    text
}

/// Travels as it is. The gRPC protocol encodes `%` and what is not printable; tonic also encodes what HTML minds.
fn is_bare(c: char) -> bool {
    c.is_ascii_graphic() && !matches!(c, '"' | '#' | '%' | '<' | '>' | '`' | '?' | '{' | '}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tonic::{Code, Status};

    use super::*;

    fn travelling(text: &str) -> usize {
        let mut headers = http::HeaderMap::new();
        Status::new(Code::Internal, text)
            .add_header(&mut headers)
            .unwrap();
        headers
            .get("grpc-message")
            .map_or(0, http::HeaderValue::len)
    }

    #[test]
    fn a_text_is_cut_only_where_it_must_be() {
        let fits = "a".repeat(MESSAGE_BYTES_MAX);
        assert_eq!(bounded(&fits), fits);
        assert_eq!(bounded(&format!("{fits}a")), fits);
        // 2048 / 6: an umlaut is two bytes, each of which travels as three.
        assert_eq!(bounded(&"ä".repeat(500)), "ä".repeat(341));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_text_travels_in_more_bytes(text in "(.|[ -~]|\n){0,900}") {
            let kept = bounded(&text);
            prop_assert!(travelling(kept) <= MESSAGE_BYTES_MAX);
            prop_assert!(text.starts_with(kept));
            prop_assert!(kept.len() == text.len() || travelling(kept) > MESSAGE_BYTES_MAX - 12);
        }
    }
}
