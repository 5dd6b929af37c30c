//! EXPLAIN ANALYZE of Postgres, of a statement prepared on the server: only that has a generic plan.

use serde_json::Value;
use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::{Arguments, AssertSqlSafe, Execute, Executor, Postgres, QueryBuilder, Row};

use super::{Claim, Verdict};

/// What is switched off for the while, so that a few rows are enough to see whether an index serves. (And the
/// compiler, which would be started by the price put on what is switched off.)
const OFF: [&str; 6] = [
    "jit",
    "enable_seqscan",
    "enable_sort",
    "enable_bitmapscan",
    "enable_hashjoin",
    "enable_mergejoin",
];

pub(crate) async fn judge(
    connection: &mut PgConnection,
    mut query: QueryBuilder<Postgres>,
    claim: &Claim,
) -> Result<Verdict, sqlx::Error> {
    let sql = query.sql().as_str().to_owned();
    let arguments = query
        .build()
        .take_arguments()
        .map_err(sqlx::Error::Encode)?
        .unwrap_or_default();
    let (types, values) = spelt(connection, arguments).await?;
    let before = settings(connection).await?;

    let explained: Result<Verdict, sqlx::Error> = async {
        let off: String = OFF.map(|name| format!("SET {name} = off; ")).concat();
        run(
            connection,
            format!("{off}PREPARE mainstay_proof({types}) AS {sql}"),
        )
        .await?;
        let mut verdict = Verdict::default();
        for mode in ["force_custom_plan", "force_generic_plan"] {
            run(connection, format!("SET plan_cache_mode = {mode}")).await?;
            let explain = format!(
                "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) EXECUTE mainstay_proof({values})"
            );
            let row = connection
                .fetch_one(sqlx::raw_sql(AssertSqlSafe(explain)))
                .await?;
            let json: String = row.try_get_unchecked(0)?;
            let json: Value =
                serde_json::from_str(&json).map_err(|error| sqlx::Error::Decode(error.into()))?;
            let root = json.pointer("/0/Plan").unwrap_or(&Value::Null);
            let mut reading = Reading {
                claim,
                faults: vec![],
                plan: vec![],
            };
            reading.node(root, 0);
            verdict.plan.push(format!("({mode})"));
            verdict.plan.extend(reading.plan);
            let faults = reading.faults.into_iter();
            verdict
                .faults
                .extend(faults.map(|fault| format!("{fault} ({mode})")));
        }
        Ok(verdict)
    }
    .await;
    // Also after a failure, of which the session is not to blame; in a transaction that it aborted this fails, too,
    // and its end does the rest.
    let restored = match run(connection, before).await {
        Ok(()) => run(connection, "DEALLOCATE mainstay_proof".to_owned()).await,
        error => error,
    };
    let verdict = explained?;
    restored.map(|()| verdict)
}

async fn run(connection: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(sql)))
        .await
        .map(drop)
}

/// The statements that set the planner as it is now.
async fn settings(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    let names: Vec<&str> = OFF.into_iter().chain(["plan_cache_mode"]).collect();
    sqlx::query_scalar(
        "SELECT string_agg(format('SET %s = %s; ', name, setting), '') FROM pg_settings WHERE name = ANY($1)",
    )
    .bind(names)
    .fetch_one(connection)
    .await
}

/// The parameters' types, and their values as literals: EXECUTE takes no parameters.
async fn spelt(
    connection: &mut PgConnection,
    arguments: PgArguments,
) -> Result<(String, String), sqlx::Error> {
    let count = arguments.len();
    let columns: Vec<String> = (1..=count)
        .map(|i| format!("pg_typeof(${i})::text, quote_nullable(${i}::text)"))
        .collect();
    let sql = format!("SELECT {}", columns.join(", "));
    let row = sqlx::query_with(AssertSqlSafe(sql), arguments)
        .persistent(false)
        .fetch_one(connection)
        .await?;
    let column = |i: usize| row.try_get::<String, _>(i);
    let types: Vec<String> = (0..count)
        .map(|i| column(2 * i))
        .collect::<Result<_, _>>()?;
    let values: Vec<String> = (0..count)
        .map(|i| column(2 * i + 1))
        .collect::<Result<_, _>>()?;
    Ok((types.join(", "), values.join(", ")))
}

struct Reading<'a> {
    claim: &'a Claim,
    faults: Vec<String>,
    plan: Vec<String>,
}

impl Reading<'_> {
    fn node(&mut self, node: &Value, depth: usize) {
        let text = |key: &str| node.get(key).and_then(Value::as_str).unwrap_or_default();
        let kind = text("Node Type");
        let (relation, index) = (text("Relation Name"), text("Index Name"));
        let (condition, filter) = (text("Index Cond"), text("Filter"));
        let removed = ["Rows Removed by Filter", "Rows Removed by Index Recheck"]
            .iter()
            .filter_map(|key| node.get(key)?.as_f64())
            .sum::<f64>();
        let rows = node
            .get("Actual Rows")
            .and_then(Value::as_f64)
            .unwrap_or(0.0);
        let mut shown = format!("{kind} {relation} {index}");
        for (word, value) in [("cond", condition), ("filter", filter)] {
            if !value.is_empty() {
                shown.push_str(&format!(" {word}={value}"));
            }
        }
        shown.push_str(&format!(" rows={rows} removed={removed}"));

        if kind == "Seq Scan" {
            self.faults
                .push(format!("a table is read from its start: {shown}"));
        }
        if kind.starts_with("Index") && condition.is_empty() && self.claim.anchored {
            self.faults
                .push(format!("an index is read from its start: {shown}"));
        }
        // The other end of a range is a filter on what was found.
        if reads_unlimited(node) && self.claim.names_key(filter) {
            self.faults.push(format!("a key is a filter: {shown}"));
        }
        #[expect(clippy::cast_precision_loss, reason = "a page has at most 10,001 rows")]
        if removed > self.claim.rows as f64 {
            self.faults
                .push(format!("rows are read for nothing: {shown}"));
        }
        // Ties that the index leaves in disorder are an incremental sort; where they stem from another table, no
        // index could order them.
        let sorts = kind == "Sort" || (kind == "Incremental Sort" && !self.claim.joined);
        if sorts && children(node).any(reads_unlimited) {
            self.faults.push(format!("rows are sorted: {shown}"));
        }
        self.plan.push(format!("{}{shown}", "  ".repeat(depth)));
        for child in children(node) {
            self.node(child, depth + 1);
        }
    }
}

fn children(node: &Value) -> impl Iterator<Item = &Value> {
    node.get("Plans")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// Whether rows are read at this node or below, without a LIMIT in between: of a table, or of what was kept aside or
/// made (a CTE, a function).
fn reads_unlimited(node: &Value) -> bool {
    let kind = node.get("Node Type").and_then(Value::as_str);
    match kind.unwrap_or_default() {
        "Limit" => false,
        "Subquery Scan" => children(node).any(reads_unlimited),
        kind => kind.ends_with(" Scan") || children(node).any(reads_unlimited),
    }
}
