//! The text of a page's statement, written from a [`Seek`].
//!
//! The caller's query stands in a subselect, so that it may hold OR, joins, expressions or no WHERE at all;
//! the databases pull it up and use its indexes. The only names written are the order's own, which are
//! `&'static str`, quoted; every value is a bind parameter. One text per state of the cursor: never one
//! text with optional parameters, which a generic plan answers by reading everything.

use sqlx::QueryBuilder;

use crate::database::PageDb;
use crate::key::{Key, KeyKind};
use crate::keyset::{COLUMNS_MAX, OrderColumn};
use crate::seek::{Bound, Dialect, Range, Seek, Then};
use crate::text::Text;
use crate::words::{Name, Names, OrderBy};

/// The column that carries the probe's answer, after the caller's own.
pub(crate) const BEHIND: &str = "mainstay_behind";

/// The caller's query.
pub(crate) type Base<'a, D> = dyn Fn(&mut QueryBuilder<D>) + Send + Sync + 'a;

/// A position in an order.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    /// The order as walked from there.
    pub(crate) order: &'a [OrderColumn],
    pub(crate) keys: &'a [Key],
    /// Whether the keys stand in the statement's own columns (`mainstay_parent.k0`), of which these are one row: only
    /// which of them are NULL is written.
    pub(crate) lateral: bool,
}

/// Writes one page's statement.
pub(crate) struct Statement<'a, D: PageDb> {
    /// Called once per select, so that its parameters repeat with it.
    pub(crate) base: &'a Base<'a, D>,
    pub(crate) anchor: At<'a>,
    /// The bound, with the order turned round.
    pub(crate) bound: At<'a>,
    pub(crate) query: Text<D>,
}

/// Positions are written as one digit.
const _: () = assert!(COLUMNS_MAX <= 8);

