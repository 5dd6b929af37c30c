//! The seek planner: from an order and an anchor to disjoint index ranges. Pure, no SQL text.
//!
//! The rule. Let the order be c1..cn and the anchor v1..vn. Rows after the anchor are those that agree
//! with it on c1..c(i-1) and come after it at ci, for some i; so there is one range per i, deepest first.
//! "After at ci" is `ci > vi` (or `<`), plus `ci IS NULL` where NULLs come last; after a NULL that comes
//! first it is `ci IS NOT NULL`, and after a NULL that comes last there is nothing. The ranges are
//! disjoint, each is one piece of an index, and they follow one another. Walking backward is the same
//! rule with every direction and NULL placement turned round.
//!
//! How the ranges are said is the database's matter ([`Form`]): no form seeks on all of them. The usual
//! `a > x OR (a = x AND b > y)` is a filter on Postgres and SQLite and the way in on MySQL and MariaDB; a row
//! value `(a, b) > (x, y)` is the way in on Postgres, reads the index from its start on MySQL and MariaDB, and on
//! SQLite it bounds only its first column when the second is the rowid. It cannot say mixed directions or NULL.
//!
//! Nothing here allocates: a plan is a few bytes per range.

use std::fmt;
use std::ops::{Deref, Range as Span};

use crate::key::Key;
use crate::keyset::{COLUMNS_MAX, Direction, Nulls, OrderColumn, Walk};

/// A database, as far as the planner cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// Postgres: row values seek, NULLs are the largest, an index may place them elsewhere.
    Postgres,
    /// SQLite: row values do not always seek, NULLs are the smallest.
    Sqlite,
    /// MySQL and MariaDB: OR seeks, NULLs are the smallest, and no clause places them elsewhere.
    Mysql,
}

/// How a database wants to be told several ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Runs of NOT NULL columns in one direction as one row value, the ranges joined by UNION ALL.
    RowValues,
    /// The ranges joined by UNION ALL.
    Ranges,
    /// The ranges joined by OR.
    OrExpanded,
}

impl Dialect {
    /// The form that seeks.
    #[must_use]
    pub const fn form(self) -> Form {
        match self {
            Self::Postgres => Form::RowValues,
            Self::Sqlite => Form::Ranges,
            Self::Mysql => Form::OrExpanded,
        }
    }

    /// Where a plain ascending index, or `ORDER BY c ASC`, puts NULLs (descending: the other end).
    #[must_use]
    pub const fn nulls_asc(self) -> Nulls {
        match self {
            Self::Postgres => Nulls::Last,
            Self::Sqlite | Self::Mysql => Nulls::First,
        }
    }

    /// Whether an index can be declared with NULLS FIRST or NULLS LAST.
    #[must_use]
    pub const fn nulls_in_index(self) -> bool {
        matches!(self, Self::Postgres)
    }

    /// Whether the column's NULLs stand where the database puts them by itself.
    #[must_use]
    pub const fn places(self, column: &OrderColumn) -> bool {
        match (column.nulls(), column.direction(), self.nulls_asc()) {
            (None, _, _)
            | (Some(Nulls::First), Direction::Asc, Nulls::First)
            | (Some(Nulls::Last), Direction::Asc, Nulls::Last)
            | (Some(Nulls::First), Direction::Desc, Nulls::Last)
            | (Some(Nulls::Last), Direction::Desc, Nulls::First) => true,
            (Some(_), _, _) => false,
        }
    }
}

/// The form a page's statement took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// From the start of the order: no predicate, the index is read from its end.
    Start,
    /// One row value, `(a, b) > (x, y)`.
    RowValue,
    /// One condition in which the ranges are joined by OR (MySQL and MariaDB).
    OrExpanded,
    /// This many selects over disjoint pieces of the index, joined by UNION ALL when there are more than one.
    Ranges(usize),
}

