//! What stands after the `=` of a word: read, and refused where it could not be sent as it is.

use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, ExprPath, Lit, LitInt, LitStr, Result};

use crate::names;

/// One of a few words, bare or in quotes.
pub(super) fn choice(
    meta: &ParseNestedMeta<'_>,
    option: &str,
    known: &[(&'static str, &'static str)],
) -> Result<&'static str> {
    let value: Expr = meta.value()?.parse()?;
    let word = match &value {
        Expr::Path(ExprPath { path, .. }) => path.get_ident().map(ToString::to_string),
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) => Some(text.value()),
        _ => None,
    };
    let found = word.and_then(|word| known.iter().find(|(name, _)| *name == word));
    found.map(|(_, variant)| *variant).ok_or_else(|| {
        let words: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        Error::new(
            value.span(),
            format!("`{option}` is one of: {}", words.join(", ")),
        )
    })
}

pub(super) fn code(meta: &ParseNestedMeta<'_>) -> Result<LitStr> {
    checked(meta, |code| {
        (!names::is_code(code)).then(|| {
            "a code is at most 63 of a-z 0-9 _, starting with a letter: clients match on it"
                .to_owned()
        })
    })
}

pub(super) fn status(meta: &ParseNestedMeta<'_>) -> Result<u16> {
    meta.value()?.parse::<LitInt>()?.base10_parse()
}

pub(super) fn wait_ms(meta: &ParseNestedMeta<'_>) -> Result<u64> {
    let text: LitStr = meta.value()?.parse()?;
    names::milliseconds(&text.value()).ok_or_else(|| {
        Error::new(
            text.span(),
            "write a whole number and a unit: \"250ms\", \"2s\", \"5m\" or \"1h\"",
        )
    })
}

pub(super) fn pointer(meta: &ParseNestedMeta<'_>) -> Result<LitStr> {
    checked(meta, |pointer| {
        (!pointer.starts_with('/'))
            .then(|| "a JSON pointer starts with `/`, such as \"/email\"".to_owned())
    })
}

/// A whole `type`.
pub(super) fn type_uri(meta: &ParseNestedMeta<'_>) -> Result<LitStr> {
    checked(meta, |uri| {
        (!is_reference(uri)).then(|| {
            "`type` is an absolute URI, such as \"https://errors.example.com/gone\", or a path that starts with `/`: \
             a shorter reference would mean something else at each address (RFC 9457 §3.1.1)"
                .to_owned()
        })
    })
}

/// What a `type` is made of, by writing the code behind it.
pub(super) fn type_base(meta: &ParseNestedMeta<'_>) -> Result<LitStr> {
    checked(meta, |base| {
        if !is_reference(base) {
            return Some(
                "`type_base` is an absolute URI, such as \"https://errors.example.com/\", or a path that starts with `/`"
                    .to_owned(),
            );
        }
        base.ends_with(|c: char| c.is_ascii_alphanumeric())
            .then(|| {
                format!("the code follows right behind: end it with `/` or `#`, as in \"{base}/\"")
            })
    })
}

pub(super) fn domain(meta: &ParseNestedMeta<'_>) -> Result<LitStr> {
    checked(meta, |domain| {
        (!is_domain(domain)).then(|| {
            "`domain` is a whole DNS name in lower case, without scheme, port or path: \"orders.example.com\""
                .to_owned()
        })
    })
}

