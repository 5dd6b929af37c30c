//! The `Link` header of a page (RFC 8288).

use http::{HeaderValue, Uri};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::page::PageInfo;
use crate::preset::{Preset, Role};

/// The neighbours of a page, as URIs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Links {
    /// The list from its start.
    pub first: String,
    /// The page before, if there is one.
    pub prev: Option<String>,
    /// The page after, if there is one.
    pub next: Option<String>,
    /// The list from its end, where the preset has a parameter for it and the number of rows is known.
    pub last: Option<String>,
}

impl Links {
    /// With `rows`, the last page too.
    pub(crate) fn of(info: &PageInfo, preset: Preset, uri: &Uri, rows: Option<u32>) -> Self {
        let place = Place::of(preset, uri);
        let start = info.start_cursor.as_ref().filter(|_| info.has_previous);
        let end = info.end_cursor.as_ref().filter(|_| info.has_next);
        Self {
            first: place.link(Role::First, None).unwrap_or_default(),
            prev: start.and_then(|c| place.link(Role::Before, Some(c.as_str()))),
            next: end.and_then(|c| place.link(Role::After, Some(c.as_str()))),
            last: rows.and_then(|rows| place.last(rows)),
        }
    }

    /// They as a `Link` header (RFC 8288); `None` if they cannot stand in a header.
    #[must_use]
    pub fn header(&self) -> Option<HeaderValue> {
        let links = [
            (Some(&self.first), "first"),
            (self.prev.as_ref(), "prev"),
            (self.next.as_ref(), "next"),
            (self.last.as_ref(), "last"),
        ];
        let links: Vec<_> = links
            .into_iter()
            .filter_map(|(uri, rel)| Some(format!("<{}>; rel=\"{rel}\"", uri?)))
            .collect();
        HeaderValue::try_from(links.join(", ")).ok()
    }
}

/// Where a list is: its URI without the parameters that say which page.
struct Place<'u> {
    preset: Preset,
    base: String,
    /// What is kept, as it was spelt. The number of rows is among it, unless it was given by `first` or `last`.
    kept: Vec<(&'u str, Option<Role>)>,
    /// How many rows the request asked for, as it was spelt.
    rows: Option<&'u str>,
}

impl<'u> Place<'u> {
    fn of(preset: Preset, uri: &'u Uri) -> Self {
        let mut base = String::with_capacity(128);
        if let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) {
            escape(&mut base, scheme);
            base.push_str("://");
            escape(&mut base, authority.as_str());
        } else if uri.path().starts_with("//") {
            // Alone, such a path would name a host; behind a dot segment it stays a path.
            base.push_str("/.");
        }
        escape(&mut base, uri.path());

        let (mut kept, mut rows) = (Vec::new(), None);
        let query = uri.query().unwrap_or_default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let role = role(preset, name);
            match role {
                None => kept.push((pair, role)),
                Some(Role::Rows) => {
                    rows = Some(value);
                    kept.push((pair, role));
                }
                Some(Role::First | Role::Last) => rows = Some(value),
                Some(Role::After | Role::Before) => {}
            }
        }
        Self {
            preset,
            base,
            kept,
            rows,
        }
    }

    /// The page that begins there: after or before the cursor, or at the start.
    fn link(&self, at: Role, cursor: Option<&str>) -> Option<String> {
        let mut out = Query::new(self.base.clone());
        let mut counted = false;
        for (pair, role) in &self.kept {
            out.pair(pair);
            counted |= *role == Some(Role::Rows);
        }
        if let Some(rows) = self.rows.filter(|_| !counted) {
            let end = if at == Role::Before {
                Role::Last
            } else {
                Role::First
            };
            let named = self.preset.named(Role::Rows).or(self.preset.named(end));
            out.parameter(named?, rows);
        }
        if let Some(cursor) = cursor {
            out.parameter(self.preset.named(at)?, cursor);
        }
        Some(out.text)
    }

    /// The last page.
    fn last(&self, rows: u32) -> Option<String> {
        let mut out = Query::new(self.base.clone());
        for (pair, role) in &self.kept {
            if role.is_none() {
                out.pair(pair);
            }
        }
        out.parameter(self.preset.named(Role::Last)?, &rows.to_string());
        Some(out.text)
    }
}

