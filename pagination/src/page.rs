//! A page as the application gets it and as it goes over the wire.

use http::{HeaderValue, Uri};
use serde::{Deserialize, Serialize};

use crate::cursor::Cursor;
use crate::link::Links;
use crate::preset::Preset;
use crate::total::TotalRows;

/// Some rows of a list, in the list's order, and what lies on either side of them.
///
/// Serialises as `{"items": [...], "page": {...}}`, with [`PageInfo`] as `page`, and `total` if it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[must_use]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// What lies on either side, and the cursors to get there.
    #[serde(rename = "page")]
    pub info: PageInfo,
    /// How many rows the whole list has, if that was asked for ([`Total`](crate::Total)); left out otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<TotalRows>,
    /// Each row's cursor, if they were asked for (`PageQuery::cursors`), as Relay's edges want them; otherwise
    /// none. Not serialised with the page.
    #[serde(skip)]
    pub cursors: Vec<Cursor>,
}

/// What lies on either side of a page.
///
/// On a page between two cursors the flag of the side it goes to speaks of the rows up to the other cursor,
/// and the flag of the side it came from of the whole list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct PageInfo {
    /// Whether rows follow. Exact on a forward page; on a backward one as [`Probe`](crate::Probe) says.
    pub has_next: bool,
    /// Whether rows precede. Exact on a backward page; on a forward one as [`Probe`](crate::Probe) says.
    pub has_previous: bool,
    /// The first row's cursor, for `before`; none on an empty page.
    pub start_cursor: Option<Cursor>,
    /// The last row's cursor, for `after`; none on an empty page.
    pub end_cursor: Option<Cursor>,
}

/// How to learn whether there are rows on the side a page came from. (The side it goes to is always known
/// exactly: one row more than asked is read.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Probe {
    /// Not asked: the flag is `false`, as the Relay specification permits when it would cost something.
    #[default]
    Lazy,
    /// Asked within the page's own statement: one index lookup more.
    Exact,
}

impl<T> Page<T> {
    /// Turns each row into something else, for instance its public form.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(f).collect(),
            info: self.info,
            total: self.total,
            cursors: self.cursors,
        }
    }

    /// The `Link` header (RFC 8288) of a page served at `uri`: `first`, and `prev` and `next` where there
    /// are such pages. All parameters of `uri` stay, apart from `after` and `before`, which are replaced.
    ///
    /// Give it the URI the client used: in a nested axum router that is `OriginalUri`, since `Uri` there lacks
    /// the prefix. A URI with a host (HTTP/2 requests have one) makes absolute links to that host, behind a
    /// proxy perhaps not the public one; its path and query alone make relative links, which are always right.
    ///
    /// `None` if the URI cannot stand in a header.
    #[must_use]
    pub fn link_header(&self, uri: &Uri) -> Option<HeaderValue> {
        self.links(Preset::Plain, uri).header()
    }

    /// The neighbours of a page served at `uri` (see [`link_header`](Self::link_header)), under the preset's names.
    ///
    /// There is no `last` among them, since not every list can be read from its end: `Paged::links` has it.
    #[must_use]
    pub fn links(&self, preset: Preset, uri: &Uri) -> Links {
        Links::of(&self.info, preset, uri, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::total::TotalIs;

    #[test]
    fn the_wire_shape_is_fixed() {
        let page = Page {
            items: vec![1, 2],
            info: PageInfo {
                has_next: true,
                has_previous: false,
                start_cursor: Some("S".into()),
                end_cursor: Some("E".into()),
            },
            total: None,
            cursors: vec![],
        };
        let json = r#"{"items":[1,2],"page":{"has_next":true,"has_previous":false,"start_cursor":"S","end_cursor":"E"}}"#;
        assert_eq!(serde_json::to_string(&page).unwrap(), json);
        assert_eq!(serde_json::from_str::<Page<i32>>(json).unwrap(), page);

        let empty: Page<i32> = Page {
            items: vec![],
            info: PageInfo::default(),
            total: None,
            cursors: vec![],
        };
        assert_eq!(
            serde_json::to_string(&empty).unwrap(),
            r#"{"items":[],"page":{"has_next":false,"has_previous":false,"start_cursor":null,"end_cursor":null}}"#
        );

        let counted: Page<i32> = Page {
            total: Some(TotalRows {
                count: 1_000,
                is: TotalIs::MoreThan,
            }),
            ..empty
        };
        assert!(
            serde_json::to_string(&counted)
                .unwrap()
                .ends_with(r#","total":{"count":1000,"is":"more_than"}}"#)
        );
    }
}
