//! URI references (RFC 3986): what a relative `type` or `instance` means at the address that answered.
//!
//! Only resolution is needed, and it must leave an absolute reference byte for byte as it was, because a
//! `type` is compared as a string. Parsers for browsers normalise what they read.

/// The five parts of a reference, as RFC 3986 appendix B takes them apart. Total: any text has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parts<'a> {
    scheme: Option<&'a str>,
    authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
    fragment: Option<&'a str>,
}

/// The reference as it reads at `base`, without the credentials that may stand in that: they are the caller's, and what
/// is resolved is passed on (RFC 9110 §4.2.4 has nobody send them). `None` when there is nothing to do: it is absolute already, or the base is not.
pub(super) fn resolve(base: &str, reference: &str) -> Option<String> {
    let (mut base, relative) = (parts(base), parts(reference));
    let scheme = base.scheme?;
    base.authority = base.authority.map(|authority| {
        authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host)
    });
    if relative.scheme.is_some() {
        return None;
    }
    // RFC 3986 §5.2.2, without the branch for a reference that has a scheme.
    let (authority, path, query) = if relative.authority.is_some() {
        (
            relative.authority,
            without_dots(relative.path),
            relative.query,
        )
    } else if relative.path.is_empty() {
        let query = relative.query.or(base.query);
        (base.authority, base.path.to_owned(), query)
    } else if relative.path.starts_with('/') {
        (base.authority, without_dots(relative.path), relative.query)
    } else {
        (
            base.authority,
            without_dots(&merged(&base, relative.path)),
            relative.query,
        )
    };
    let mut out = format!("{scheme}:");
    for (lead, part) in [
        ("//", authority),
        ("", Some(&*path)),
        ("?", query),
        ("#", relative.fragment),
    ] {
        if let Some(part) = part {
            out.push_str(lead);
            out.push_str(part);
        }
    }
    Some(out)
}

/// Whether a reference says by itself what it points at.
pub(crate) fn is_absolute(reference: &str) -> bool {
    parts(reference).scheme.is_some()
}

fn parts(reference: &str) -> Parts<'_> {
    let (rest, fragment) = halves(reference, '#');
    let (rest, query) = halves(rest, '?');
    let (scheme, rest) = match rest.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme), rest),
        _ => (None, rest),
    };
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => {
            let end = rest.find('/').unwrap_or(rest.len());
            let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
            (Some(authority), path)
        }
        None => (None, rest),
    };
    Parts {
        scheme,
        authority,
        path,
        query,
        fragment,
    }
}

fn halves(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at)
        .map_or((text, None), |(before, after)| (before, Some(after)))
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// §5.2.3: the base's path up to its last slash, then the reference's.
fn merged(base: &Parts<'_>, path: &str) -> String {
    if base.authority.is_some() && base.path.is_empty() {
        return format!("/{path}");
    }
    let folder = base.path.rfind('/').and_then(|at| base.path.get(..=at));
    format!("{}{path}", folder.unwrap_or_default())
}

/// §5.2.4: `.` and `..` taken out. Dots above the root are dropped.
fn without_dots(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    let lead = if rooted { "/" } else { "" };
    format!("{lead}{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 3986 §5.4, normal and abnormal; `g:h` is the one that is left alone.
    #[test]
    fn references_resolve_as_the_rfc_says() {
        let base = "http://a/b/c/d;p?q";
        for (reference, target) in [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("#s", "http://a/b/c/d;p?q#s"),
            ("g#s", "http://a/b/c/g#s"),
            ("g?y#s", "http://a/b/c/g?y#s"),
            (";x", "http://a/b/c/;x"),
            ("g;x", "http://a/b/c/g;x"),
            ("g;x?y#s", "http://a/b/c/g;x?y#s"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("./", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../..", "http://a/"),
            ("../../", "http://a/"),
            ("../../g", "http://a/g"),
            ("../../../g", "http://a/g"),
            ("../../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("/../g", "http://a/g"),
            ("g.", "http://a/b/c/g."),
            (".g", "http://a/b/c/.g"),
            ("g..", "http://a/b/c/g.."),
            ("..g", "http://a/b/c/..g"),
            ("./../g", "http://a/b/g"),
            ("./g/.", "http://a/b/c/g/"),
            ("g/./h", "http://a/b/c/g/h"),
            ("g/../h", "http://a/b/c/h"),
            ("g;x=1/./y", "http://a/b/c/g;x=1/y"),
            ("g;x=1/../y", "http://a/b/c/y"),
            ("g?y/./x", "http://a/b/c/g?y/./x"),
            ("g?y/../x", "http://a/b/c/g?y/../x"),
            ("g#s/./x", "http://a/b/c/g#s/./x"),
            ("g#s/../x", "http://a/b/c/g#s/../x"),
        ] {
            assert_eq!(
                resolve(base, reference).as_deref(),
                Some(target),
                "{reference}"
            );
        }
    }

    #[test]
    fn what_is_absolute_stays_and_what_has_no_base_stays() {
        for absolute in [
            "g:h",
            "http:g",
            "about:blank",
            "urn:uuid:0#x",
            "HTTPS://A/../b",
        ] {
            assert_eq!(resolve("http://a/b", absolute), None, "{absolute}");
            assert!(is_absolute(absolute));
        }
        assert_eq!(resolve("/only/a/path", "x"), None);
        assert_eq!(resolve("", "x"), None);
        assert_eq!(resolve("http://a", "x").as_deref(), Some("http://a/x"));
        assert_eq!(resolve("http://a?q", "?é%").as_deref(), Some("http://a?é%"));
        // The last `@` ends the credentials; what the reference itself names stays.
        for (reference, target) in [
            ("x", "http://a:1/x"),
            ("#x", "http://a:1/b?q#x"),
            ("//u@c/x", "http://u@c/x"),
        ] {
            assert_eq!(
                resolve("http://user:w@rd@a:1/b?q", reference).as_deref(),
                Some(target)
            );
        }
        assert!(!is_absolute("1:2") && !is_absolute("/a:b"));
    }
}
