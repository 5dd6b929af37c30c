//! The text of a page's statement, written from a [`Seek`].
//!
//! The caller's query stands in a subselect, so that it may hold OR, joins, expressions or no WHERE at all;
//! the databases pull it up and use its indexes. The only names written are the order's own, which are
//! `&'static str`, quoted; every value is a bind parameter. One text per state of the cursor: never one
//! text with optional parameters, which a generic plan answers by reading everything.

use sqlx::QueryBuilder;

use crate::database::PageDb;
use crate::key::{Key, KeyKind};
use crate::keyset::{Direction, Nulls, OrderColumn};
use crate::seek::{Range, Seek, Term};

/// The column that carries the probe's answer, after the caller's own.
pub(crate) const BEHIND: &str = "mainstay_behind";

/// The caller's query.
pub(crate) type Base<'a, D> = dyn Fn(&mut QueryBuilder<D>) + 'a;

/// Writes one page's statement.
pub(crate) struct Statement<'a, D: PageDb> {
    /// Called once per range, so that its parameters repeat with it.
    pub(crate) base: &'a Base<'a, D>,
    /// The order as walked.
    pub(crate) walk: &'a [OrderColumn],
    pub(crate) anchor: &'a [Key],
    pub(crate) query: QueryBuilder<D>,
}

impl<D: PageDb> Statement<'_, D> {
    /// At most `rows` rows in the walk's order.
    pub(crate) fn page(&mut self, seek: &Seek, rows: u32) {
        if let [range] = seek.ranges.as_slice() {
            self.query.push("SELECT page.* FROM ");
            self.range(range, self.walk, seek.explicit_nulls, rows);
            return;
        }
        self.query.push("SELECT page.* FROM (");
        for (i, range) in seek.ranges.iter().enumerate() {
            self.query.push(if i == 0 {
                "SELECT r.* FROM (SELECT page.* FROM "
            } else {
                " UNION ALL SELECT r.* FROM (SELECT page.* FROM "
            });
            self.range(range, self.walk, seek.explicit_nulls, rows);
            self.query.push(") AS r");
        }
        self.query.push(") AS page");
        self.order_by(self.walk, true);
        self.limit(rows);
    }

    /// The same, and in the column [`BEHIND`] whether there is a row at or before the anchor. One row of
    /// NULLs stands for an empty page, since it has to carry that answer.
    ///
    /// Scalar subselects, ordered and limited, because EXISTS drops the order and then, under a generic
    /// plan, reads the table. COALESCE stops at the first that finds a row.
    pub(crate) fn page_and_behind(&mut self, seek: &Seek, rows: u32, behind: &Seek) {
        let back: Vec<_> = self.walk.iter().map(|c| c.reversed()).collect();
        self.query
            .push("SELECT page.*, probe.behind AS ")
            .push(BEHIND)
            .push(" FROM (SELECT COALESCE(");
        for (i, range) in behind.ranges.iter().enumerate() {
            self.query.push(if i == 0 {
                "(SELECT 1 FROM "
            } else {
                ", (SELECT 1 FROM "
            });
            self.range(range, &back, behind.explicit_nulls, 1);
            self.query.push(")");
        }
        self.query.push(") AS behind) AS probe LEFT JOIN (");
        self.page(seek, rows);
        self.query.push(") AS page ON TRUE");
        self.order_by(self.walk, true);
    }

    fn range(&mut self, range: &Range, walk: &[OrderColumn], explicit_nulls: bool, rows: u32) {
        self.query.push("(");
        (self.base)(&mut self.query);
        // On a line of its own, in case the caller's query ends in a comment.
        self.query.push("\n) AS page");
        for (i, term) in range.terms.iter().enumerate() {
            self.query.push(if i == 0 { " WHERE " } else { " AND " });
            self.term(term);
        }
        self.order_by(walk, explicit_nulls);
        self.limit(rows);
    }

    fn term(&mut self, term: &Term) {
        match term {
            Term::Eq(i) => {
                self.query.push(D::AGREES.0);
                self.columns(*i..*i + 1, " = ");
                self.query.push(D::AGREES.1);
            }
            Term::IsNull(i) => {
                self.query.push(D::AGREES.0);
                self.names(*i..*i + 1);
                self.query.push(" IS NULL").push(D::AGREES.1);
            }
            Term::IsNotNull(i) => {
                self.names(*i..*i + 1);
                self.query.push(" IS NOT NULL");
            }
            Term::After(span, Direction::Asc) => self.columns(span.clone(), " > "),
            Term::After(span, Direction::Desc) => self.columns(span.clone(), " < "),
        }
    }

    /// `page."a" < $1`, or `(page."a", page."b") < ($1, $2)`.
    fn columns(&mut self, span: std::ops::Range<usize>, operator: &str) {
        let many = span.len() > 1;
        self.open(many);
        self.names(span.clone());
        self.close(many);
        self.query.push(operator);
        self.open(many);
        let keys = self.anchor.get(span.clone()).unwrap_or_default();
        for (i, (key, column)) in keys
            .iter()
            .zip(self.walk.get(span).unwrap_or_default())
            .enumerate()
        {
            if i > 0 {
                self.query.push(", ");
            }
            D::bind(&mut self.query, key, column.kind());
        }
        self.close(many);
    }

    fn names(&mut self, span: std::ops::Range<usize>) {
        for (i, column) in self.walk.get(span).unwrap_or_default().iter().enumerate() {
            if i > 0 {
                self.query.push(", ");
            }
            name(&mut self.query, column);
        }
    }

    fn open(&mut self, many: bool) {
        if many {
            self.query.push("(");
        }
    }

    fn close(&mut self, many: bool) {
        if many {
            self.query.push(")");
        }
    }

    fn order_by(&mut self, walk: &[OrderColumn], explicit_nulls: bool) {
        for (i, column) in walk.iter().enumerate() {
            self.query.push(if i == 0 { " ORDER BY " } else { ", " });
            name(&mut self.query, column);
            self.query.push(match column.direction() {
                Direction::Asc => " ASC",
                Direction::Desc => " DESC",
            });
            match column.nulls().filter(|_| explicit_nulls) {
                Some(Nulls::First) => self.query.push(" NULLS FIRST"),
                Some(Nulls::Last) => self.query.push(" NULLS LAST"),
                None => continue,
            };
        }
    }

    fn limit(&mut self, rows: u32) {
        self.query.push(" LIMIT ");
        D::bind(&mut self.query, &Key::I64(i64::from(rows)), KeyKind::I64);
    }
}

fn name<D: PageDb>(query: &mut QueryBuilder<D>, column: &OrderColumn) {
    query.push("page.\"");
    query.push(column.name().replace('"', "\"\""));
    query.push("\"");
}
