//! A page at the end of a million rows costs what one at their start costs, and OFFSET beside it does not.
//!
//! Postgres counts the buffers it touches and MariaDB the rows its engine hands over; SQLite has only the clock (as
//! have the others, for what is printed): the best of many runs, so that a busy machine does not matter much.

use std::time::Duration;

use mainstay_pagination::{
    Column, Fingerprint, Key, KeysetDef, Page, PageQuery, PageRequest, Probe, PushIndexHint,
};
use sqlx::{
    AssertSqlSafe, Connection, Execute, FromRow, MySql, MySqlConnection, PgConnection, Postgres,
    QueryBuilder, Row, Sqlite,
};

use tokio::time::Instant;

use crate::support::{Maria, Scratch, TestDb, codec, sqlite};

const ROWS: i64 = 1_000_000;
const DEPTHS: [i64; 3] = [20, ROWS / 2, ROWS / 1_000 * 999];

/// An order, its index, and what it is in SQL.
struct Case {
    order: KeysetDef,
    index: &'static str,
    order_by: [&'static str; 3],
    nullable: bool,
}

fn cases() -> [Case; 3] {
    let id = Column::i64("id").not_null();
    [
        Case {
            order: KeysetDef::new("uniform")
                .asc(Column::i64("score").not_null())
                .unique_asc(id),
            index: "i_uniform",
            order_by: ["score, id"; 3],
            nullable: false,
        },
        Case {
            order: KeysetDef::new("mixed")
                .desc(Column::i64("score").not_null())
                .unique_asc(id),
            index: "i_mixed",
            order_by: ["score DESC, id"; 3],
            nullable: false,
        },
        Case {
            order: KeysetDef::new("nullable")
                .desc(Column::i64("prio").nulls_last())
                .unique_desc(id),
            index: "i_nullable",
            order_by: [
                "prio DESC NULLS LAST, id DESC",
                "prio DESC, id DESC",
                "prio DESC, id DESC",
            ],
            nullable: true,
        },
    ]
}

#[derive(FromRow)]
struct Item {
    id: i64,
}

fn query<D: TestDb>(case: &Case) -> PageQuery<'_, D> {
    case.order
        .select(|q: &mut QueryBuilder<D>| {
            q.push("SELECT id, score, prio, body FROM t")
                .push_index_hint(case.index);
        })
        .unbound()
        .previous(Probe::Exact)
}

/// The page behind the row at this depth.
async fn request<D: TestDb>(
    connection: &mut D::Connection,
    case: &Case,
    order_by: &str,
    depth: i64,
) -> PageRequest {
    let column = if case.nullable { "prio" } else { "score" };
    let at = format!("FROM t ORDER BY {order_by} LIMIT 1 OFFSET {depth}");
    let id = D::integers(connection, format!("SELECT id {at}")).await[0];
    let key = format!(
        "SELECT CAST({column} AS {}) FROM t WHERE id = {id} AND {column} IS NOT NULL",
        D::BIGINT
    );
    let key = D::integers(connection, key).await.first().copied();
    let keys = [key.map_or(Key::Null, Key::I64), Key::I64(id)];
    let cursor = codec()
        .encode(
            &keys,
            Fingerprint::of(&case.order, ()),
            std::time::UNIX_EPOCH,
        )
        .unwrap();
    PageRequest::first(20).after(cursor)
}

/// The shortest of many runs.
async fn time<D: TestDb>(
    connection: &mut D::Connection,
    case: &Case,
    request: &PageRequest,
) -> Duration
where
    Item: for<'r> FromRow<'r, D::Row>,
{
    let mut best = Duration::MAX;
    for _ in 0..60 {
        let began = Instant::now();
        let page: Page<Item> = query::<D>(case)
            .fetch(&mut *connection, request, &codec())
            .await
            .unwrap();
        best = best.min(began.elapsed());
        assert_eq!(page.items.len(), 20);
        assert!(page.info.has_previous && page.items[0].id > 0);
    }
    best
}

async fn offset<D: TestDb>(connection: &mut D::Connection, order_by: &str, depth: i64) -> Duration {
    let began = Instant::now();
    let sql = format!(
        "SELECT id FROM (SELECT id, score, prio, body FROM t ORDER BY {order_by} LIMIT 21 OFFSET {depth}) AS page"
    );
    D::integers(connection, sql).await;
    began.elapsed()
}

/// Prints the times and checks that they do not grow; returns the requests at each depth.
async fn race<D: TestDb>(
    connection: &mut D::Connection,
    name: &str,
    dialect: usize,
    case: &Case,
) -> Vec<PageRequest>
where
    Item: for<'r> FromRow<'r, D::Row>,
{
    let order_by = case.order_by[dialect];
    let mut requests = Vec::new();
    let mut times = Vec::new();
    for depth in DEPTHS {
        let request = request::<D>(connection, case, order_by, depth).await;
        let page = time::<D>(connection, case, &request).await;
        let offset = offset::<D>(connection, order_by, depth).await;
        println!(
            "{name} {} at {depth}: {page:?}, OFFSET {offset:?}",
            case.order.name()
        );
        times.push((page, offset));
        requests.push(request);
    }
    let (first, last) = (times[0], times[2]);
    // Half more is what a noisy machine is granted; what grows with the depth would be a hundred times.
    assert!(
        last.0 < first.0.mul_f64(1.5),
        "{name} {} {times:?}",
        case.order.name()
    );
    assert!(
        last.1 > last.0 * 10,
        "{name} {} {times:?}",
        case.order.name()
    );
    requests
}

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, score int NOT NULL, prio int, body varchar(100) NOT NULL)";
const INDEXES: &str =
    "CREATE INDEX i_uniform ON t (score, id); CREATE INDEX i_mixed ON t (score DESC, id);
                       CREATE INDEX i_nullable ON t (prio, id)";
