//! The order of a list, declared once: its columns, their directions, where NULL stands, and the unique
//! column that breaks every tie.
//!
//! Three mistakes are type errors here rather than lost rows later: a column whose NULLs were not thought
//! about, an order without a tie-breaker, and a tie-breaker that may be NULL.

use std::ops::Deref;

use crate::column::{Column, Decided, NotNull};
use crate::key::KeyKind;
use crate::request::PageDirection;

/// The most columns an order may have, the tie-breaker included. A bound on the length of SQL and
/// cursors; orders with more than four columns are rare.
pub const COLUMNS_MAX: usize = 8;

/// Ascending or descending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Smallest first.
    Asc,
    /// Largest first.
    Desc,
}

impl Direction {
    pub(crate) const fn reversed(self) -> Self {
        match self {
            Self::Asc => Self::Desc,
            Self::Desc => Self::Asc,
        }
    }
}

/// Where the NULLs of a nullable column stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Nulls {
    /// Before all values.
    First,
    /// After all values.
    Last,
}

impl Nulls {
    pub(crate) const fn reversed(self) -> Self {
        match self {
            Self::First => Self::Last,
            Self::Last => Self::First,
        }
    }
}

/// One column of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OrderColumn {
    name: &'static str,
    kind: KeyKind,
    direction: Direction,
    nulls: Option<Nulls>,
    joined: bool,
}

impl OrderColumn {
    /// Fills the places of a [`Walk`] that hold no column.
    const NONE: Self = Self::not_null("", KeyKind::I64);

    /// A NOT NULL column in ascending order.
    pub(crate) const fn not_null(name: &'static str, kind: KeyKind) -> Self {
        Self {
            name,
            kind,
            direction: Direction::Asc,
            nulls: None,
            joined: false,
        }
    }

    const fn new<N: Decided>(column: Column<N>, direction: Direction) -> Self {
        Self {
            name: column.name,
            kind: column.kind,
            direction,
            nulls: column.nulls,
            joined: column.joined,
        }
    }

    /// The output name in the base query.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What it holds.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Its direction.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        self.direction
    }

    /// Where its NULLs stand; `None` for a NOT NULL column.
    #[must_use]
    pub const fn nulls(&self) -> Option<Nulls> {
        self.nulls
    }

    /// Whether it comes from another table than the unique column.
    #[must_use]
    pub const fn is_joined(&self) -> bool {
        self.joined
    }

    /// The same column walked backward: direction and NULL placement both turn round.
    pub(crate) const fn reversed(self) -> Self {
        Self {
            direction: self.direction.reversed(),
            nulls: match self.nulls {
                Some(nulls) => Some(nulls.reversed()),
                None => None,
            },
            ..self
        }
    }
}

/// A complete order: any columns, then a unique NOT NULL one.
///
/// ```
/// use mainstay_pagination::{Column, KeysetDef};
///
/// const NEWEST: KeysetDef = KeysetDef::new("payments.newest")
///     .desc(Column::timestamptz("created_at").not_null())
///     .unique_desc(Column::uuid("id").not_null());
///
/// const BY_PRIORITY: KeysetDef = KeysetDef::new("tickets.by_priority")
///     .desc(Column::i64("priority").nulls_last())
///     .asc(Column::text("title").not_null())
///     .unique_asc(Column::i64("id").not_null());
/// assert_eq!(NEWEST.columns().count() + BY_PRIORITY.columns().count(), 5);
/// ```
///
/// A tie-breaker that may be NULL does not compile:
///
/// ```compile_fail
/// # use mainstay_pagination::{Column, KeysetDef};
/// const BAD: KeysetDef = KeysetDef::new("x").unique_asc(Column::i64("id").nulls_last());
/// ```
///
/// Neither does a column about whose NULLs nothing was said:
///
/// ```compile_fail
/// # use mainstay_pagination::{Column, KeysetDef};
/// const BAD: KeysetDef = KeysetDef::new("x").asc(Column::i64("rank")).unique_asc(Column::i64("id").not_null());
/// ```
///
/// Unique means unique in the *result of the base query*: a join that repeats a row repeats its key, and
/// rows with equal keys that straddle a page's end would be lost. `fetch` refuses such a page
/// (`PageError::NotUnique`) instead of losing them.
#[derive(Clone, Copy, Debug)]
pub struct KeysetDef {
    name: &'static str,
    columns: [Option<OrderColumn>; COLUMNS_MAX],
}

