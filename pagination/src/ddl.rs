//! The index that serves an order.

use std::fmt::Write;

use crate::keyset::{Direction, KeysetDef, Nulls, OrderColumn};
use crate::quoted::Quoted;
use crate::seek::{self, Dialect};

impl KeysetDef {
    /// The statement that creates the index which serves this order, behind the columns that the query
    /// compares for equality (the tenant, say).
    ///
    /// It names the order's columns by their output names: put the expression in the place of one that is computed
    /// (`lower(name)`; on MySQL and MariaDB a generated column). What the database cannot index is said in a
    /// comment above the statement, one line per column:
    ///
    /// - a [`joined`](crate::Column::joined) column, which belongs in an index of its own table;
    /// - on SQLite, MySQL and MariaDB, a nullable column behind the first whose NULLs stand at the other end than the
    ///   index has them. SQLite sorts the rows that share the columns before it, MySQL and MariaDB all rows behind
    ///   the cursor. Order by a column that says whether it is NULL, and then by it (see the crate's documentation).
    ///
    /// MySQL and MariaDB want a length for a text column without one (`title(100)` does not order by all of it:
    /// give the column a length). Mixed directions need MySQL 8 or MariaDB 10.8; before, DESC is ignored there.
    ///
    /// ```
    /// use mainstay_pagination::{Column, Dialect, KeysetDef};
    ///
    /// const BY_PRIORITY: KeysetDef = KeysetDef::new("tickets.by_priority")
    ///     .desc(Column::i64("priority").nulls_last())
    ///     .unique_asc(Column::i64("id").not_null());
    /// assert_eq!(
    ///     BY_PRIORITY.index_ddl(Dialect::Postgres, "ticket_by_priority", "ticket", &["tenant"]),
    ///     r#"CREATE INDEX "ticket_by_priority" ON "ticket" ("tenant", "priority" DESC, "id")"#
    /// );
    /// ```
    #[must_use]
    pub fn index_ddl(&self, dialect: Dialect, index: &str, table: &str, equal: &[&str]) -> String {
        let order: Vec<&OrderColumn> = self.columns().collect();
        let walk = self.walk(crate::PageDirection::Forward);
        let placed = seek::explicit_nulls(dialect, &walk) && dialect.nulls_in_index();
        let mut notes = String::new();
        let mut columns: Vec<String> = equal
            .iter()
            .map(|name| Quoted(dialect, name).to_string())
            .collect();
        for (i, column) in order.into_iter().enumerate() {
            let name = Quoted(dialect, column.name());
            if column.is_joined() {
                let _ = writeln!(notes, "-- {name} is of another table: index it there");
                continue;
            }
            if i > 0 && !dialect.places(column) && !dialect.nulls_in_index() {
                let _ = writeln!(
                    notes,
                    "-- {name} has its NULLs at the other end than the index"
                );
            }
            let direction = match column.direction() {
                Direction::Asc => "",
                Direction::Desc => " DESC",
            };
            let nulls = match column.nulls().filter(|_| placed) {
                Some(Nulls::First) => " NULLS FIRST",
                Some(Nulls::Last) => " NULLS LAST",
                None => "",
            };
            columns.push(format!("{name}{direction}{nulls}"));
        }
        let table: Vec<String> = table
            .split('.')
            .map(|part| Quoted(dialect, part).to_string())
            .collect();
        format!(
            "{notes}CREATE INDEX {} ON {} ({})",
            Quoted(dialect, index),
            table.join("."),
            columns.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Column;

    const ORDER: KeysetDef = KeysetDef::new("order")
        .asc(Column::text("customer").joined().not_null())
        .desc(Column::i64("rank").nulls_last())
        .unique_asc(Column::i64("id").not_null());

    #[test]
    fn the_statement_says_what_it_cannot_index() {
        for (dialect, ddl) in [
            (
                Dialect::Postgres,
                "-- \"customer\" is of another table: index it there\n\
                 CREATE INDEX \"i\" ON \"app\".\"t\" (\"rank\" DESC NULLS LAST, \"id\")",
            ),
            (
                Dialect::Sqlite,
                "-- \"customer\" is of another table: index it there\n\
                 CREATE INDEX \"i\" ON \"app\".\"t\" (\"rank\" DESC, \"id\")",
            ),
            (
                Dialect::Mysql,
                "-- `customer` is of another table: index it there\n\
                 CREATE INDEX `i` ON `app`.`t` (`rank` DESC, `id`)",
            ),
        ] {
            assert_eq!(ORDER.index_ddl(dialect, "i", "app.t", &[]), ddl);
        }
        const FIRST: KeysetDef = KeysetDef::new("first")
            .asc(Column::i64("a").nulls_last())
            .asc(Column::i64("b").nulls_last())
            .unique_asc(Column::i64("id").not_null());
        assert_eq!(
            FIRST.index_ddl(Dialect::Mysql, "i", "t", &["tenant"]),
            "-- `b` has its NULLs at the other end than the index\n\
             CREATE INDEX `i` ON `t` (`tenant`, `a`, `b`, `id`)"
        );
    }
}
