//! The seek planner: from an order and an anchor to disjoint index ranges. Pure, no SQL text.
//!
//! The rule. Let the order be c1..cn and the anchor v1..vn. Rows after the anchor are those that agree
//! with it on c1..c(i-1) and come after it at ci, for some i; so there is one range per i, deepest first.
//! "After at ci" is `ci > vi` (or `<`), plus `ci IS NULL` where NULLs come last; after a NULL that comes
//! first it is `ci IS NOT NULL`, and after a NULL that comes last there is nothing. The ranges are
//! disjoint, each is one piece of an index, and they follow one another. Walking backward is the same
//! rule with every direction and NULL placement turned round.
//!
//! Why ranges: the usual `a > x OR (a = x AND b > y)` is a filter, not a seek, on Postgres; a row value
//! `(a, b) > (x, y)` cannot say mixed directions or NULL, and on SQLite it bounds only its first column
//! when the second is the rowid.

use std::ops::Range as Span;

use crate::key::Key;
use crate::keyset::{Direction, Nulls, OrderColumn};

/// What differs between databases, as far as the planner cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// Whether a row value is a seek over all of its columns.
    pub row_values_seek: bool,
    /// Where a plain ascending index, or `ORDER BY c ASC`, puts NULLs (descending: the other end).
    pub nulls_asc: Nulls,
}

impl Dialect {
    /// Postgres: row values seek, NULLs are the largest.
    pub const POSTGRES: Self = Self {
        row_values_seek: true,
        nulls_asc: Nulls::Last,
    };
    /// SQLite: row values do not always seek, NULLs are the smallest.
    pub const SQLITE: Self = Self {
        row_values_seek: false,
        nulls_asc: Nulls::First,
    };

    const fn places(self, column: &OrderColumn) -> bool {
        match (column.nulls(), column.direction(), self.nulls_asc) {
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
    /// This many disjoint index ranges, joined by UNION ALL when there are more than one.
    Ranges(usize),
}

/// One condition of a range; columns and keys are named by their position in the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// `column = key`
    Eq(usize),
    /// `column IS NULL`
    IsNull(usize),
    /// `column IS NOT NULL`
    IsNotNull(usize),
    /// The columns, as one row value if several, strictly after the keys in this direction.
    After(Span<usize>, Direction),
}

/// The conditions of one piece of an index; all must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Joined by AND; empty means the whole order.
    pub terms: Vec<Term>,
}

/// A page's ranges in the order in which their rows follow one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seek {
    /// Never empty.
    pub ranges: Vec<Range>,
    /// Whether each range is ordered with explicit NULLS FIRST / LAST (see [`explicit_nulls`]).
    pub explicit_nulls: bool,
    /// The form chosen.
    pub strategy: Strategy,
}

/// Plans the rows of `order` from its start, or strictly after `anchor`.
///
/// `order` is the order as walked (reversed for a backward page); `anchor` has one key per column.
#[must_use]
pub fn plan(dialect: Dialect, order: &[OrderColumn], anchor: Option<&[Key]>) -> Seek {
    let explicit_nulls = explicit_nulls(dialect, order);
    match anchor {
        Some(anchor) => {
            let ranges = after(dialect, order, anchor);
            let whole = matches!(
                ranges.as_slice(),
                [Range { terms }] if matches!(terms.as_slice(), [Term::After(span, _)] if span.len() == order.len() && span.len() > 1)
            );
            let strategy = if whole {
                Strategy::RowValue
            } else {
                Strategy::Ranges(ranges.len())
            };
            Seek {
                ranges,
                explicit_nulls,
                strategy,
            }
        }
        None => {
            let ranges = start(dialect, order, explicit_nulls);
            let strategy = match ranges.len() {
                1 => Strategy::Start,
                n => Strategy::Ranges(n),
            };
            Seek {
                ranges,
                explicit_nulls,
                strategy,
            }
        }
    }
}