impl KeysetDef {
    /// Starts an order. The name is part of every cursor's fingerprint: two lists with different names do
    /// not accept each other's cursors.
    #[expect(
        clippy::new_ret_no_self,
        reason = "it becomes a KeysetDef with its unique column, not before"
    )]
    pub const fn new(name: &'static str) -> KeysetBuilder {
        KeysetBuilder {
            name,
            columns: [None; COLUMNS_MAX],
            len: 0,
        }
    }

    /// The order's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The columns, first to last; the last one is unique.
    pub fn columns(&self) -> impl Iterator<Item = &OrderColumn> {
        self.columns.iter().map_while(Option::as_ref)
    }

    /// The columns as a page in this direction meets them: backward, every direction and NULL placement is
    /// turned round.
    #[must_use]
    pub fn walk(&self, direction: PageDirection) -> Walk {
        Walk::of(self.columns().map(|column| match direction {
            PageDirection::Forward => *column,
            PageDirection::Backward => column.reversed(),
        }))
    }
}

/// The columns of an order as a page meets them; a slice by `Deref`.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    columns: [OrderColumn; COLUMNS_MAX],
    len: usize,
}

impl Walk {
    /// Of at most [`COLUMNS_MAX`] columns.
    pub(crate) fn of(columns: impl Iterator<Item = OrderColumn>) -> Self {
        let mut walk = Self {
            columns: [OrderColumn::NONE; COLUMNS_MAX],
            len: 0,
        };
        for (place, column) in walk.columns.iter_mut().zip(columns) {
            *place = column;
            walk.len += 1;
        }
        walk
    }

    /// The same order, walked the other way.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self::of(self.iter().map(|column| column.reversed()))
    }
}

impl Deref for Walk {
    type Target = [OrderColumn];

    fn deref(&self) -> &[OrderColumn] {
        self.columns.get(..self.len).unwrap_or_default()
    }
}

/// An order that has no tie-breaker yet; [`unique_asc`](Self::unique_asc) or
/// [`unique_desc`](Self::unique_desc) completes it.
#[derive(Clone, Copy, Debug)]
#[must_use = "an order is complete with its unique column"]
pub struct KeysetBuilder {
    name: &'static str,
    columns: [Option<OrderColumn>; COLUMNS_MAX],
    len: usize,
}

impl KeysetBuilder {
    /// Then by this column, smallest first.
    ///
    /// # Panics
    /// With more than [`COLUMNS_MAX`] columns; in a `const` that is a compile error.
    pub const fn asc<N: Decided>(self, column: Column<N>) -> Self {
        self.push(OrderColumn::new(column, Direction::Asc))
    }

    /// Then by this column, largest first.
    ///
    /// # Panics
    /// With more than [`COLUMNS_MAX`] columns; in a `const` that is a compile error.
    pub const fn desc<N: Decided>(self, column: Column<N>) -> Self {
        self.push(OrderColumn::new(column, Direction::Desc))
    }

    /// Completes the order with its unique column, smallest first.
    ///
    /// # Panics
    /// With more than [`COLUMNS_MAX`] columns; in a `const` that is a compile error.
    #[must_use]
    pub const fn unique_asc(self, column: Column<NotNull>) -> KeysetDef {
        self.push(OrderColumn::new(column, Direction::Asc)).finish()
    }

    /// Completes the order with its unique column, largest first.
    ///
    /// # Panics
    /// With more than [`COLUMNS_MAX`] columns; in a `const` that is a compile error.
    #[must_use]
    pub const fn unique_desc(self, column: Column<NotNull>) -> KeysetDef {
        self.push(OrderColumn::new(column, Direction::Desc))
            .finish()
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "const fn; the assertion above is the bound"
    )]
    const fn push(mut self, column: OrderColumn) -> Self {
        assert!(
            self.len < COLUMNS_MAX,
            "an order has at most COLUMNS_MAX columns"
        );
        self.columns[self.len] = Some(column);
        self.len += 1;
        self
    }

    const fn finish(self) -> KeysetDef {
        KeysetDef {
            name: self.name,
            columns: self.columns,
        }
    }
}
