//! Which of the languages at hand a client likes best: the lookup of RFC 4647 §3.4, and no more.

/// The most ranges of a header that are looked at. A browser sends five.
const RANGES_MAX: usize = 32;

/// The one of `available` that suits an `Accept-Language` header best, by the lookup scheme of RFC 4647 §3.4: the
/// ranges in the order of their weights, each shortened from its end until it is one of the tags. `None` when none
/// suits: answer in the default language then.
///
/// A range of weight 0, a malformed one and `*`, which says nothing about what is liked, are passed over, as is
/// whatever follows the 32nd range.
///
/// ```
/// use mainstay_errors::preferred_language;
///
/// let have = ["en", "de", "zh-Hant"];
/// assert_eq!(preferred_language("fr, de-CH;q=0.8, en;q=0.7", &have), Some("de"));
/// assert_eq!(preferred_language("zh-Hant-TW", &have), Some("zh-Hant"));
/// assert_eq!(preferred_language("ja, *;q=0.1", &have), None);
/// ```
#[must_use]
pub fn preferred_language<'a>(accept_language: &str, available: &[&'a str]) -> Option<&'a str> {
    let mut ranges: Vec<(u16, &str)> = accept_language
        .split(',')
        .take(RANGES_MAX)
        .filter_map(weighted)
        .collect();
    // Stable: of equal weights the first one given counts.
    ranges.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    ranges
        .into_iter()
        .find_map(|(_, range)| lookup(range, available))
}

fn lookup<'a>(range: &str, available: &[&'a str]) -> Option<&'a str> {
    let mut rest = range;
    loop {
        let found = available.iter().find(|tag| tag.eq_ignore_ascii_case(rest));
        if let Some(tag) = found {
            return Some(tag);
        }
        let (shorter, _) = rest.rsplit_once('-')?;
        // A single letter announces what stood behind it and goes with it.
        rest = match shorter.rsplit_once('-') {
            Some((front, single)) if single.len() == 1 => front,
            _ => shorter,
        };
    }
}

/// A range and its weight in thousandths.
fn weighted(part: &str) -> Option<(u16, &str)> {
    let mut fields = part.split(';').map(str::trim);
    let range = fields.next().filter(|range| is_range(range))?;
    let weight = match fields.next() {
        Some(field) => thousandths(field.strip_prefix("q=").or(field.strip_prefix("Q="))?)?,
        None => 1000,
    };
    (weight > 0).then_some((weight, range))
}

/// Not `*`, and nothing but letters, digits and dashes.
fn is_range(range: &str) -> bool {
    range.split('-').all(|part| {
        (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// A weight of RFC 9110 §12.4.2: 0 to 1 with at most three digits behind the point.
pub(crate) fn thousandths(weight: &str) -> Option<u16> {
    let (whole, digits) = weight.split_once('.').unwrap_or((weight, ""));
    let is_weight = matches!(whole, "0" | "1")
        && digits.len() <= 3
        && digits.bytes().all(|digit| digit.is_ascii_digit());
    let thousandths = format!("{whole}{digits:0<3}").parse().ok()?;
    (is_weight && thousandths <= 1000).then_some(thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heaviest_range_that_is_at_hand_wins() {
        let have = ["en", "de", "de-CH", "zh-Hant", "x-klingon"];
        for (header, expected) in [
            ("de", Some("de")),
            ("DE-ch", Some("de-CH")),
            ("de-CH-1996", Some("de-CH")),
            ("de-AT", Some("de")),
            ("en;q=0.5, de;q=0.9", Some("de")),
            ("en;q=0.9,de;q=0.9", Some("en")),
            ("en;q=0.001, fr", Some("en")),
            ("zh-Hant-a-ext-x-private", Some("zh-Hant")),
            ("zh", None),
            ("en;q=0", None),
            ("*", None),
            ("fr, *", None),
            ("", None),
            (",,;,", None),
            ("en;q=2", None),
            ("en;q=0.1234", None),
            ("en;q=-1", None),
            ("en;level=1", None),
            ("en_US", None),
            ("ünüs, de", Some("de")),
            ("-", None),
        ] {
            assert_eq!(preferred_language(header, &have), expected, "{header:?}");
        }
    }

    #[test]
    fn an_endless_header_is_read_to_its_32nd_range() {
        let long = format!("{}de", "fr,".repeat(RANGES_MAX - 1));
        assert_eq!(preferred_language(&long, &["de"]), Some("de"));
        let longer = format!("{}de", "fr,".repeat(RANGES_MAX));
        assert_eq!(preferred_language(&longer, &["de"]), None);
        assert_eq!(preferred_language(&"a-".repeat(100_000), &["de"]), None);
    }
}
