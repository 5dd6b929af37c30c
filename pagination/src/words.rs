//! The words of a statement that name columns: quoted as the database quotes, ordered as it can be told.
//!
//! Each is written straight into the statement, without a text of its own.

use crate::key::Key;
use crate::keyset::{Direction, Nulls, OrderColumn};
use crate::quoted::Quoted;
use crate::seek::{self, Dialect, Range, Then};
use crate::statement::At;
use crate::text::Words;

/// `page."created_at"`.
#[derive(Clone, Copy)]
pub(crate) struct Name<'a>(pub(crate) Dialect, pub(crate) &'a OrderColumn);

impl Words for Name<'_> {
    fn write(self, out: &mut String) {
        out.push_str("page.");
        Quoted(self.0, self.1.name()).write(out);
    }
}

/// A column, or several as a row value.
pub(crate) struct Names<'a>(pub(crate) Dialect, pub(crate) &'a [OrderColumn]);

impl Words for Names<'_> {
    fn write(self, out: &mut String) {
        if let [column] = self.1 {
            return Name(self.0, column).write(out);
        }
        for (i, column) in self.1.iter().enumerate() {
            out.push_str(if i == 0 { "(" } else { ", " });
            Name(self.0, column).write(out);
        }
        out.push(')');
    }
}

impl Direction {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Asc => " ASC",
            Self::Desc => " DESC",
        }
    }

    /// The operator of what comes after in this direction.
    pub(crate) const fn beyond(self) -> &'static str {
        match self {
            Self::Asc => " > ",
            Self::Desc => " < ",
        }
    }
}

/// ` ORDER BY page."a" DESC NULLS LAST, page."id" ASC`.
pub(crate) struct OrderBy<'a> {
    dialect: Dialect,
    order: &'a [OrderColumn],
    /// From which column on NULL placement is said; `usize::MAX` for nowhere.
    nulls_from: usize,
    /// How many leading columns are the same in every row and therefore left out.
    constant: usize,
    /// What stands before the first.
    open: &'static str,
}

impl<'a> OrderBy<'a> {
    /// For rows of all ranges.
    pub(crate) const fn all(dialect: Dialect, order: &'a [OrderColumn]) -> Self {
        Self {
            dialect,
            order,
            nulls_from: 0,
            constant: 0,
            open: " ORDER BY ",
        }
    }

    /// Behind other terms.
    pub(crate) const fn continued(mut self) -> Self {
        self.open = ", ";
        self
    }

    /// For the rows of one select, such that an index can give the order.
    pub(crate) fn within(dialect: Dialect, at: At<'a>, ranges: &[Range], explicit: bool) -> Self {
        Self {
            dialect,
            order: at.order,
            nulls_from: match (explicit, seek::splits(dialect, at.order)) {
                (false, _) => usize::MAX,
                (true, false) => 0,
                // NULLs and values of the first column are not in one select.
                (true, true) => 1,
            },
            // MariaDB sorts the rows of `c IS NULL ORDER BY c, id`, and SQLite those of `lower(c) = ? ORDER BY
            // lower(c), id`, and neither does if `c` is left out. Postgres is better told (see `Statement`).
            constant: match dialect {
                Dialect::Mysql => constant(at, ranges, Key::is_null),
                Dialect::Sqlite => constant(at, ranges, |_| true),
                Dialect::Postgres => 0,
            },
            open: " ORDER BY ",
        }
    }
}

/// How many of the first columns are the same throughout the ranges, and of the kind asked for.
fn constant(at: At<'_>, ranges: &[Range], kind: impl Fn(&Key) -> bool) -> usize {
    let agreed = |range: &Range| {
        let keys = at.keys.iter().take(usize::from(range.agrees));
        let same = keys.take_while(|key| kind(key)).count();
        let next = range.then == Then::IsNull && same == usize::from(range.agrees);
        same + usize::from(next)
    };
    // The last column is unique, and an ORDER BY wants one.
    let most = at.order.len().saturating_sub(1);
    ranges.iter().map(agreed).min().unwrap_or(0).min(most)
}

impl Words for OrderBy<'_> {
    fn write(self, out: &mut String) {
        for (i, column) in self.order.iter().enumerate().skip(self.constant) {
            out.push_str(if i == self.constant { self.open } else { ", " });
            let name = Name(self.dialect, column);
            let nulls = column.nulls().filter(|_| i >= self.nulls_from);
            let clause = self.dialect != Dialect::Mysql;
            if let (false, Some(nulls)) = (clause || self.dialect.places(column), nulls) {
                let direction = match nulls {
                    Nulls::First => Direction::Desc,
                    Nulls::Last => Direction::Asc,
                };
                name.write(out);
                out.push_str(" IS NULL");
                out.push_str(direction.word());
                out.push_str(", ");
            }
            name.write(out);
            out.push_str(column.direction().word());
            match nulls.filter(|_| clause) {
                Some(Nulls::First) => out.push_str(" NULLS FIRST"),
                Some(Nulls::Last) => out.push_str(" NULLS LAST"),
                None => {}
            }
        }
    }
}
