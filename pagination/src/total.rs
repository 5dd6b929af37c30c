//! How many rows a list has, and at what price one wants to know.

use serde::{Deserialize, Serialize};

/// Whether a page says how many rows its whole list has.
///
/// Counting is a statement of its own after the page's, on the same source; only within a transaction at
/// REPEATABLE READ do the two see one snapshot. A list that fits its first page is counted without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Total {
    /// Not asked. The default: a page costs the same at any depth, a count grows with the list.
    #[default]
    None,
    /// All are counted, which reads all.
    Exact,
    /// As many are counted as this and one more, for "more than 1000 results"; the price has a bound.
    Capped(u32),
    /// The planner's guess; no row is read.
    ///
    /// Postgres: the estimate of EXPLAIN, which rests on the last ANALYZE and the table's present size.
    /// MariaDB and MySQL: that of EXPLAIN, which InnoDB draws from samples and which may be off by half.
    /// SQLite has no estimates; up to [`ESTIMATE_ROWS_MAX`] rows are counted instead.
    Estimated,
}

/// Up to how many rows [`Total::Estimated`] counts on SQLite.
pub const ESTIMATE_ROWS_MAX: u32 = 10_000;

/// How many rows a list has. Serialises as `{"count": 120, "is": "exact"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct TotalRows {
    /// The number.
    pub count: u64,
    /// What it means.
    pub is: TotalIs,
}

/// What a number of rows means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TotalIs {
    /// It was counted.
    Exact,
    /// There are more than this many.
    MoreThan,
    /// It was estimated.
    Estimated,
}
