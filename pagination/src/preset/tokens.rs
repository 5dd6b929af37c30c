//! AIP-158: a token for the next page, and nothing else.

use serde::{Deserialize, Serialize};

use crate::page::{Page, PageInfo};

/// A page as AIP-158 has it: `next_page_token` is empty at the list's end, and there only.
///
/// AIP-132 names the field of the rows after the resource (`books`); serialise your own struct with
/// [`PageInfo::next_page_token`] to follow it there, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[must_use]
pub struct TokenPage<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Give it as `page_token` to have the next page; empty if there is none.
    pub next_page_token: String,
    /// How many rows the list has, if that was asked for; the guideline allows an estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_size: Option<u64>,
}

impl<T> Page<T> {
    /// The page as AIP-158 has it.
    pub fn into_token_page(self) -> TokenPage<T> {
        TokenPage {
            next_page_token: self.info.next_page_token().to_owned(),
            items: self.items,
            total_size: self.total.map(|total| total.count),
        }
    }
}

impl PageInfo {
    /// The cursor of the next page as AIP-158 has it: empty if there is none.
    #[must_use]
    pub fn next_page_token(&self) -> &str {
        let end = self.end_cursor.as_ref().filter(|_| self.has_next);
        end.map_or("", |cursor| cursor.as_str())
    }
}