/// Plans the search for any row at or before `anchor`: the row at the anchor itself, then those strictly
/// before it. `order` is the order as walked, so this walks it backward.
#[must_use]
pub fn plan_behind(dialect: Dialect, order: &[OrderColumn], anchor: &[Key]) -> Seek {
    let back: Vec<_> = order.iter().map(|c| c.reversed()).collect();
    let mut seek = plan(dialect, &back, Some(anchor));
    seek.ranges.insert(
        0,
        Range {
            terms: prefix(order.len(), anchor),
        },
    );
    seek.strategy = Strategy::Ranges(seek.ranges.len());
    seek
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

/// The first page: one range, or the NULLs and the values of the first column apart.
fn start(dialect: Dialect, order: &[OrderColumn], explicit_nulls: bool) -> Vec<Range> {
    let split = order
        .first()
        .filter(|c| !explicit_nulls && !dialect.places(c))
        .and_then(OrderColumn::nulls);
    let nulls = Range {
        terms: vec![Term::IsNull(0)],
    };
    let values = Range {
        terms: vec![Term::IsNotNull(0)],
    };
    match split {
        None => vec![Range::default()],
        Some(Nulls::First) => vec![nulls, values],
        Some(Nulls::Last) => vec![values, nulls],
    }
}

fn after(dialect: Dialect, order: &[OrderColumn], anchor: &[Key]) -> Vec<Range> {
    let mut ranges = Vec::with_capacity(order.len() + 1);
    for unit in units(dialect, order).into_iter().rev() {
        let (Some(column), Some(key)) = (order.get(unit.start), anchor.get(unit.start)) else {
            continue;
        };
        let mut push = |term| {
            let mut terms = prefix(unit.start, anchor);
            terms.push(term);
            ranges.push(Range { terms });
        };
        match (key.is_null(), column.nulls()) {
            (false, nulls) => {
                push(Term::After(unit.clone(), column.direction()));
                if nulls == Some(Nulls::Last) {
                    push(Term::IsNull(unit.start));
                }
            }
            (true, Some(Nulls::First)) => push(Term::IsNotNull(unit.start)),
            (true, Some(Nulls::Last) | None) => {}
        }
    }
    ranges
}

/// Agreement with the anchor on the first `len` columns.
fn prefix(len: usize, anchor: &[Key]) -> Vec<Term> {
    let term = |(i, key): (usize, &Key)| {
        if key.is_null() {
            Term::IsNull(i)
        } else {
            Term::Eq(i)
        }
    };
    anchor.iter().take(len).enumerate().map(term).collect()
}

/// Columns that one comparison can cover: runs of NOT NULL columns in one direction where row values
/// seek, single columns otherwise.
fn units(dialect: Dialect, order: &[OrderColumn]) -> Vec<Span<usize>> {
    let mut units: Vec<Span<usize>> = Vec::with_capacity(order.len());
    let mut previous: Option<&OrderColumn> = None;
    for (i, column) in order.iter().enumerate() {
        let joins = dialect.row_values_seek
            && column.nulls().is_none()
            && previous.is_some_and(|p| p.nulls().is_none() && p.direction() == column.direction());
        match units.last_mut() {
            Some(last) if joins => last.end = i + 1,
            _ => units.push(i..i + 1),
        }
        previous = Some(column);
    }
    units
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

    fn terms(seek: &Seek) -> Vec<&[Term]> {
        seek.ranges.iter().map(|r| r.terms.as_slice()).collect()
    }

    #[test]
    fn postgres_takes_one_row_value_for_a_uniform_not_null_order() {
        let seek = plan(
            Dialect::POSTGRES,
            &NEWEST.walk(Forward),
            Some(&[Key::Micros(5), Key::I64(1)]),
        );
        assert_eq!(seek.strategy, Strategy::RowValue);
        assert_eq!(terms(&seek), [[Term::After(0..2, Direction::Desc)]]);
    }

    #[test]
    fn sqlite_takes_ranges_for_the_same_order() {
        let seek = plan(
            Dialect::SQLITE,
            &NEWEST.walk(Forward),
            Some(&[Key::Micros(5), Key::I64(1)]),
        );
        assert_eq!(seek.strategy, Strategy::Ranges(2));
        let deepest = vec![Term::Eq(0), Term::After(1..2, Direction::Desc)];
        assert_eq!(
            terms(&seek),
            [deepest.as_slice(), &[Term::After(0..1, Direction::Desc)]]
        );
    }

    #[test]
    fn mixed_directions_are_ranges_everywhere() {
        for dialect in [Dialect::POSTGRES, Dialect::SQLITE] {
            let seek = plan(
                dialect,
                &MIXED.walk(Backward),
                Some(&[Key::I64(5), Key::I64(1)]),
            );
            let deepest = vec![Term::Eq(0), Term::After(1..2, Direction::Desc)];
            assert_eq!(
                terms(&seek),
                [deepest.as_slice(), &[Term::After(0..1, Direction::Asc)]]
            );
        }
    }

    #[test]
    fn nulls_last_add_a_range_after_a_value_and_nothing_after_a_null() {
        let order = NULLABLE.walk(Forward);
        let value = plan(Dialect::POSTGRES, &order, Some(&[Key::I64(5), Key::I64(1)]));
        assert_eq!(value.ranges.last().unwrap().terms, [Term::IsNull(0)]);
        assert_eq!(value.strategy, Strategy::Ranges(3));
        let null = plan(Dialect::POSTGRES, &order, Some(&[Key::Null, Key::I64(1)]));
        assert_eq!(
            terms(&null),
            [[Term::IsNull(0), Term::After(1..2, Direction::Asc)]]
        );
    }

    #[test]
    fn walking_back_from_a_null_reaches_the_values() {
        let back = plan(
            Dialect::POSTGRES,
            &NULLABLE.walk(Backward),
            Some(&[Key::Null, Key::I64(1)]),
        );
        assert_eq!(back.ranges.last().unwrap().terms, [Term::IsNotNull(0)]);
    }

    #[test]
    fn the_first_page_splits_only_where_the_database_places_nulls_elsewhere() {
        let order = NULLABLE.walk(Forward);
        assert_eq!(
            plan(Dialect::POSTGRES, &order, None).strategy,
            Strategy::Start
        );
        let sqlite = plan(Dialect::SQLITE, &order, None);
        assert_eq!(terms(&sqlite), [[Term::IsNotNull(0)], [Term::IsNull(0)]]);
    }

    #[test]
    fn the_search_behind_begins_at_the_anchor_itself() {
        let seek = plan_behind(
            Dialect::POSTGRES,
            &NEWEST.walk(Forward),
            &[Key::Micros(5), Key::I64(1)],
        );
        let at = vec![Term::Eq(0), Term::Eq(1)];
        assert_eq!(
            terms(&seek),
            [at.as_slice(), &[Term::After(0..2, Direction::Asc)]]
        );
    }
}
