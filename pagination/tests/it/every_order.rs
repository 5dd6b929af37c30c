//! Each of the 518 orders there are of up to three columns (either direction, NOT NULL or NULLs at either end) and a
//! unique one seeks by the index that `index_ddl` gives for it: each page, backward and forward, from each end and
//! from each kind of cursor, and its probe.

use mainstay_pagination::{
    Column, Dialect, Fingerprint, Key, KeysetBuilder, KeysetDef, PagePlan, PageRequest, Probe,
    PushIndexHint, SeekError, seeks,
};
use sqlx::{AssertSqlSafe, Execute, MySql, MySqlConnection, Postgres, QueryBuilder, Row, Sqlite};

use crate::support::{Maria, Scratch, TestDb, codec, sqlite};

/// Of a column: descending, and the end where its NULLs stand if it may be NULL.
type Choice = (bool, Option<bool>);

const CHOICES: [Choice; 6] = [
    (false, None),
    (true, None),
    (false, Some(true)),
    (false, Some(false)),
    (true, Some(true)),
    (true, Some(false)),
];
const VALUES: [&str; 3] = ["v0", "v1", "v2"];
const NULLABLES: [&str; 3] = ["n0", "n1", "n2"];

fn choices() -> Vec<Vec<Choice>> {
    let mut all: Vec<Vec<Choice>> = vec![vec![]];
    let mut last = all.clone();
    for _ in 0..3 {
        last = last
            .iter()
            .flat_map(|prefix| CHOICES.map(|choice| [prefix.as_slice(), &[choice]].concat()))
            .collect();
        all.extend(last.clone());
    }
    all
}

fn order(choices: &[Choice], id_descending: bool) -> KeysetDef {
    let mut builder: KeysetBuilder = KeysetDef::new("every");
    for (i, (descending, nulls)) in choices.iter().enumerate() {
        let nullable = Column::i64(NULLABLES[i]);
        builder = match (descending, nulls) {
            (false, None) => builder.asc(Column::i64(VALUES[i]).not_null()),
            (true, None) => builder.desc(Column::i64(VALUES[i]).not_null()),
            (false, Some(true)) => builder.asc(nullable.nulls_first()),
            (false, Some(false)) => builder.asc(nullable.nulls_last()),
            (true, Some(true)) => builder.desc(nullable.nulls_first()),
            (true, Some(false)) => builder.desc(nullable.nulls_last()),
        };
    }
    let id = Column::i64("id").not_null();
    if id_descending {
        builder.unique_desc(id)
    } else {
        builder.unique_asc(id)
    }
}

/// Few values, so that every column has ties.
async fn fill<D: TestDb>(connection: &mut D::Connection, id: &str, rows: i64) {
    let values: String = (0..3)
        .map(|i| format!("v{i} int NOT NULL, n{i} int NULL, "))
        .collect();
    D::run(
        connection,
        format!("CREATE TABLE t (id {id} NOT NULL, tenant bigint NOT NULL, {values} body varchar(80) NOT NULL)"),
    )
    .await;
    let body = "x".repeat(60);
    for from in (0..rows).step_by(1_000) {
        let tuples: Vec<String> = (from..rows.min(from + 1_000))
            .map(|i| {
                let draw = |by: i64| i * 7_919 / by % 6;
                let nullable = |by| match draw(by) {
                    5 => "NULL".to_owned(),
                    value => value.to_string(),
                };
                format!(
                    "({i}, {}, {}, {}, {}, {}, {}, {}, '{body}')",
                    i % 2,
                    draw(1),
                    nullable(3),
                    draw(5),
                    nullable(11),
                    draw(17),
                    nullable(19)
                )
            })
            .collect();
        D::run(
            connection,
            format!("INSERT INTO t VALUES {}", tuples.join(", ")),
        )
        .await;
    }
}

/// Both ends, and both sides of each kind of cursor.
fn plans<D: TestDb>(order: &KeysetDef, choices: &[Choice]) -> Vec<PagePlan<D>> {
    let query = order
        .select(|q: &mut QueryBuilder<D>| {
            q.push("SELECT id, v0, v1, v2, n0, n1, n2, body FROM t")
                .push_index_hint("i")
                .push(" WHERE tenant = 1");
        })
        .unbound()
        .previous(Probe::Exact);
    let mut requests = vec![PageRequest::first(20), PageRequest::last(20)];
    let nullable = choices.iter().filter(|(_, nulls)| nulls.is_some()).count();
    for nulls in 0..1_u32 << nullable {
        let mut nulls = nulls;
        let mut keys: Vec<Key> = choices
            .iter()
            .map(|(_, nullable)| {
                let null = nullable.is_some() && nulls & 1 == 1;
                nulls >>= u32::from(nullable.is_some());
                if null { Key::Null } else { Key::I64(3) }
            })
            .collect();
        keys.push(Key::I64(1_001));
        let cursor = codec()
            .encode(&keys, Fingerprint::of(order, ()), std::time::UNIX_EPOCH)
            .unwrap();
        requests.push(PageRequest::first(20).after(cursor.clone()));
        requests.push(PageRequest::last(20).before(cursor));
    }
    requests
        .iter()
        .map(|request| query.plan(request, &codec()).unwrap())
        .collect()
}