/// One piece of the order: agreement with the anchor on the first columns, and one condition on those behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// On how many of the first columns the rows agree with the anchor (`= key`, or `IS NULL` if that is the key).
    pub agrees: u8,
    /// What holds of the columns behind those.
    pub then: Then,
    /// Whether it stands in one condition with the range before it, joined by OR.
    pub or: bool,
}

/// What holds of the columns behind those on which a range agrees with the anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing more: all rows that agree.
    All,
    /// The next column is NULL.
    IsNull,
    /// The next column is not NULL.
    IsNotNull,
    /// This many columns, as one row value if several, come strictly after the anchor's in this direction.
    After(u8, Direction),
}

impl Range {
    /// Every row.
    const WHOLE: Self = Self::new(0, Then::All);

    const fn new(agrees: u8, then: Then) -> Self {
        Self {
            agrees,
            then,
            or: false,
        }
    }
}

/// The most ranges there are: two per column and the anchor's own place.
const RANGES_MAX: usize = 2 * COLUMNS_MAX + 1;

/// Ranges in the order in which their rows follow one another; a slice by `Deref`.
#[derive(Clone, Copy)]
pub struct Ranges {
    list: [Range; RANGES_MAX],
    len: usize,
}

impl Ranges {
    const fn new() -> Self {
        Self {
            list: [Range::WHOLE; RANGES_MAX],
            len: 0,
        }
    }

    fn push(&mut self, range: Range) {
        if let Some(place) = self.list.get_mut(self.len) {
            *place = range;
            self.len += 1;
        }
    }

    /// The selects of the statement: runs of ranges that are joined by OR.
    pub fn branches(&self) -> impl Iterator<Item = &[Range]> {
        self.chunk_by(|_, next| next.or)
    }
}

impl Deref for Ranges {
    type Target = [Range];

    fn deref(&self) -> &[Range] {
        self.list.get(..self.len).unwrap_or_default()
    }
}

impl fmt::Debug for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for Ranges {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

/// The other end of a page between two cursors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// The order's own end.
    None,
    /// This range of the walk turned round, anchored at the bound: one more condition on the only range.
    Inside(Range),
    /// These, joined by OR. Said of the rows found, which come in order, so that what lies beyond the bound is at
    /// most a page; said within the ranges it would be a filter that reads on to their ends.
    Cut(Ranges),
}

/// How a page is searched for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seek {
    /// Never empty.
    pub ranges: Ranges,
    /// Where the page ends at the latest.
    pub bound: Bound,
    /// Whether the ranges are ordered with their NULLs' places said (see [`explicit_nulls`]).
    pub explicit_nulls: bool,
    /// The form chosen.
    pub strategy: Strategy,
}

/// Plans the rows of `order` from its start or strictly after `anchor`, to its end or strictly before `bound`.
///
/// `order` is the order as walked (turned round for a backward page); anchor and bound have one key per column.
#[must_use]
pub fn plan(
    dialect: Dialect,
    order: &[OrderColumn],
    anchor: Option<&[Key]>,
    bound: Option<&[Key]>,
) -> Seek {
    let ranges = match anchor {
        Some(anchor) => after(dialect, order, anchor),
        None => start(dialect, order),
    };
    Seek {
        bound: bound.map_or(Bound::None, |bound| {
            before(dialect, order, bound, ranges.len())
        }),
        explicit_nulls: explicit_nulls(dialect, order),
        strategy: strategy(order, anchor.is_some(), &ranges),
        ranges,
    }
}

/// Plans the search for any row at or before `anchor`: the row at the anchor itself, then those strictly
/// before it. `back` is the order as walked, turned round.
#[must_use]
pub fn plan_behind(dialect: Dialect, back: &[OrderColumn], anchor: &[Key]) -> Seek {
    let mut ranges = Ranges::new();
    ranges.push(Range::new(len(back), Then::All));
    for range in after(dialect, back, anchor).iter() {
        let or = range.or || (ranges.len == 1 && dialect.form() == Form::OrExpanded);
        ranges.push(Range { or, ..*range });
    }
    Seek {
        bound: Bound::None,
        explicit_nulls: explicit_nulls(dialect, back),
        strategy: Strategy::Ranges(ranges.branches().count()),
        ranges,
    }
}