impl<D: PageDb> Statement<'_, D> {
    /// At most `rows` rows in the walk's order.
    pub(crate) fn page(&mut self, seek: &Seek, rows: u32) {
        let Bound::Cut(ranges) = &seek.bound else {
            return self.found(seek, rows);
        };
        self.query.push("SELECT page.* FROM (");
        self.found(seek, rows);
        self.query.push(") AS page WHERE ");
        self.conditions(self.bound, ranges);
        self.query.push(OrderBy::all(D::DIALECT, self.anchor.order));
    }

    /// The same, and in the column [`BEHIND`] whether there is a row at or before the anchor. One row of
    /// NULLs stands for an empty page, since it has to carry that answer.
    ///
    /// Scalar subselects, ordered and limited, because EXISTS drops the order and then, under a generic
    /// plan, reads the table. COALESCE stops at the first that finds a row.
    pub(crate) fn page_and_behind(&mut self, seek: &Seek, behind: &Seek, rows: u32) {
        let order = self.anchor.order;
        let back = At {
            order: self.bound.order,
            ..self.anchor
        };
        self.query
            .push("SELECT page.*, probe.behind AS mainstay_behind FROM (SELECT COALESCE(");
        for (i, branch) in behind.ranges.branches().enumerate() {
            self.query.push(if i == 0 {
                "(SELECT 1 FROM "
            } else {
                ", (SELECT 1 FROM "
            });
            self.branch(back, branch, behind, 1);
            self.query.push(")");
        }
        self.query.push(") AS behind) AS probe LEFT JOIN (");
        self.page(seek, rows);
        self.query.push(") AS page ON TRUE");
        self.query.push(OrderBy::all(D::DIALECT, order));
    }

    /// The rows from the anchor on, whatever the bound unless it is one of their own.
    fn found(&mut self, seek: &Seek, rows: u32) {
        let one = seek.ranges.branches().nth(1).is_none();
        self.query.push(if one {
            "SELECT page.* FROM "
        } else {
            "SELECT page.* FROM ("
        });
        for (i, branch) in seek.ranges.branches().enumerate() {
            if !one {
                self.query.push(if i == 0 {
                    "SELECT r.* FROM (SELECT page.* FROM "
                } else {
                    " UNION ALL SELECT r.* FROM (SELECT page.* FROM "
                });
            }
            self.branch(self.anchor, branch, seek, rows);
            if !one {
                self.query.push(") AS r");
            }
        }
        if !one {
            self.query
                .push(") AS page")
                .push(OrderBy::all(D::DIALECT, self.anchor.order));
            self.limit(rows);
        }
    }

    /// One select over the caller's query.
    fn branch(&mut self, at: At<'_>, ranges: &[Range], seek: &Seek, rows: u32) {
        self.query.push("(");
        (self.base)(self.query.builder());
        // On a line of its own, in case the caller's query ends in a comment.
        self.query.push("\n) AS page");
        let whole = matches!(
            ranges,
            [Range {
                agrees: 0,
                then: Then::All,
                ..
            }]
        );
        if !whole {
            self.query.push(" WHERE ");
            self.conditions(at, ranges);
        }
        if let Bound::Inside(bound) = &seek.bound {
            self.query.push(if whole { " WHERE " } else { " AND " });
            self.condition(self.bound, bound);
        }
        self.query
            .push(OrderBy::within(D::DIALECT, at, ranges, seek.explicit_nulls));
        self.limit(rows);
    }

    /// Ranges joined by OR.
    fn conditions(&mut self, at: At<'_>, ranges: &[Range]) {
        if let [only] = ranges {
            return self.condition(at, only);
        }
        for (i, range) in ranges.iter().enumerate() {
            self.query.push(if i == 0 { "((" } else { ") OR (" });
            self.condition(at, range);
        }
        self.query.push("))");
    }

    /// Everything that one range says, joined by AND.
    ///
    /// On Postgres, equality is said as `>= AND <=`. Behind `a = x ORDER BY a, id` the planner takes `a` for a
    /// constant and the index of `id` alone for one in that order; it would then read that index and throw away the
    /// rows of every other `a`, which looks cheap to it because of the LIMIT. The two comparisons bound the right
    /// index just as well and leave the order as it is.
    fn condition(&mut self, at: At<'_>, range: &Range) {
        let agrees = usize::from(range.agrees);
        let dialect = D::DIALECT;
        for (i, (column, key)) in at.order.iter().zip(at.keys).take(agrees).enumerate() {
            if i > 0 {
                self.query.push(" AND ");
            }
            let name = Name(dialect, column);
            if key.is_null() {
                let (before, after) = D::AGREES;
                self.query
                    .push(before)
                    .push(name)
                    .push(" IS NULL")
                    .push(after);
            } else if dialect == Dialect::Postgres {
                self.query.push(name).push(" >= ");
                self.key(at, i);
                self.query.push(" AND ").push(name).push(" <= ");
                self.key(at, i);
            } else {
                let (before, after) = D::AGREES;
                self.query.push(before).push(name).push(" = ");
                self.key(at, i);
                self.query.push(after);
            }
        }
        if agrees > 0 && range.then != Then::All {
            self.query.push(" AND ");
        }
        let columns = |len: usize| at.order.get(agrees..agrees + len).unwrap_or_default();
        match range.then {
            Then::All => {}
            Then::IsNull => {
                let names = Names(dialect, columns(1));
                self.query
                    .push(D::AGREES.0)
                    .push(names)
                    .push(" IS NULL")
                    .push(D::AGREES.1);
            }
            Then::IsNotNull => {
                self.query
                    .push(Names(dialect, columns(1)))
                    .push(" IS NOT NULL");
            }
            Then::After(len, direction) => {
                let len = usize::from(len);
                self.query
                    .push(Names(dialect, columns(len)))
                    .push(direction.beyond());
                for i in 0..len {
                    if i > 0 {
                        self.query.push(", ");
                    } else if len > 1 {
                        self.query.push("(");
                    }
                    self.key(at, agrees + i);
                }
                if len > 1 {
                    self.query.push(")");
                }
            }
        }
    }

    fn key(&mut self, at: At<'_>, i: usize) {
        if at.lateral {
            self.query.push("mainstay_parent.k").push(digit(i));
        } else if let (Some(key), Some(column)) = (at.keys.get(i), at.order.get(i)) {
            self.query.bind(key, column.kind());
        }
    }

    fn limit(&mut self, rows: u32) {
        self.query.push(" LIMIT ");
        self.query.bind(&Key::I64(i64::from(rows)), KeyKind::I64);
    }
}

/// A position in an order as text.
pub(crate) const fn digit(i: usize) -> &'static str {
    match i {
        0 => "0",
        1 => "1",
        2 => "2",
        3 => "3",
        4 => "4",
        5 => "5",
        6 => "6",
        _ => "7",
    }
}