/// A thousand rows share each score; a fifth of all have no priority.
const COLUMNS: &str = "i * 7919 % 1000, CASE WHEN i % 5 = 0 THEN NULL ELSE i * 31 % 1000 END, 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'";

#[tokio::test]
async fn sqlite_pages_cost_the_same_at_any_depth() {
    // A rowid alias and a unique column.
    for id in ["id INTEGER PRIMARY KEY", "id INT NOT NULL UNIQUE"] {
        let mut connection = sqlite().await;
        let table = TABLE.replace("id bigint PRIMARY KEY", id);
        Sqlite::run(
            &mut connection,
            format!(
                "{table};
                 INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
                 SELECT i, {COLUMNS} FROM n;
                 {INDEXES}; ANALYZE"
            ),
        )
        .await;
        for case in cases() {
            race::<Sqlite>(&mut connection, "SQLite", 1, &case).await;
        }
    }
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn postgres_pages_touch_as_many_buffers_at_any_depth() {
    let scratch = Scratch::create().await;
    let mut connection = scratch.connect().await;
    Postgres::run(
        &mut connection,
        format!("{TABLE}; INSERT INTO t SELECT i, {COLUMNS} FROM generate_series(1::bigint, {ROWS}) AS i; {INDEXES}"),
    )
    .await;
    Postgres::run(
        &mut connection,
        "CREATE INDEX i_last ON t (prio DESC NULLS LAST, id DESC)".into(),
    )
    .await;
    Postgres::run(&mut connection, "VACUUM ANALYZE t".into()).await;
    for case in cases() {
        let requests = race::<Postgres>(&mut connection, "Postgres", 0, &case).await;
        let mut buffers = Vec::new();
        for request in &requests {
            buffers.push(touched(&mut connection, &case, request).await);
        }
        println!("Postgres {}: {buffers:?} buffers", case.order.name());
        // Each of the page's 21 rows may lie on another block of the table than its neighbour at another depth.
        assert!(
            buffers[2] <= buffers[0] + 2,
            "{} {buffers:?}",
            case.order.name()
        );
    }
    connection.close().await.unwrap();
    scratch.drop_database().await;
}

/// The buffers that the second run of a page touches.
async fn touched(connection: &mut PgConnection, case: &Case, request: &PageRequest) -> u64 {
    let mut buffers = 0;
    for _ in 0..2 {
        let mut query = query::<Postgres>(case)
            .plan(request, &codec())
            .unwrap()
            .into_query();
        let sql = format!(
            "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) {}",
            query.sql().as_str()
        );
        let arguments = query.build().take_arguments().unwrap().unwrap();
        let rows = sqlx::query_with(AssertSqlSafe(sql), arguments)
            .fetch_all(&mut *connection)
            .await
            .unwrap();
        let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let line = lines
            .iter()
            .find(|line| line.contains("Buffers: "))
            .unwrap();
        let numbers = line
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|n| n.parse::<u64>().ok());
        buffers = numbers.sum();
    }
    buffers
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn mariadb_pages_read_as_many_rows_at_any_depth() {
    let maria = Maria::create().await;
    let mut connection = maria.connect().await;
    MySql::run(
        &mut connection,
        format!("{TABLE}; INSERT INTO t SELECT i, {COLUMNS} FROM (SELECT seq AS i FROM seq_1_to_{ROWS}) AS n; {INDEXES}; ANALYZE TABLE t"),
    )
    .await;
    for case in cases() {
        let requests = race::<MySql>(&mut connection, "MariaDB", 2, &case).await;
        let mut reads = Vec::new();
        for request in &requests {
            reads.push(handed_over(&mut connection, &case, request).await);
        }
        println!("MariaDB {}: {reads:?} rows handed over", case.order.name());
        assert!(reads[2] <= reads[0] + 2, "{} {reads:?}", case.order.name());
    }
    connection.close().await.unwrap();
    maria.drop_database().await;
}

/// How many rows the engine hands over for a page.
async fn handed_over(connection: &mut MySqlConnection, case: &Case, request: &PageRequest) -> i64 {
    MySql::run(connection, "FLUSH STATUS".into()).await;
    let _: Page<Item> = query::<MySql>(case)
        .fetch(&mut *connection, request, &codec())
        .await
        .unwrap();
    let read = "SELECT CAST(SUM(VARIABLE_VALUE) AS SIGNED) FROM information_schema.SESSION_STATUS \
                WHERE VARIABLE_NAME IN ('Handler_read_key', 'Handler_read_next', 'Handler_read_prev', 'Handler_read_first', 'Handler_read_last')";
    MySql::integers(connection, read.into()).await[0]
}
