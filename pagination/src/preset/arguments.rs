//! From parameters to a page: which go together, and what they ask for.

use super::{Preset, Role};
use crate::request::{PageLimits, PageRequest};

impl Preset {
    /// Whether two parameters may be given together.
    const fn admits(self, one: Role, other: Role) -> bool {
        use Role::{After, Before, First, Last};
        match (one, other) {
            (After, Before) => matches!(self, Self::JsonApi | Self::Relay),
            (After, Last) | (Before, First) => matches!(self, Self::Relay),
            (After, First) | (Before, Last) => true,
            (Role::Rows, role) | (role, Role::Rows) => matches!(role, After | Before),
            _ => false,
        }
    }
}

/// The parameters of a page, read: rows where rows are meant, cursors as they came.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    pub(crate) rows: Option<u32>,
    pub(crate) first: Option<u32>,
    pub(crate) last: Option<u32>,
    pub(crate) after: Option<String>,
    pub(crate) before: Option<String>,
}

impl Arguments {
    /// The page they ask for.
    pub(crate) fn request(self, preset: Preset, limits: &PageLimits) -> PageRequest {
        let rows = self.rows.unwrap_or(limits.default_rows());
        let backward = self.before.is_some() && self.after.is_none();
        let request = match (self.first, self.last) {
            (Some(rows), _) => PageRequest::first(rows),
            (None, Some(rows)) => PageRequest::last(rows),
            (None, None) if backward => PageRequest::last(rows),
            (None, None) => PageRequest::first(rows),
        };
        let request = match self.after {
            Some(cursor) => request.after(cursor),
            None => request,
        };
        let request = match self.before {
            Some(cursor) => request.before(cursor),
            None => request,
        };
        request.named(preset)
    }
}

/// Two parameters that do not go together: the names of both.
pub(crate) fn conflicts(
    preset: Preset,
    given: &[(&'static str, Role)],
) -> impl Iterator<Item = (&'static str, &'static str)> {
    given.iter().enumerate().flat_map(move |(i, (name, role))| {
        let later = given.get(i + 1..).unwrap_or_default().iter();
        later
            .filter(move |(_, other)| {
                !preset.admits(*role, *other) && !preset.admits(*other, *role)
            })
            .map(move |(other, _)| (*name, *other))
    })
}
