//! Properties of what is read from a request's headers: no value makes an unsound id or an unknown language.

use http::HeaderValue;
use mainstay_errors::{RequestId, preferred_language};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn an_id_from_any_header_is_well_formed(value in prop::collection::vec(32u8..=255, 0..140)) {
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            for id in [RequestId::from_header(&value), RequestId::from_traceparent(&value)].into_iter().flatten() {
                prop_assert_eq!(RequestId::parse(id.as_str()), Some(id));
            }
        }
    }

    #[test]
    fn a_traceparent_is_taken_whole_or_not_at_all(
        good in "[0-9a-e][0-9a-f]-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}",
        at in 0usize..55,
        byte in 32u8..127,
    ) {
        let trace = |bytes: &[u8]| {
            let id = RequestId::from_traceparent(&HeaderValue::from_bytes(bytes).unwrap());
            id.map(|id| id.as_str().to_owned())
        };
        // Of 48 random digits, some are not zero.
        prop_assert_eq!(trace(good.as_bytes()), Some(good[3..35].to_owned()));
        let mut bad = good.into_bytes();
        bad[at] = byte;
        let still_good = matches!(at, 2 | 35 | 52) == (byte == b'-')
            && (byte == b'-' || matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        prop_assert_eq!(trace(&bad).is_some(), still_good && !bad.starts_with(b"ff"));
    }

    #[test]
    fn a_language_is_one_of_those_at_hand(header in "[a-zA-Z0-9*,;q=.\\- ]{0,60}") {
        let have = ["en", "de-CH", "zh-Hant"];
        let found = preferred_language(&header, &have);
        // And was asked for: the ranges are shortened, so the tag itself stands in the header.
        let header = header.to_ascii_lowercase();
        let was_asked_for = |tag: &str| header.contains(&tag.to_ascii_lowercase());
        prop_assert!(found.is_none_or(|tag| have.contains(&tag) && was_asked_for(tag)));
    }
}
