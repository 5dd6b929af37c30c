//! What a code becomes for others: a `type` reference for programs, a title for people.

/// Base and code as one reference. Codes are meant to be snake case; any other byte is escaped, so
/// that `type` is a valid URI reference whatever it is given.
pub(crate) fn type_of(base: &str, code: &str) -> String {
    let mut uri = String::with_capacity(base.len() + code.len());
    uri.push_str(base);
    for byte in code.bytes() {
        if is_unreserved(byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

/// What RFC 3986 §2.3 lets stand for itself everywhere.
pub(super) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// `order_not_found` as `Order not found`.
pub(crate) fn words(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    for c in code.chars() {
        match c {
            '_' | '-' => out.push(' '),
            c if out.is_empty() => out.extend(c.to_uppercase()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_made_of_the_code() {
        assert_eq!(words("idempotency_key_missing"), "Idempotency key missing");
        assert_eq!(words(""), "");
    }
}
