//! Which page is asked for, and how large a page may be.

use crate::cursor::Cursor;
use crate::preset::Preset;

/// The largest page `fetch` makes, whatever was asked, in rows: a page is held in memory whole.
pub const PAGE_ROWS_MAX: u32 = 10_000;

/// The page that is asked for: how many rows, from which end, between which cursors.
///
/// The rows are those after `after` and before `before`, where given, and of them the first or the last `limit`.
///
/// ```
/// use mainstay_pagination::PageRequest;
///
/// let start = PageRequest::first(20);
/// let next = PageRequest::first(20).after("AQ");
/// let previous = PageRequest::last(20).before("AQ");
/// let between = PageRequest::first(20).after("AQ").before("Ag");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    limit: u32,
    direction: PageDirection,
    after: Option<Cursor>,
    before: Option<Cursor>,
    preset: Preset,
}

/// The way a page is walked; its rows come in the list's order either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageDirection {
    /// From the start of the list, or from the `after` cursor.
    Forward,
    /// From the end of the list, or from the `before` cursor.
    Backward,
}

impl PageDirection {
    /// The parameter that names this direction's cursor.
    #[must_use]
    pub const fn cursor_parameter(self) -> &'static str {
        match self {
            Self::Forward => "after",
            Self::Backward => "before",
        }
    }

    /// The other way.
    #[must_use]
    pub const fn reversed(self) -> Self {
        match self {
            Self::Forward => Self::Backward,
            Self::Backward => Self::Forward,
        }
    }
}

impl PageRequest {
    /// The first `limit` rows: of the list, or of those between the cursors.
    #[must_use]
    pub const fn first(limit: u32) -> Self {
        Self {
            limit,
            direction: PageDirection::Forward,
            after: None,
            before: None,
            preset: Preset::Plain,
        }
    }

    /// The last `limit` rows: of the list, or of those between the cursors.
    #[must_use]
    pub const fn last(limit: u32) -> Self {
        Self {
            limit,
            direction: PageDirection::Backward,
            after: None,
            before: None,
            preset: Preset::Plain,
        }
    }

    /// Of the rows that follow this cursor. It replaces an earlier one.
    #[must_use]
    pub fn after(self, cursor: impl Into<Cursor>) -> Self {
        Self {
            after: Some(cursor.into()),
            ..self
        }
    }

    /// Of the rows that precede this cursor. It replaces an earlier one.
    #[must_use]
    pub fn before(self, cursor: impl Into<Cursor>) -> Self {
        Self {
            before: Some(cursor.into()),
            ..self
        }
    }

    /// Says how its parameters are called, for errors that name one. [`Preset::Plain`] unless said.
    #[must_use]
    pub fn named(self, preset: Preset) -> Self {
        Self { preset, ..self }
    }

    /// How its parameters are called.
    #[must_use]
    pub const fn preset(&self) -> Preset {
        self.preset
    }

    /// How many rows at most.
    #[must_use]
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// Forward, the first rows; backward, the last ones.
    #[must_use]
    pub const fn direction(&self) -> PageDirection {
        self.direction
    }

    /// The cursor that the rows follow.
    #[must_use]
    pub const fn after_cursor(&self) -> Option<&Cursor> {
        self.after.as_ref()
    }

    /// The cursor that the rows precede.
    #[must_use]
    pub const fn before_cursor(&self) -> Option<&Cursor> {
        self.before.as_ref()
    }

    /// The cursor from which the page is walked: `after` if forward, `before` if backward.
    #[must_use]
    pub const fn anchor(&self) -> Option<&Cursor> {
        match self.direction {
            PageDirection::Forward => self.after.as_ref(),
            PageDirection::Backward => self.before.as_ref(),
        }
    }

    /// The cursor at which the walk ends at the latest: `before` if forward, `after` if backward.
    #[must_use]
    pub const fn bound(&self) -> Option<&Cursor> {
        match self.direction {
            PageDirection::Forward => self.before.as_ref(),
            PageDirection::Backward => self.after.as_ref(),
        }
    }
}

/// How many rows a page has if the caller does not say, and at most.
///
/// ```
/// use mainstay_pagination::{LimitError, OnExceed, PageLimits};
///
/// const LIMITS: PageLimits = PageLimits::new(20, 100);
/// assert_eq!(LIMITS.resolve(None), Ok(20));
/// assert_eq!(LIMITS.resolve(Some(500)), Ok(100));
/// assert_eq!(LIMITS.resolve(Some(0)), Err(LimitError::Zero));
/// let strict = LIMITS.on_exceed(OnExceed::Reject);
/// assert_eq!(strict.resolve(Some(500)), Err(LimitError::TooLarge { max: 100 }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimits {
    default: u32,
    max: u32,
    on_exceed: OnExceed,
}