/// A header as its name and its value.
pub(super) fn header(meta: &ParseNestedMeta<'_>) -> Result<(LitStr, String, String)> {
    let line: LitStr = meta.value()?.parse()?;
    let text = line.value();
    let refuse = |message: String| Err(Error::new(line.span(), message));
    let Some((name, value)) = text.split_once(':') else {
        return refuse(
            "a header is a name and a value: `header = \"allow: GET, HEAD\"`".to_owned(),
        );
    };
    let value = value.trim_matches([' ', '\t']);
    if !is_header_name(name) {
        let lower = name.to_ascii_lowercase();
        return refuse(if is_header_name(&lower) {
            format!("header names are in lower case here: write `{lower}`")
        } else {
            format!("`{name}` is no header name: letters, digits and `-`, right before the `:`")
        });
    }
    let visible = |b: u8| b.is_ascii_graphic() || b == b' ' || b == b'\t';
    if value.is_empty() {
        return refuse(format!(
            "`{name}` has no value: `header = \"allow: GET, HEAD\"`"
        ));
    }
    if !value.bytes().all(visible) {
        return refuse(format!(
            "the value of `{name}` can hold visible ASCII only (RFC 9110 §5.5)"
        ));
    }
    match name {
        "retry-after" => refuse(
            "write `retry_after = \"2s\"` instead: it is sent in the document too, and on gRPC"
                .to_owned(),
        ),
        "cache-control" => refuse(
            "a problem document is sent with `cache-control: no-store`, because it names one request".to_owned(),
        ),
        "content-type" | "content-length" | "content-encoding" | "content-language"
        | "content-location" | "transfer-encoding" | "date" | "x-request-id" => refuse(format!(
            "`{name}` belongs to the document and to the server that sends it: leave it out"
        )),
        _ => Ok((line.clone(), name.to_owned(), value.to_owned())),
    }
}

fn checked(
    meta: &ParseNestedMeta<'_>,
    refused: impl FnOnce(&str) -> Option<String>,
) -> Result<LitStr> {
    let text: LitStr = meta.value()?.parse()?;
    match refused(&text.value()) {
        Some(message) => Err(Error::new(text.span(), message)),
        None => Ok(text),
    }
}

/// An absolute URI, or a path of the service: the references that mean one thing wherever they are read.
fn is_reference(text: &str) -> bool {
    let scheme = text.split_once(':').is_some_and(|(scheme, rest)| {
        !rest.is_empty()
            && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    });
    // RFC 3986 §2 leaves these out.
    let no_uri = |b: u8| !b.is_ascii_graphic() || b"\"<>\\^`{|}".contains(&b);
    (scheme || (text.starts_with('/') && !text.starts_with("//"))) && !text.bytes().any(no_uri)
}

/// At least two labels: what one word names is not the caller's to know.
fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.contains('.') && text.split('.').all(label)
}

fn is_header_name(text: &str) -> bool {
    let token =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_means_one_thing_wherever_it_is_read() {
        for good in [
            "https://e.example/",
            "urn:problem:gone",
            "about:blank",
            "/problems/gone",
            "https://iana.org/assignments/http-problem-types#quota-exceeded",
        ] {
            assert!(is_reference(good), "{good}");
        }
        for bad in [
            "",
            "gone",
            "../gone",
            "#gone",
            "//e.example/",
            "https:",
            "1x:y",
            "/a b",
            "/ü",
            "/{id}",
        ] {
            assert!(!is_reference(bad), "{bad}");
        }
    }

    #[test]
    fn a_domain_is_a_name_and_nothing_else() {
        for good in ["orders.example.com", "a.b", "x-1.example"] {
            assert!(is_domain(good), "{good}");
        }
        for bad in [
            "",
            "orders",
            "Orders.example.com",
            "https://orders.example.com",
            "orders.example.com:443",
            "orders.example.com/",
            "a b.example",
            "-a.example",
            "a-.example",
            "a..b",
            ".a",
            "a.",
            "ü.example",
        ] {
            assert!(!is_domain(bad), "{bad}");
        }
        assert!(!is_domain(&format!("{}.example", "a".repeat(64))));
        assert!(!is_domain(&"a.".repeat(127)));
    }

    #[test]
    fn header_names_are_lower_case_tokens() {
        assert!(is_header_name("www-authenticate"));
        for bad in ["", "Allow", "allow ", "x y", "x:y", "ü", "x\r\ny"] {
            assert!(!is_header_name(bad), "{bad:?}");
        }
    }
}
