//! SQLite's EXPLAIN QUERY PLAN.

use sqlx::{Arguments, AssertSqlSafe, Execute, QueryBuilder, Row, Sqlite, SqliteConnection};

use super::{Claim, Verdict};

/// A line of the plan.
struct Step {
    parent: i64,
    detail: String,
}

pub(crate) async fn judge(
    connection: &mut SqliteConnection,
    mut query: QueryBuilder<Sqlite>,
    claim: &Claim,
) -> Result<Verdict, sqlx::Error> {
    let sql = format!("EXPLAIN QUERY PLAN {}", query.sql().as_str());
    let arguments = query
        .build()
        .take_arguments()
        .map_err(sqlx::Error::Encode)?
        .unwrap_or_default();
    debug_assert!(arguments.len() > 0, "there is always a LIMIT");
    let rows = sqlx::query_with(AssertSqlSafe(sql), arguments)
        .persistent(false)
        .fetch_all(connection)
        .await?;
    let step = |row: &sqlx::sqlite::SqliteRow| {
        Ok::<_, sqlx::Error>(Step {
            parent: row.try_get("parent")?,
            detail: row.try_get("detail")?,
        })
    };
    let steps: Vec<Step> = rows.iter().map(step).collect::<Result<_, _>>()?;
    Ok(Verdict {
        faults: faults(&steps, claim),
        plan: steps.into_iter().map(|step| step.detail).collect(),
    })
}

fn faults(steps: &[Step], claim: &Claim) -> Vec<String> {
    let mut faults = Vec::new();
    let mut parents: Vec<i64> = steps.iter().map(|step| step.parent).collect();
    parents.sort_unstable();
    parents.dedup();
    for parent in parents {
        let select = || steps.iter().filter(|step| step.parent == parent);
        // Subselects that are made beside, whose rows are then read under their names.
        let made: Vec<&str> = select()
            .filter_map(|step| subselect(&step.detail))
            .collect();
        let tables: Vec<&str> = select()
            .map(|step| step.detail.as_str())
            .filter(|detail| is_table(detail, &made))
            .collect();
        if tables.is_empty() {
            continue;
        }
        for table in &tables {
            if claim.anchored && table.starts_with("SCAN ") {
                faults.push(format!("a table is read from its start: {table}"));
            }
            if table.contains(" AUTOMATIC ") {
                faults.push(format!(
                    "a table is read whole, for an index of this statement's own: {table}"
                ));
            }
        }
        let bounded = tables.iter().any(|table| {
            let condition = table.rsplit_once(" (").map_or("", |(_, rest)| rest);
            claim.names_key(condition)
                || condition.contains("<expr>")
                || condition.contains("rowid")
        });
        if claim.anchored && !bounded {
            faults.push(format!("no key bounds the search: {}", tables.join("; ")));
        }
        for step in select().filter(|step| step.detail.starts_with("USE TEMP B-TREE")) {
            faults.push(format!("rows are sorted: {}", step.detail));
        }
    }
    faults
}

/// The name of the subselect that a line makes.
fn subselect(detail: &str) -> Option<&str> {
    detail
        .strip_prefix("CO-ROUTINE ")
        .or(detail.strip_prefix("MATERIALIZE "))
}

/// Whether a line reads a table (rather than the rows that were found).
fn is_table(detail: &str, made: &[&str]) -> bool {
    let Some(rest) = detail
        .strip_prefix("SCAN ")
        .or(detail.strip_prefix("SEARCH "))
    else {
        return false;
    };
    let name = rest.split(' ').next().unwrap_or_default();
    let found = made.contains(&name) && !rest.contains(" USING ");
    !(found || rest.starts_with('(') || rest.contains("CONSTANT ROW"))
}
