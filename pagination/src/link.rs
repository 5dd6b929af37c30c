//! The `Link` header of a page (RFC 8288).

use std::fmt::Write;

use http::{HeaderValue, Uri};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::page::PageInfo;

pub(crate) fn header(info: &PageInfo, uri: &Uri) -> Option<HeaderValue> {
    let mut out = String::with_capacity(256);
    push(&mut out, uri, None, "first");
    if let Some(cursor) = info.start_cursor.as_ref().filter(|_| info.has_previous) {
        push(&mut out, uri, Some(("before", cursor.as_str())), "prev");
    }
    if let Some(cursor) = info.end_cursor.as_ref().filter(|_| info.has_next) {
        push(&mut out, uri, Some(("after", cursor.as_str())), "next");
    }
    HeaderValue::try_from(out).ok()
}

/// Appends one link: the URI without any cursor of its own, with this one instead.
fn push(out: &mut String, uri: &Uri, cursor: Option<(&str, &str)>, rel: &str) {
    out.push_str(if out.is_empty() { "<" } else { ", <" });
    if let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) {
        escape(out, scheme);
        out.push_str("://");
        escape(out, authority.as_str());
    } else if uri.path().starts_with("//") {
        // Alone, such a path would name a host; behind a dot segment it stays a path.
        out.push_str("/.");
    }
    escape(out, uri.path());
    let mut separator = '?';
    for pair in uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty() && !names_cursor(pair))
    {
        out.push(separator);
        escape(out, pair);
        separator = '&';
    }
    if let Some((name, cursor)) = cursor {
        out.push(separator);
        out.push_str(name);
        out.push('=');
        escape(out, cursor);
    }
    // Writing to a String cannot fail.
    let _ = write!(out, ">; rel=\"{rel}\"");
}

/// Whether the pair is one of the two cursor parameters, however it is spelt.
fn names_cursor(pair: &str) -> bool {
    let name = pair.split('=').next().unwrap_or_default();
    matches!(
        &*percent_decode_str(name).decode_utf8_lossy(),
        "after" | "before"
    )
}

/// What a URI cannot hold though `http::Uri` lets some of it pass; inside `<...>` it would end the link.
const UNSAFE: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'<')
    .add(b'>')
    .add(b'"')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

fn escape(out: &mut String, text: &str) {
    out.extend(utf8_percent_encode(text, UNSAFE));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(uri: &str, has_previous: bool, has_next: bool) -> String {
        let info = PageInfo {
            has_next,
            has_previous,
            start_cursor: Some("S".into()),
            end_cursor: Some("E".into()),
        };
        header(&info, &uri.parse().unwrap())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    }

    #[test]
    fn other_parameters_stay_and_cursors_are_replaced() {
        assert_eq!(
            links(
                "/v1/payments?currency=EUR&after=OLD&limit=2&%62efore=X",
                true,
                true
            ),
            "</v1/payments?currency=EUR&limit=2>; rel=\"first\", \
             </v1/payments?currency=EUR&limit=2&before=S>; rel=\"prev\", \
             </v1/payments?currency=EUR&limit=2&after=E>; rel=\"next\""
        );
    }

    #[test]
    fn the_only_page_links_to_itself_alone() {
        assert_eq!(
            links("https://api.example/p", false, false),
            "<https://api.example/p>; rel=\"first\""
        );
    }

    #[test]
    fn an_empty_page_has_no_cursor_to_link_to() {
        let info = PageInfo {
            has_previous: true,
            ..PageInfo::default()
        };
        let header = header(&info, &Uri::from_static("/p?after=X")).unwrap();
        assert_eq!(header, "</p>; rel=\"first\"");
    }

    #[test]
    fn a_path_of_two_slashes_does_not_lead_to_another_host() {
        assert_eq!(
            links("//evil.example/p", false, false),
            "</.//evil.example/p>; rel=\"first\""
        );
        assert_eq!(
            links("https://api.example//evil.example/p", false, false),
            "<https://api.example//evil.example/p>; rel=\"first\""
        );
    }

    #[test]
    fn a_hostile_uri_cannot_end_the_link() {
        let uri = "/p?q=%3E%22&x={\"a\"}|y".parse::<Uri>();
        if let Ok(uri) = uri {
            let text = header(&PageInfo::default(), &uri).unwrap();
            assert_eq!(text.to_str().unwrap().matches('>').count(), 1);
        }
    }
}
