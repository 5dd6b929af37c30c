//! EXPLAIN of MySQL and MariaDB.

use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, Execute, MySql, MySqlConnection, QueryBuilder, Row};

use super::{Claim, Verdict};

/// A line of the plan.
struct Line {
    select: Option<i64>,
    table: String,
    /// How the table is read: ALL, index, ref, range, const.
    access: String,
    key: String,
    key_len: String,
    extra: String,
}

impl Line {
    fn of(row: &MySqlRow) -> Result<Self, sqlx::Error> {
        let text = |name| {
            row.try_get::<Option<String>, _>(name)
                .map(Option::unwrap_or_default)
        };
        Ok(Self {
            // Unsigned on MySQL, or on MariaDB, whichever; it is small.
            select: row.try_get_unchecked("id")?,
            table: text("table")?,
            access: text("type")?,
            key: text("key")?,
            key_len: text("key_len")?,
            extra: text("Extra")?,
        })
    }

    /// Whether it reads a table, rather than the rows that were found.
    fn is_table(&self) -> bool {
        !(self.table.is_empty() || self.table.starts_with('<'))
    }

    fn show(&self) -> String {
        let Self {
            select,
            table,
            access,
            key,
            key_len,
            extra,
        } = self;
        let select = select.unwrap_or_default();
        format!("{select} {table} {access} key={key} key_len={key_len} {extra}")
    }
}

pub(crate) async fn judge(
    connection: &mut MySqlConnection,
    mut query: QueryBuilder<MySql>,
    claim: &Claim,
) -> Result<Verdict, sqlx::Error> {
    let sql = format!("EXPLAIN {}", query.sql().as_str());
    let arguments = query
        .build()
        .take_arguments()
        .map_err(sqlx::Error::Encode)?
        .unwrap_or_default();
    let rows = sqlx::query_with(AssertSqlSafe(sql), arguments)
        .persistent(false)
        .fetch_all(connection)
        .await?;
    let lines: Vec<Line> = rows.iter().map(Line::of).collect::<Result<_, _>>()?;
    Ok(Verdict {
        faults: faults(&lines, claim),
        plan: lines.iter().map(Line::show).collect(),
    })
}

fn faults(lines: &[Line], claim: &Claim) -> Vec<String> {
    let mut faults = Vec::new();
    // A block of NULLs that is searched apart is one value of the index.
    let mut refs = claim.nulls_alone;
    let mut select = None;
    for line in lines.iter().filter(|line| line.is_table()) {
        // The table that leads its select; the others are looked up for each of its rows.
        let leads = select != Some(line.select);
        select = Some(line.select);
        let shown = line.show();
        // MariaDB: `ref|filter` is a `ref` that skips rows by a second index, `hash_ALL` what is hashed first.
        let access = line.access.split('|').next().unwrap_or_default();
        match access.strip_prefix("hash_").unwrap_or(access) {
            "ALL" => faults.push(format!("a table is read whole: {shown}")),
            "index" if claim.anchored => {
                faults.push(format!("an index is read from its start: {shown}"));
            }
            "ref" | "ref_or_null" if leads && claim.anchored && refs > 0 => refs -= 1,
            "ref" | "ref_or_null" if leads && claim.anchored => faults.push(format!(
                "all rows of the filter are read up to the cursor; a FORCE INDEX makes it a range: {shown}"
            )),
            _ => {}
        }
        for costly in ["Using filesort", "Using temporary"] {
            if line.extra.contains(costly) {
                faults.push(format!("rows are sorted or kept aside: {shown}"));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(access: &str) -> bool {
        let line = Line {
            select: Some(1),
            table: "t".into(),
            access: access.into(),
            key: "i".into(),
            key_len: "8".into(),
            extra: "Using where".into(),
        };
        let claim = Claim {
            keys: vec!["score"],
            joined: false,
            anchored: true,
            rows: 21,
            nulls_alone: 0,
        };
        !faults(&[line], &claim).is_empty()
    }

    #[test]
    fn a_second_index_does_not_hide_what_the_first_reads() {
        for access in [
            "ALL",
            "index",
            "ref",
            "ref|filter",
            "ref_or_null",
            "hash_ALL",
            "hash_index",
        ] {
            assert!(told(access), "{access}");
        }
        for access in ["range", "range|filter", "const", "eq_ref"] {
            assert!(!told(access), "{access}");
        }
    }
}
