//! JSON:API's document of a page, after its cursor pagination profile.

use http::Uri;
use serde::{Deserialize, Serialize};

use crate::link::Links;
use crate::page::Page;
use crate::preset::Preset;

/// A page as JSON:API's cursor pagination profile has it: the rows in `data`, the neighbours in `links`.
///
/// The rows must be resource objects (`type`, `id`, `attributes`): those are yours to build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[must_use]
pub struct JsonApiPage<T> {
    /// The rows.
    pub data: Vec<T>,
    /// The neighbours.
    pub links: JsonApiLinks,
    /// The list's size, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<JsonApiMeta>,
}

/// The neighbours of a [`JsonApiPage`]: `null` where there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct JsonApiLinks {
    /// The list from its start.
    pub first: String,
    /// The page before.
    pub prev: Option<String>,
    /// The page after.
    pub next: Option<String>,
}

/// `meta` of a [`JsonApiPage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct JsonApiMeta {
    /// `meta.page`.
    pub page: JsonApiMetaPage,
}

/// `meta.page` of a [`JsonApiPage`]: an exact total, or else an estimate (a capped count is the cap).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct JsonApiMetaPage {
    /// How many rows the list has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// About how many rows it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_total: Option<EstimatedTotal>,
}

/// The profile's shape of an estimate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct EstimatedTotal {
    /// The best guess.
    pub best_guess: u64,
}

impl<T> Page<T> {
    /// The page as JSON:API has it, served at `uri`; see [`link_header`](Self::link_header) on which URI that is.
    pub fn into_json_api(self, uri: &Uri) -> JsonApiPage<T> {
        let Links {
            first, prev, next, ..
        } = self.links(Preset::JsonApi, uri);
        let meta = self.total.map(|total| {
            let estimate = EstimatedTotal {
                best_guess: total.count,
            };
            let page = if total.is == crate::TotalIs::Exact {
                JsonApiMetaPage {
                    total: Some(total.count),
                    estimated_total: None,
                }
            } else {
                JsonApiMetaPage {
                    total: None,
                    estimated_total: Some(estimate),
                }
            };
            JsonApiMeta { page }
        });
        JsonApiPage {
            data: self.items,
            links: JsonApiLinks { first, prev, next },
            meta,
        }
    }
}