/// Whether the ranges of this order must name NULL placement in their ORDER BY.
///
/// A plain index (no NULLS clause) serves an order whose NULL placements are the database's own, and also
/// one where only the *first* column's placement differs: there, NULLs and values are separate ranges, and
/// inside each the placement is moot. If a later column's placement differs, only an index declared with
/// that placement can serve, and then every range has to be ordered as that index is.
#[must_use]
pub fn explicit_nulls(dialect: Dialect, order: &[OrderColumn]) -> bool {
    order.iter().skip(1).any(|c| !dialect.places(c))
}

/// Whether NULLs and values of the first column are searched apart, because the index has them the other way
/// round.
#[must_use]
pub fn splits(dialect: Dialect, order: &[OrderColumn]) -> bool {
    order.first().is_some_and(|c| !dialect.places(c))
        && !(dialect.nulls_in_index() && explicit_nulls(dialect, order))
}

fn strategy(order: &[OrderColumn], anchored: bool, ranges: &Ranges) -> Strategy {
    let selects = ranges.branches().count();
    match (&**ranges, selects) {
        (
            [
                Range {
                    agrees: 0,
                    then: Then::All,
                    ..
                },
            ],
            1,
        ) if !anchored => Strategy::Start,
        (
            [
                Range {
                    then: Then::After(columns, _),
                    ..
                },
            ],
            1,
        ) if *columns > 1 && *columns == len(order) => Strategy::RowValue,
        ([_, _, ..], 1) => Strategy::OrExpanded,
        _ => Strategy::Ranges(selects),
    }
}

/// The first page: one range, or the NULLs and the values of the first column apart.
fn start(dialect: Dialect, order: &[OrderColumn]) -> Ranges {
    let mut ranges = Ranges::new();
    let nulls = order.first().and_then(OrderColumn::nulls);
    let (first, second) = match nulls.filter(|_| splits(dialect, order)) {
        None => {
            ranges.push(Range::WHOLE);
            return ranges;
        }
        Some(Nulls::First) => (Then::IsNull, Then::IsNotNull),
        Some(Nulls::Last) => (Then::IsNotNull, Then::IsNull),
    };
    ranges.push(Range::new(0, first));
    ranges.push(Range::new(0, second));
    ranges
}

fn after(dialect: Dialect, order: &[OrderColumn], anchor: &[Key]) -> Ranges {
    let mut ranges = Ranges::new();
    let (form, splits) = (dialect.form(), splits(dialect, order));
    let mut end = order.len();
    while let Some(unit) = unit(form, order, end) {
        end = unit.start;
        let (Some(column), Some(key)) = (order.get(unit.start), anchor.get(unit.start)) else {
            continue;
        };
        let agrees = small(unit.start);
        let mut push = |then| {
            let apart = splits && agrees == 0 && matches!(then, Then::IsNull | Then::IsNotNull);
            let or = form == Form::OrExpanded && ranges.len > 0 && !apart;
            ranges.push(Range { agrees, then, or });
        };
        match (key.is_null(), column.nulls()) {
            (false, nulls) => {
                push(Then::After(small(unit.len()), column.direction()));
                if nulls == Some(Nulls::Last) {
                    push(Then::IsNull);
                }
            }
            (true, Some(Nulls::First)) => push(Then::IsNotNull),
            (true, Some(Nulls::Last) | None) => {}
        }
    }
    ranges
}

/// The rows before `bound`: after it, on the way back.
fn before(dialect: Dialect, order: &[OrderColumn], bound: &[Key], ranges: usize) -> Bound {
    let back = Walk::of(order.iter().map(|c| c.reversed()));
    let whole = unit(dialect.form(), &back, back.len()).is_some_and(|unit| unit.start == 0);
    match after(dialect, &back, bound).as_ref() {
        // One comparison bounds the index's other side.
        [only] if whole && ranges == 1 => Bound::Inside(*only),
        _ => {
            // Of the few rows found any form will do, so that there is one for all databases.
            let mut cut = after(Dialect::Mysql, &back, bound);
            cut.list.iter_mut().for_each(|range| range.or = true);
            Bound::Cut(cut)
        }
    }
}