/// A URI that gets a query.
struct Query {
    text: String,
    separator: char,
}

impl Query {
    const fn new(text: String) -> Self {
        Self {
            text,
            separator: '?',
        }
    }

    /// A pair as somebody spelt it.
    fn pair(&mut self, pair: &str) {
        self.text.push(self.separator);
        self.separator = '&';
        escape(&mut self.text, pair);
    }

    fn parameter(&mut self, name: &str, value: &str) {
        self.pair(&name.replace('[', "%5B").replace(']', "%5D"));
        self.text.push('=');
        escape(&mut self.text, value);
    }
}

/// What the parameter means, however it is spelt.
fn role(preset: Preset, name: &str) -> Option<Role> {
    let name = percent_decode_str(name).decode_utf8_lossy();
    let mut parameters = preset.parameters().iter();
    parameters
        .find(|(known, _)| *known == name)
        .map(|(_, role)| *role)
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

    fn info(has_previous: bool, has_next: bool) -> PageInfo {
        PageInfo {
            has_next,
            has_previous,
            start_cursor: Some("S".into()),
            end_cursor: Some("E".into()),
        }
    }

    fn header(info: &PageInfo, uri: &Uri) -> Option<HeaderValue> {
        Links::of(info, Preset::Plain, uri, None).header()
    }

    fn links(uri: &str, has_previous: bool, has_next: bool) -> String {
        header(&info(has_previous, has_next), &uri.parse().unwrap())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    }

    /// Every preset's four links, with the number of rows given in each way that it knows.
    #[test]
    fn each_preset_links_under_its_own_names() {
        for (preset, query, [first, prev, next, last]) in [
            (
                Preset::Plain,
                "limit=2&after=X&q=1",
                [
                    "limit=2&q=1",
                    "limit=2&q=1&before=S",
                    "limit=2&q=1&after=E",
                    "q=1&last=2",
                ],
            ),
            (
                Preset::Plain,
                "last=2&q=1",
                [
                    "q=1&limit=2",
                    "q=1&limit=2&before=S",
                    "q=1&limit=2&after=E",
                    "q=1&last=2",
                ],
            ),
            (Preset::Plain, "", ["", "before=S", "after=E", "last=2"]),
            (
                Preset::GitHub,
                "per_page=2&before=X&limit=9",
                [
                    "per_page=2&limit=9",
                    "per_page=2&limit=9&before=S",
                    "per_page=2&limit=9&after=E",
                    "limit=9&last=2",
                ],
            ),
            (
                Preset::Aip158,
                "page_size=2&page_token=X",
                ["page_size=2", "", "page_size=2&page_token=E", ""],
            ),
            (
                Preset::JsonApi,
                "page%5Bsize%5D=2&page%5bafter%5d=X&filter%5Ba%5D=1",
                [
                    "page%5Bsize%5D=2&filter%5Ba%5D=1",
                    "page%5Bsize%5D=2&filter%5Ba%5D=1&page%5Bbefore%5D=S",
                    "page%5Bsize%5D=2&filter%5Ba%5D=1&page%5Bafter%5D=E",
                    "",
                ],
            ),
            (
                Preset::Relay,
                "first=2&after=X",
                ["first=2", "last=2&before=S", "first=2&after=E", "last=2"],
            ),
            (
                Preset::Relay,
                "last=2&before=X",
                ["first=2", "last=2&before=S", "first=2&after=E", "last=2"],
            ),
            (Preset::Relay, "", ["", "before=S", "after=E", "last=2"]),
        ] {
            let uri = format!("/p?{query}").parse().unwrap();
            let links = Links::of(&info(true, true), preset, &uri, Some(2));
            let query_of = |uri: Option<&String>| match uri.map(|uri| uri.split_once('?')) {
                Some(Some((path, query))) => {
                    assert_eq!(path, "/p");
                    query.to_owned()
                }
                _ => String::new(),
            };
            let found = [
                Some(&links.first),
                links.prev.as_ref(),
                links.next.as_ref(),
                links.last.as_ref(),
            ];
            assert_eq!(
                found.map(query_of),
                [first, prev, next, last],
                "{preset:?} {query}"
            );
        }
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