/// What becomes of a page size above the maximum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnExceed {
    /// The maximum is used instead (as AIP-158 asks). The default.
    #[default]
    Clamp,
    /// The request is refused.
    Reject,
}

impl PageLimits {
    /// `default` and `max` rows. Both are at least 1; `max` is at most [`PAGE_ROWS_MAX`], and `default` at
    /// most `max`: numbers outside are brought inside.
    #[must_use]
    pub const fn new(default: u32, max: u32) -> Self {
        const fn clamp(n: u32, max: u32) -> u32 {
            if n == 0 {
                1
            } else if n > max {
                max
            } else {
                n
            }
        }
        let max = clamp(max, PAGE_ROWS_MAX);
        Self {
            default: clamp(default, max),
            max,
            on_exceed: OnExceed::Clamp,
        }
    }

    /// What to do with a page size above the maximum.
    #[must_use]
    pub const fn on_exceed(mut self, on_exceed: OnExceed) -> Self {
        self.on_exceed = on_exceed;
        self
    }

    /// The page size when none is asked for, in rows.
    #[must_use]
    pub const fn default_rows(&self) -> u32 {
        self.default
    }

    /// The largest page size, in rows.
    #[must_use]
    pub const fn max_rows(&self) -> u32 {
        self.max
    }

    /// Whether a page size above the maximum is refused.
    #[cfg(all(feature = "axum", feature = "utoipa"))]
    pub(crate) const fn rejects(&self) -> bool {
        matches!(self.on_exceed, OnExceed::Reject)
    }

    /// The page size to use for the one asked for.
    ///
    /// # Errors
    /// [`LimitError::Zero`]; [`LimitError::TooLarge`] under [`OnExceed::Reject`].
    pub const fn resolve(&self, asked: Option<u32>) -> Result<u32, LimitError> {
        match asked {
            None => Ok(self.default),
            Some(0) => Err(LimitError::Zero),
            Some(n) if n <= self.max => Ok(n),
            Some(_) => match self.on_exceed {
                OnExceed::Clamp => Ok(self.max),
                OnExceed::Reject => Err(LimitError::TooLarge { max: self.max }),
            },
        }
    }

    /// The page size for a parameter's text. Digits that no integer type holds are simply above the maximum.
    ///
    /// # Errors
    /// Every [`LimitError`].
    pub fn parse(&self, text: &str) -> Result<u32, LimitError> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(LimitError::NotANumber);
        }
        if digits.len() < text.len() {
            return Err(LimitError::Negative);
        }
        self.resolve(Some(text.parse().unwrap_or(u32::MAX)))
    }
}

/// Why a page size was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// 0.
    #[error("a page has at least 1 row")]
    Zero,
    /// Below 0.
    #[error("a page cannot have a negative number of rows")]
    Negative,
    /// Not an integer.
    #[error("the page size is not a whole number")]
    NotANumber,
    /// Above the maximum.
    #[error("a page has at most {max} rows")]
    TooLarge {
        /// The maximum.
        max: u32,
    },
}

impl LimitError {
    /// One of each.
    #[cfg(all(feature = "axum", feature = "sqlx"))]
    pub(crate) const ALL: [Self; 4] = [
        Self::Zero,
        Self::Negative,
        Self::NotANumber,
        Self::TooLarge { max: PAGE_ROWS_MAX },
    ];

    /// A stable machine code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Zero => "limit_zero",
            Self::Negative => "limit_negative",
            Self::NotANumber => "limit_not_a_number",
            Self::TooLarge { .. } => "limit_too_large",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_its_end_and_both_cursors() {
        let first = PageRequest::first(3).before("B").after("A");
        let last = PageRequest::last(3).after("A").before("B");
        for (request, direction, anchor, bound) in [
            (&first, PageDirection::Forward, "A", "B"),
            (&last, PageDirection::Backward, "B", "A"),
        ] {
            assert_eq!((request.limit(), request.direction()), (3, direction));
            assert_eq!(request.after_cursor(), Some(&"A".into()));
            assert_eq!(request.before_cursor(), Some(&"B".into()));
            assert_eq!(request.anchor(), Some(&anchor.into()));
            assert_eq!(request.bound(), Some(&bound.into()));
        }
    }
}