/// Whether an index of the database can hold the order at all.
fn indexable(dialect: Dialect, order: &KeysetDef) -> bool {
    dialect.nulls_in_index() || order.columns().skip(1).all(|c| dialect.places(c))
}

async fn create_index<D: TestDb>(
    connection: &mut D::Connection,
    dialect: Dialect,
    order: &KeysetDef,
) {
    let on = D::on("t");
    D::run(connection, format!("DROP INDEX IF EXISTS i{on}")).await;
    D::run(connection, order.index_ddl(dialect, "i", "t", &["tenant"])).await;
}

async fn check<D: TestDb>(connection: &mut D::Connection, dialect: Dialect) {
    let mut statements = 0;
    for choices in choices() {
        for id_descending in [false, true] {
            let order = order(&choices, id_descending);
            create_index::<D>(connection, dialect, &order).await;
            for plan in plans::<D>(&order, &choices) {
                statements += 1;
                let what = format!("{choices:?} {plan:?}");
                match seeks(connection, plan).await {
                    Ok(()) => {}
                    Err(SeekError::Scans(scans)) if !indexable(dialect, &order) => {
                        // It seeks all the same, and sorts.
                        let only = scans
                            .faults
                            .iter()
                            .all(|fault| fault.contains("are sorted"));
                        assert!(only, "{scans}\n{what}");
                    }
                    Err(error) => panic!("{error}\n{what}"),
                }
            }
        }
    }
    assert!(statements > 3_000, "{statements}");
}

#[tokio::test]
async fn every_order_seeks_on_sqlite() {
    for id in ["INTEGER PRIMARY KEY", "INT UNIQUE"] {
        let mut connection = sqlite().await;
        fill::<Sqlite>(&mut connection, id, 2_000).await;
        check::<Sqlite>(&mut connection, Dialect::Sqlite).await;
    }
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn every_order_seeks_on_postgres_under_custom_and_generic_plans() {
    let scratch = Scratch::create().await;
    let mut connection = scratch.connect().await;
    fill::<Postgres>(&mut connection, "int8 UNIQUE", 4_000).await;
    Postgres::run(&mut connection, "VACUUM ANALYZE t".into()).await;
    check::<Postgres>(&mut connection, Dialect::Postgres).await;
    drop(connection);
    scratch.drop_database().await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn every_order_seeks_on_mariadb() {
    let maria = Maria::create().await;
    let mut connection = maria.connect().await;
    fill::<MySql>(&mut connection, "bigint PRIMARY KEY", 4_000).await;
    MySql::run(&mut connection, "ANALYZE TABLE t".into()).await;
    check::<MySql>(&mut connection, Dialect::Mysql).await;
    drop(connection);
    maria.drop_database().await;
}

/// A range may stop at the first column; then it reads all ties of it.
#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn mariadb_ranges_use_the_whole_key() {
    let maria = Maria::create().await;
    let mut connection = maria.connect().await;
    fill::<MySql>(&mut connection, "bigint PRIMARY KEY", 4_000).await;
    MySql::run(&mut connection, "ANALYZE TABLE t".into()).await;
    for choices in choices() {
        let order = order(&choices, false);
        create_index::<MySql>(&mut connection, Dialect::Mysql, &order).await;
        // A bigint has 8 bytes, an int 4, and NULL one more.
        let whole: usize = choices
            .iter()
            .map(|(_, n)| 4 + usize::from(n.is_some()))
            .sum();
        let whole = (8 + whole + 8).to_string();
        for plan in plans::<MySql>(&order, &choices) {
            if !plan.is_anchored() {
                continue;
            }
            let what = format!("{choices:?} {plan:?}");
            let lines = explain(&mut connection, plan).await;
            // One of the page and one of the probe; an equality of all columns may be left to the unique one.
            let full = lines
                .iter()
                .filter(|(access, len)| access == "range" && *len == whole);
            assert!(full.count() >= 1, "{whole} {lines:?}\n{what}");
            let short = lines.iter().any(|(access, len)| {
                access == "range" && len.parse::<usize>().unwrap() < whole.parse().unwrap()
            });
            // A block of NULLs, or all but it, is a range of the first column alone.
            let first = order.columns().next().unwrap();
            let split = !Dialect::Mysql.places(first);
            assert!(split || !short, "{whole} {lines:?}\n{what}");
        }
    }
    drop(connection);
    maria.drop_database().await;
}

/// How each table of the statement is read, and how much of the key is used.
async fn explain(connection: &mut MySqlConnection, plan: PagePlan<MySql>) -> Vec<(String, String)> {
    let mut query = plan.into_query();
    let sql = format!("EXPLAIN {}", query.sql().as_str());
    let arguments = query.build().take_arguments().unwrap().unwrap();
    let rows = sqlx::query_with(AssertSqlSafe(sql), arguments)
        .fetch_all(connection)
        .await
        .unwrap();
    let text =
        |row: &sqlx::mysql::MySqlRow, name| row.get::<Option<String>, _>(name).unwrap_or_default();
    rows.iter()
        .filter(|row| text(row, "table") == "t")
        .map(|row| (text(row, "type"), text(row, "key_len")))
        .collect()
}