/// The columns, up to `end`, that one comparison can cover: a run of NOT NULL columns in one direction where row
/// values seek, otherwise a single one.
fn unit(form: Form, order: &[OrderColumn], end: usize) -> Option<Span<usize>> {
    let last = order.get(..end)?.last()?;
    let mut start = end - 1;
    let whole = |c: &OrderColumn| form == Form::RowValues && c.nulls().is_none() && !c.is_joined();
    if whole(last) {
        let run = order.get(..start)?.iter().rev();
        start -= run
            .take_while(|c| whole(c) && c.direction() == last.direction())
            .count();
    }
    Some(start..end)
}

fn len(order: &[OrderColumn]) -> u8 {
    small(order.len())
}

/// Positions in an order are below [`COLUMNS_MAX`].
fn small(n: usize) -> u8 {
    u8::try_from(n).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PageDirection::{Backward, Forward};
    use crate::{Column, KeysetDef};

    const NEWEST: KeysetDef = KeysetDef::new("newest")
        .desc(Column::timestamptz("at").not_null())
        .unique_desc(Column::i64("id").not_null());
    const MIXED: KeysetDef = KeysetDef::new("mixed")
        .desc(Column::i64("score").not_null())
        .unique_asc(Column::i64("id").not_null());
    const NULLABLE: KeysetDef = KeysetDef::new("nullable")
        .asc(Column::i64("prio").nulls_last())
        .unique_asc(Column::i64("id").not_null());

    fn after(agrees: u8, columns: u8, direction: Direction) -> Range {
        Range::new(agrees, Then::After(columns, direction))
    }

    fn or(range: Range) -> Range {
        Range { or: true, ..range }
    }

    #[test]
    fn postgres_takes_one_row_value_for_a_uniform_not_null_order() {
        let anchor = [Key::Micros(5), Key::I64(1)];
        let order = NEWEST.walk(Forward);
        let seek = plan(Dialect::Postgres, &order, Some(&anchor), None);
        assert_eq!(seek.strategy, Strategy::RowValue);
        assert_eq!(*seek.ranges, [after(0, 2, Direction::Desc)]);
    }

    #[test]
    fn sqlite_takes_ranges_and_mysql_or_for_the_same_order() {
        let anchor = [Key::Micros(5), Key::I64(1)];
        let order = NEWEST.walk(Forward);
        let (deepest, shallow) = (after(1, 1, Direction::Desc), after(0, 1, Direction::Desc));
        let sqlite = plan(Dialect::Sqlite, &order, Some(&anchor), None);
        assert_eq!(sqlite.strategy, Strategy::Ranges(2));
        assert_eq!(*sqlite.ranges, [deepest, shallow]);
        let mysql = plan(Dialect::Mysql, &order, Some(&anchor), None);
        assert_eq!(mysql.strategy, Strategy::OrExpanded);
        assert_eq!(*mysql.ranges, [deepest, or(shallow)]);
    }

    #[test]
    fn mixed_directions_are_ranges_on_postgres_too() {
        let anchor = [Key::I64(5), Key::I64(1)];
        let order = MIXED.walk(Backward);
        for dialect in [Dialect::Postgres, Dialect::Sqlite] {
            let seek = plan(dialect, &order, Some(&anchor), None);
            let ranges = [after(1, 1, Direction::Desc), after(0, 1, Direction::Asc)];
            assert_eq!(*seek.ranges, ranges);
        }
    }

    #[test]
    fn a_joined_column_is_a_range_of_its_own() {
        const JOINED: KeysetDef = KeysetDef::new("joined")
            .asc(Column::text("customer").joined().not_null())
            .asc(Column::i64("at").not_null())
            .unique_asc(Column::i64("id").not_null());
        let anchor = [Key::from("c"), Key::I64(5), Key::I64(1)];
        let seek = plan(
            Dialect::Postgres,
            &JOINED.walk(Forward),
            Some(&anchor),
            None,
        );
        let ranges = [after(1, 2, Direction::Asc), after(0, 1, Direction::Asc)];
        assert_eq!(*seek.ranges, ranges);
    }

    #[test]
    fn nulls_last_add_a_range_after_a_value_and_nothing_after_a_null() {
        let order = NULLABLE.walk(Forward);
        let value = [Key::I64(5), Key::I64(1)];
        let seek = plan(Dialect::Postgres, &order, Some(&value), None);
        assert_eq!(seek.ranges.last(), Some(&Range::new(0, Then::IsNull)));
        assert_eq!(seek.strategy, Strategy::Ranges(3));
        let null = [Key::Null, Key::I64(1)];
        let seek = plan(Dialect::Postgres, &order, Some(&null), None);
        assert_eq!(*seek.ranges, [after(1, 1, Direction::Asc)]);
        assert_eq!(seek.strategy, Strategy::Ranges(1));
    }

    #[test]
    fn mysql_searches_nulls_apart_where_its_index_has_them_at_the_other_end() {
        let value = [Key::I64(5), Key::I64(1)];
        let seek = plan(Dialect::Mysql, &NULLABLE.walk(Forward), Some(&value), None);
        assert_eq!(seek.strategy, Strategy::Ranges(2));
        let branches: Vec<_> = seek.ranges.branches().collect();
        let values = [after(1, 1, Direction::Asc), or(after(0, 1, Direction::Asc))];
        assert_eq!(branches, [&values[..], &[Range::new(0, Then::IsNull)]]);
    }

    #[test]
    fn walking_back_from_a_null_reaches_the_values() {
        let null = [Key::Null, Key::I64(1)];
        let back = plan(
            Dialect::Postgres,
            &NULLABLE.walk(Backward),
            Some(&null),
            None,
        );
        assert_eq!(back.ranges.last(), Some(&Range::new(0, Then::IsNotNull)));
    }

    #[test]
    fn the_first_page_splits_only_where_the_database_places_nulls_elsewhere() {
        let order = NULLABLE.walk(Forward);
        let postgres = plan(Dialect::Postgres, &order, None, None);
        assert_eq!(postgres.strategy, Strategy::Start);
        for dialect in [Dialect::Sqlite, Dialect::Mysql] {
            let seek = plan(dialect, &order, None, None);
            let split = [Range::new(0, Then::IsNotNull), Range::new(0, Then::IsNull)];
            assert_eq!(*seek.ranges, split);
            assert_eq!(seek.strategy, Strategy::Ranges(2));
        }
    }

    #[test]
    fn the_search_behind_begins_at_the_anchor_itself() {
        let anchor = [Key::Micros(5), Key::I64(1)];
        let back = NEWEST.walk(Backward);
        let seek = plan_behind(Dialect::Postgres, &back, &anchor);
        let here = Range::new(2, Then::All);
        assert_eq!(*seek.ranges, [here, after(0, 2, Direction::Asc)]);
        let seek = plan_behind(Dialect::Mysql, &back, &anchor);
        assert_eq!(seek.ranges.branches().count(), 1);
    }

    #[test]
    fn a_bound_is_one_more_comparison_where_one_comparison_is_enough() {
        let (anchor, bound) = ([Key::Micros(5), Key::I64(1)], [Key::Micros(3), Key::I64(9)]);
        let order = NEWEST.walk(Forward);
        let seek = |dialect| plan(dialect, &order, Some(&anchor), Some(&bound)).bound;
        assert_eq!(
            seek(Dialect::Postgres),
            Bound::Inside(after(0, 2, Direction::Asc))
        );
        let Bound::Cut(cut) = seek(Dialect::Sqlite) else {
            panic!("two comparisons");
        };
        assert_eq!(cut.len(), 2);
    }
}
