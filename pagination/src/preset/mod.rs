//! How a list's parameters are called: one set of rules under the names that each community expects.

#[cfg(feature = "axum")]
mod arguments;
mod json_api;
mod relay;
mod tokens;

#[cfg(feature = "axum")]
pub(crate) use self::arguments::{Arguments, conflicts};
pub use self::json_api::{EstimatedTotal, JsonApiLinks, JsonApiMeta, JsonApiMetaPage, JsonApiPage};
pub use self::relay::{Connection, Edge, RelayPageInfo};
pub use self::tokens::TokenPage;

use crate::request::PageDirection;

/// What the parameters of a list are called, which of them go together, and what an answer looks like.
///
/// | preset | rows | cursors | from an end | body of an answer |
/// |---|---|---|---|---|
/// | [`Plain`](Self::Plain) | `limit` | `after`, `before` | `first`, `last` | [`Page`](crate::Page), and a `Link` header |
/// | [`GitHub`](Self::GitHub) | `per_page` | `after`, `before` | `first`, `last` | an array, and a `Link` header |
/// | [`Aip158`](Self::Aip158) | `page_size` | `page_token` | – | [`TokenPage`] |
/// | [`JsonApi`](Self::JsonApi) | `page[size]` | `page[after]`, `page[before]` | – | [`JsonApiPage`] |
/// | [`Relay`](Self::Relay) | – | `after`, `before` | `first`, `last` | [`Connection`] |
///
/// In `Plain` and `GitHub`, `first=5` and `last=5` are five rows from that end; a page has one cursor, `first` goes with
/// `after` and `last` with `before`. In `JsonApi` and `Relay` both cursors make a range, and in `Relay` either end of it
/// can be asked for. `before` without `last` means the rows just before the cursor, everywhere.
///
/// `Aip158` goes forward only, as the guideline has it; a `page_size` of 0 and an empty `page_token` are as good as
/// none. Its `skip` is not built: to skip rows is to read them, which this crate exists to avoid. `first` together with
/// `last` is refused in every preset, `Relay` too, whose specification discourages it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Preset {
    /// `limit`, `after` and `before`; `first` and `last`.
    #[default]
    Plain,
    /// As in GitHub's REST API: `per_page`, `after` and `before`; `first` and `last`.
    GitHub,
    /// As in Google's AIP-158: `page_size` and `page_token`.
    Aip158,
    /// As in JSON:API's cursor pagination profile: `page[size]`, `page[after]` and `page[before]`.
    JsonApi,
    /// As in Relay's connections: `first` and `after`, `last` and `before`.
    Relay,
}

/// What a parameter of a page means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Rows,
    After,
    Before,
    First,
    Last,
}

impl Preset {
    /// One of each.
    #[cfg(any(test, all(feature = "axum", feature = "sqlx")))]
    pub(crate) const ALL: [Self; 5] = [
        Self::Plain,
        Self::GitHub,
        Self::Aip158,
        Self::JsonApi,
        Self::Relay,
    ];

    /// Its parameters, by name.
    pub(crate) const fn parameters(self) -> &'static [(&'static str, Role)] {
        match self {
            Self::Plain => &[
                ("limit", Role::Rows),
                ("after", Role::After),
                ("before", Role::Before),
                ("first", Role::First),
                ("last", Role::Last),
            ],
            Self::GitHub => &[
                ("per_page", Role::Rows),
                ("after", Role::After),
                ("before", Role::Before),
                ("first", Role::First),
                ("last", Role::Last),
            ],
            Self::Aip158 => &[("page_size", Role::Rows), ("page_token", Role::After)],
            Self::JsonApi => &[
                ("page[size]", Role::Rows),
                ("page[after]", Role::After),
                ("page[before]", Role::Before),
            ],
            Self::Relay => &[
                ("first", Role::First),
                ("after", Role::After),
                ("last", Role::Last),
                ("before", Role::Before),
            ],
        }
    }

    /// The parameter that takes a cursor in this direction. (`Aip158` knows one only.)
    #[must_use]
    pub const fn cursor_parameter(self, direction: PageDirection) -> &'static str {
        match (self, direction) {
            (Self::Aip158, _) => "page_token",
            (Self::JsonApi, PageDirection::Forward) => "page[after]",
            (Self::JsonApi, PageDirection::Backward) => "page[before]",
            (_, direction) => direction.cursor_parameter(),
        }
    }

    pub(crate) fn named(self, role: Role) -> Option<&'static str> {
        let found = self.parameters().iter().find(|(_, known)| *known == role);
        found.map(|(name, _)| *name)
    }
}
