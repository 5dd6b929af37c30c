//! Headers that a document brings along beside its own.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::Shared;

/// The headers which RFC 9110 and the Fetch standard want beside a document, where it is this layer that knows them.
pub(super) fn complete(status: StatusCode, headers: &mut HeaderMap, shared: &Shared) {
    if let (StatusCode::UNAUTHORIZED, Some(challenge)) = (status, &shared.challenge) {
        let entry = headers.entry(header::WWW_AUTHENTICATE);
        entry.or_insert_with(|| challenge.clone());
    }
    if headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        // A script of another origin sees no header but a handful, and these are how it comes back and what it asks
        // support about.
        let seen = ["Retry-After", "X-Request-Id"];
        // With credentials a `*` is no wildcard (Fetch §3.3.3).
        let star = !headers.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
        add_to_list(headers, &header::ACCESS_CONTROL_EXPOSE_HEADERS, &seen, star);
    }
}

/// Adds names to a header that lists names, those that are missing, in one line; with `star`, a `*` stands for all of
/// them.
pub(super) fn add_to_list(headers: &mut HeaderMap, name: &HeaderName, wanted: &[&str], star: bool) {
    let mut names: Vec<&str> = Vec::new();
    let mut is_readable = true;
    for line in headers.get_all(name) {
        match line.to_str() {
            Ok(line) => names.extend(line.split(',').map(str::trim)),
            Err(_) => is_readable = false,
        }
    }
    names.retain(|name| !name.is_empty());
    let is_there = |wanted: &str| {
        let mut names = names.iter();
        names.any(|name| (star && *name == "*") || name.eq_ignore_ascii_case(wanted))
    };
    let missing: Vec<&str> = wanted
        .iter()
        .copied()
        .filter(|wanted| !is_there(wanted))
        .collect();
    if missing.is_empty() {
        return;
    }
    if is_readable {
        names.extend(missing);
        if let Ok(line) = HeaderValue::from_str(&names.join(", ")) {
            headers.insert(name, line);
        }
    } else if let Ok(line) = HeaderValue::from_str(&missing.join(", ")) {
        headers.append(name, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_merged_without_repeating_a_name() {
        let merged = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::VARY, HeaderValue::from_static(line));
            }
            add_to_list(&mut headers, &header::VARY, &["A", "b"], true);
            let lines = headers.get_all(header::VARY).iter();
            lines
                .map(|line| line.to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(merged(&[]), ["A, b"]);
        assert_eq!(merged(&["c"]), ["c, A, b"]);
        assert_eq!(merged(&["c , a,"]), ["c, a, b"]);
        assert_eq!(merged(&["B", "a"]), ["B", "a"]);
        assert_eq!(merged(&["c", "a"]), ["c, a, b"]);
        assert_eq!(merged(&["*"]), ["*"]);
    }

    #[test]
    fn a_line_that_is_not_text_is_kept() {
        let mut headers = HeaderMap::new();
        headers.append(header::VARY, HeaderValue::from_bytes(b"\xff").unwrap());
        add_to_list(&mut headers, &header::VARY, &["a"], true);
        let mut lines = headers.get_all(header::VARY).iter();
        assert_eq!(lines.next().unwrap().as_bytes(), b"\xff");
        assert_eq!(lines.next().unwrap(), "a");
    }
}
