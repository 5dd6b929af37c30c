//! The words the attributes know, and what to say about a word they do not know.

/// Category in snake case, its variant, and the class (4 or 5) of its HTTP status.
///
/// A twin of the table in `mainstay-errors`; `every_category_can_be_derived` there keeps them equal.
pub(crate) const CATEGORIES: [(&str, &str, u16); 16] = [
    ("cancelled", "Cancelled", 4),
    ("unknown", "Unknown", 5),
    ("invalid_argument", "InvalidArgument", 4),
    ("deadline_exceeded", "DeadlineExceeded", 5),
    ("not_found", "NotFound", 4),
    ("already_exists", "AlreadyExists", 4),
    ("permission_denied", "PermissionDenied", 4),
    ("resource_exhausted", "ResourceExhausted", 4),
    ("failed_precondition", "FailedPrecondition", 4),
    ("aborted", "Aborted", 4),
    ("out_of_range", "OutOfRange", 4),
    ("unimplemented", "Unimplemented", 5),
    ("internal", "Internal", 5),
    ("unavailable", "Unavailable", 5),
    ("data_loss", "DataLoss", 5),
    ("unauthenticated", "Unauthenticated", 4),
];

/// Retry advice as it is written and its variant.
pub(crate) const RETRIES: [(&str, &str); 6] = [
    ("never", "Never"),
    ("backoff", "Backoff"),
    ("same_key_only", "SameKeyOnly"),
    ("transaction", "Transaction"),
    ("after_auth", "AfterAuth"),
    ("after_state_change", "AfterStateChange"),
];

/// Outcome as it is written and its variant.
pub(crate) const OUTCOMES: [(&str, &str); 3] = [
    ("not_applied", "NotApplied"),
    ("applied", "Applied"),
    ("unknown", "Unknown"),
];

/// Members of a problem document that no extension may take: a twin of `RESERVED_MEMBERS`.
pub(crate) const RESERVED: [&str; 11] = [
    "type",
    "title",
    "status",
    "detail",
    "instance",
    "code",
    "retry",
    "retry_after",
    "outcome",
    "request_id",
    "errors",
];

/// Statuses that RFC 9110 §15 forbids to send without a header, and what the header looks like.
pub(crate) const HEADERS_OWED: [(u16, &str, &str); 3] = [
    (405, "allow", "GET, HEAD"),
    (407, "proxy-authenticate", "Basic"),
    (426, "upgrade", "HTTP/2.0"),
];

/// What clients can match on.
pub(crate) fn is_code(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Why a name cannot be an extension member.
pub(crate) fn extension_refused(name: &str) -> Option<String> {
    if RESERVED.contains(&name) {
        return Some(format!(
            "`{name}` is a member every problem document has; send this field under another name: `#[fault(ext = \"..\")]`"
        ));
    }
    let well_formed = name.len() >= 3
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    (!well_formed).then(|| {
        format!(
            "`{name}` cannot name an extension member: RFC 9457 asks for at least three of A-Z a-z 0-9 _, starting with a letter; \
             write `#[fault(ext = \"..\")]`"
        )
    })
}

/// `OrderNotFound` as `order_not_found`, `HTTPError` as `http_error`.
pub(crate) fn snake_case(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut out = String::with_capacity(name.len() + 4);
    for (at, c) in chars.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| chars.get(at));
        let after = chars.get(at + 1);
        let starts_word = c.is_uppercase()
            && before.is_some_and(|before| {
                *before != '_'
                    && (!before.is_uppercase() || after.is_some_and(|after| after.is_lowercase()))
            });
        if starts_word {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// The known word nearest to a mistyped one, if any is near.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= 3)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edits from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let here = (diagonal + usize::from(x != y))
                .min(left + 1)
                .min(*cell + 1);
            diagonal = std::mem::replace(cell, here);
            left = here;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// Reads `250ms`, `2s`, `5m`, `1h` as milliseconds.
pub(crate) fn milliseconds(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at_checked(digits)?;
    let scale = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_codes() {
        for (name, code) in [
            ("OrderNotFound", "order_not_found"),
            ("HTTPError", "http_error"),
            ("Tls13Failed", "tls13_failed"),
            ("X", "x"),
            ("Already_Snake", "already_snake"),
        ] {
            assert_eq!(snake_case(name), code);
        }
    }

    #[test]
    fn a_mistyped_word_finds_its_neighbour() {
        let words = || CATEGORIES.iter().map(|(word, ..)| *word);
        assert_eq!(nearest("not_fond", words()), Some("not_found"));
        assert_eq!(nearest("unavailble", words()), Some("unavailable"));
        assert_eq!(nearest("banana", words()), None);
    }

    #[test]
    fn waits_have_a_unit() {
        assert_eq!(milliseconds("250ms"), Some(250));
        assert_eq!(milliseconds("2s"), Some(2_000));
        assert_eq!(milliseconds("1h"), Some(3_600_000));
        for bad in ["", "2", "s", "1.5s", "-1s", "2 s", "99999999999999999999s"] {
            assert_eq!(milliseconds(bad), None, "{bad}");
        }
    }
}
