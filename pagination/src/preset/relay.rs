//! Relay's connection: edges with a cursor each.

use serde::{Deserialize, Serialize};

use crate::cursor::Cursor;
use crate::page::Page;

/// A page as Relay's cursor connections have it. Serialises with the specification's names: `edges` of `cursor` and
/// `node`, and `pageInfo`.
///
/// `totalCount` is no part of the specification, but what servers commonly call it; it stands here only if the page
/// has a total.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
#[must_use]
pub struct Connection<T> {
    /// The rows, each with its cursor.
    pub edges: Vec<Edge<T>>,
    /// What lies on either side.
    pub page_info: RelayPageInfo,
    /// How many rows the list has, if that was asked for: counted, estimated, or the cap that there are more than.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_count: Option<u64>,
}

/// A row of a [`Connection`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Edge<T> {
    /// The row's own cursor, good for `after` and `before`.
    pub cursor: Cursor,
    /// The row.
    pub node: T,
}

/// [`PageInfo`](crate::PageInfo) under the specification's names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RelayPageInfo {
    /// Whether edges precede.
    pub has_previous_page: bool,
    /// Whether edges follow.
    pub has_next_page: bool,
    /// The first edge's cursor; none on an empty page.
    pub start_cursor: Option<Cursor>,
    /// The last edge's cursor; none on an empty page.
    pub end_cursor: Option<Cursor>,
}

impl<T> Page<T> {
    /// The page as a Relay connection. `None` if it was fetched without the cursors of its rows
    /// (`PageQuery::cursors`).
    #[must_use]
    pub fn into_connection(self) -> Option<Connection<T>> {
        if self.cursors.len() != self.items.len() {
            return None;
        }
        let edges = self.cursors.into_iter().zip(self.items);
        Some(Connection {
            edges: edges.map(|(cursor, node)| Edge { cursor, node }).collect(),
            page_info: RelayPageInfo {
                has_previous_page: self.info.has_previous,
                has_next_page: self.info.has_next,
                start_cursor: self.info.start_cursor,
                end_cursor: self.info.end_cursor,
            },
            total_count: self.total.map(|total| total.count),
        })
    }
}
