//! Every page seeks: EXPLAIN as the databases choose by themselves, custom and generic plans, deep in the order.

use mainstay_pagination::{
    Column, CursorCodec, Fingerprint, Key, KeysetDef, Nulls, PagePlan, PageQuery, PageRequest,
    Probe, Strategy,
};
use sqlx::{
    Arguments, AssertSqlSafe, Connection, Database, Execute, MySql, PgConnection, Postgres,
    QueryBuilder, Row, Sqlite, SqliteConnection,
};

use crate::support::{Scratch, TestDb, codec, sqlite};

/// 50 000 rows: `score` has 500 ties each, `prio` is NULL in one of five.
const ROWS: i64 = 50_000;

const UNIFORM: KeysetDef = KeysetDef::new("uniform")
    .desc(Column::i64("score").not_null())
    .unique_desc(Column::i64("id").not_null());
const MIXED: KeysetDef = KeysetDef::new("mixed")
    .desc(Column::i64("score").not_null())
    .unique_asc(Column::i64("id").not_null());
const NULLS_LAST: KeysetDef = KeysetDef::new("nulls_last")
    .asc(Column::i64("prio").nulls_last())
    .unique_asc(Column::i64("id").not_null());
const NULLS_FIRST: KeysetDef = KeysetDef::new("nulls_first")
    .asc(Column::i64("prio").nulls_first())
    .unique_asc(Column::i64("id").not_null());

fn orders() -> [(KeysetDef, Vec<Vec<Key>>); 4] {
    let scored = || vec![vec![Key::I64(50), Key::I64(25_050)]];
    let prioritised = || {
        vec![
            vec![Key::I64(50), Key::I64(25_050)],
            vec![Key::Null, Key::I64(25_000)],
        ]
    };
    [
        (UNIFORM, scored()),
        (MIXED, scored()),
        (NULLS_LAST, prioritised()),
        (NULLS_FIRST, prioritised()),
    ]
}

async fn fill<D: TestDb>(connection: &mut D::Connection, id: &str) {
    let sql = format!(
        "CREATE TABLE t (id {id} NOT NULL, tenant bigint NOT NULL, score int NOT NULL, prio int, body text NOT NULL);
         INSERT INTO t
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {ROWS})
         SELECT i, 1, i % 100, CASE WHEN i % 5 = 0 THEN NULL ELSE i % 100 END, 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' FROM n;
         CREATE INDEX t_uniform ON t (tenant, score, id);
         CREATE INDEX t_mixed ON t (tenant, score DESC, id);
         CREATE INDEX t_prio ON t (tenant, prio, id);
         ANALYZE;"
    );
    D::run(connection, sql).await;
}

fn query<D: TestDb>(order: &KeysetDef, probe: Probe) -> PageQuery<'static, D> {
    order
        .select(|q: &mut QueryBuilder<D>| {
            q.push("SELECT t.* FROM t WHERE tenant = 1");
        })
        .unbound()
        .previous(probe)
}

/// Every page of the order: from both ends and from both sides of each anchor.
fn requests(order: &KeysetDef, anchors: &[Vec<Key>], codec: &CursorCodec) -> Vec<PageRequest> {
    let fingerprint = Fingerprint::of(order, ());
    let mut requests = vec![PageRequest::first(20), PageRequest::last(20)];
    for anchor in anchors {
        let cursor = codec
            .encode(anchor, fingerprint, std::time::UNIX_EPOCH)
            .unwrap();
        requests.push(PageRequest::first(20).after(cursor.clone()));
        requests.push(PageRequest::last(20).before(cursor));
    }
    requests
}

fn plans<D: TestDb>() -> Vec<(String, PagePlan<D>)> {
    let codec = codec();
    let mut plans = Vec::new();
    for (order, anchors) in orders() {
        for request in requests(&order, &anchors, &codec) {
            for probe in [Probe::Lazy, Probe::Exact] {
                let plan = query::<D>(&order, probe).plan(&request, &codec).unwrap();
                plans.push((format!("{} {request:?} {probe:?}", order.name()), plan));
            }
        }
    }
    plans
}

#[test]
fn the_strategy_fits_the_database_and_the_order() {
    fn strategy<D: TestDb>(order: &KeysetDef, anchor: &[Key]) -> Strategy {
        let request = &requests(order, &[anchor.to_vec()], &codec())[2];
        query::<D>(order, Probe::Lazy)
            .plan(request, &codec())
            .unwrap()
            .strategy()
    }
    let anchor = [Key::I64(50), Key::I64(1)];
    assert_eq!(strategy::<Postgres>(&UNIFORM, &anchor), Strategy::RowValue);
    assert_eq!(strategy::<Sqlite>(&UNIFORM, &anchor), Strategy::Ranges(2));
    assert_eq!(strategy::<MySql>(&UNIFORM, &anchor), Strategy::OrExpanded);
    assert_eq!(strategy::<MySql>(&MIXED, &anchor), Strategy::OrExpanded);
    assert_eq!(strategy::<MySql>(&NULLS_LAST, &anchor), Strategy::Ranges(2));
    assert_eq!(strategy::<Postgres>(&MIXED, &anchor), Strategy::Ranges(2));
    assert_eq!(
        strategy::<Postgres>(&NULLS_LAST, &anchor),
        Strategy::Ranges(3)
    );
    assert_eq!(
        strategy::<Postgres>(&NULLS_LAST, &[Key::Null, Key::I64(1)]),
        Strategy::Ranges(1)
    );
    assert_eq!(
        NULLS_LAST.columns().next().unwrap().nulls(),
        Some(Nulls::Last)
    );
}

fn sql<D: TestDb>(order: &KeysetDef, request: &PageRequest) -> String {
    query::<D>(order, Probe::Lazy)
        .plan(request, &codec())
        .unwrap()
        .sql()
}

#[test]
fn the_sql_of_a_uniform_page_is_what_seeks_on_its_database() {
    let request = &requests(&UNIFORM, &[vec![Key::I64(50), Key::I64(1)]], &codec())[2];
    assert_eq!(
        sql::<Postgres>(&UNIFORM, request),
        "SELECT page.* FROM (SELECT t.* FROM t WHERE tenant = 1\n) AS page \
         WHERE (page.\"score\", page.\"id\") < ($1, $2) \
         ORDER BY page.\"score\" DESC, page.\"id\" DESC LIMIT $3"
    );
    assert_eq!(
        sql::<MySql>(&UNIFORM, request),
        "SELECT page.* FROM (SELECT t.* FROM t WHERE tenant = 1\n) AS page \
         WHERE ((page.`score` = ? AND page.`id` < ?) OR (page.`score` < ?)) \
         ORDER BY page.`score` DESC, page.`id` DESC LIMIT ?"
    );
    assert_eq!(
        sql::<Sqlite>(&UNIFORM, request),
        "SELECT page.* FROM (\
         SELECT r.* FROM (SELECT page.* FROM (SELECT t.* FROM t WHERE tenant = 1\n) AS page \
         WHERE likelihood(page.\"score\" = ?, 0.0001) AND page.\"id\" < ? \
         ORDER BY page.\"id\" DESC LIMIT ?) AS r \
         UNION ALL SELECT r.* FROM (SELECT page.* FROM (SELECT t.* FROM t WHERE tenant = 1\n) AS page \
         WHERE page.\"score\" < ? \
         ORDER BY page.\"score\" DESC, page.\"id\" DESC LIMIT ?) AS r\
         ) AS page ORDER BY page.\"score\" DESC, page.\"id\" DESC LIMIT ?"
    );
}

/// Whatever the cursors hold, there are no other texts than those that `statements` lists.
#[test]
fn every_text_is_listed() {
    fn check<D: TestDb>() {
        let order = KeysetDef::new("two_nullable")
            .desc(Column::i64("a").nulls_last())
            .asc(Column::i64("b").nulls_last())
            .asc(Column::i64("c").not_null())
            .unique_desc(Column::i64("id").not_null());
        for probe in [Probe::Lazy, Probe::Exact] {
            let query = query::<D>(&order, probe);
            let row = [Key::I64(0), Key::I64(0), Key::I64(0), Key::I64(0)];
            let listed: Vec<String> = query.statements(&row).iter().map(PagePlan::sql).collect();
            assert!(listed.len() <= 2 * (1 + 4) * (1 + 4), "{}", listed.len());
            let mut cursors = vec![None];
            for n in 0..40_i64 {
                let key = |n: i64| {
                    if n % 3 == 0 {
                        Key::Null
                    } else {
                        Key::I64(n * 7)
                    }
                };
                let keys = [key(n), key(n / 3), Key::I64(n), Key::I64(i64::MAX - n)];
                let fingerprint = Fingerprint::of(&order, ());
                let cursor = codec().encode(&keys, fingerprint, std::time::UNIX_EPOCH);
                cursors.push(Some(cursor.unwrap()));
            }
            for (after, before) in cursors
                .iter()
                .flat_map(|a| cursors.iter().map(move |b| (a, b)))
            {
                for start in [PageRequest::first(7), PageRequest::last(31)] {
                    let mut request = start;
                    if let Some(cursor) = after {
                        request = request.after(cursor.clone());
                    }
                    if let Some(cursor) = before {
                        request = request.before(cursor.clone());
                    }
                    let sql = query.plan(&request, &codec()).unwrap().sql();
                    assert!(listed.contains(&sql), "{sql}");
                }
            }
        }
    }
    check::<Postgres>();
    check::<Sqlite>();
    check::<MySql>();
}

#[test]
fn a_page_between_two_cursors_is_bounded_by_the_index_or_cut_after_it() {
    let cursor = |id| {
        codec()
            .encode(
                &[Key::I64(50), Key::I64(id)],
                Fingerprint::of(&UNIFORM, ()),
                std::time::UNIX_EPOCH,
            )
            .unwrap()
    };
    let request = PageRequest::first(20).after(cursor(9)).before(cursor(1));
    assert_eq!(
        sql::<Postgres>(&UNIFORM, &request),
        "SELECT page.* FROM (SELECT t.* FROM t WHERE tenant = 1\n) AS page \
         WHERE (page.\"score\", page.\"id\") < ($1, $2) AND (page.\"score\", page.\"id\") > ($3, $4) \
         ORDER BY page.\"score\" DESC, page.\"id\" DESC LIMIT $5"
    );
    assert_eq!(
        sql::<MySql>(&UNIFORM, &request),
        "SELECT page.* FROM (SELECT page.* FROM (SELECT t.* FROM t WHERE tenant = 1\n) AS page \
         WHERE ((page.`score` = ? AND page.`id` < ?) OR (page.`score` < ?)) \
         ORDER BY page.`score` DESC, page.`id` DESC LIMIT ?) AS page \
         WHERE ((page.`score` = ? AND page.`id` > ?) OR (page.`score` > ?)) \
         ORDER BY page.`score` DESC, page.`id` DESC"
    );
}

#[tokio::test]
async fn sqlite_searches_in_every_branch() {
    for id in ["INTEGER PRIMARY KEY", "INT UNIQUE"] {
        let mut connection = sqlite().await;
        fill::<Sqlite>(&mut connection, id).await;
        for (what, plan) in plans::<Sqlite>() {
            let detail = explain_sqlite(&mut connection, plan).await;
            let start = what.contains("after: None, before: None");
            let table: Vec<_> = detail
                .iter()
                .filter(|line| line.contains(" t ") || line.ends_with(" t"))
                .collect();
            assert!(!table.is_empty(), "{what}\n{detail:#?}");
            for line in table {
                assert!(line.starts_with("SEARCH t USING "), "{what}\n{detail:#?}");
                // Behind the tenant there is a bound on a key, except where the page begins at an end; the
                // anchor itself is found by its unique column.
                assert!(
                    start || line.contains("tenant=? AND") || line.contains("id=?)"),
                    "{what}\n{detail:#?}"
                );
            }
        }
    }
}

async fn explain_sqlite(connection: &mut SqliteConnection, plan: PagePlan<Sqlite>) -> Vec<String> {
    let mut query = plan.into_query();
    let sql = format!("EXPLAIN QUERY PLAN {}", query.sql().as_str());
    let arguments = query.build().take_arguments().unwrap().unwrap();
    let rows = sqlx::query_with(AssertSqlSafe(sql), arguments)
        .fetch_all(connection)
        .await
        .unwrap();
    rows.iter().map(|row| row.get("detail")).collect()
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn postgres_seeks_under_custom_and_generic_plans() {
    let scratch = Scratch::create().await;
    let mut connection = scratch.connect().await;
    fill::<Postgres>(&mut connection, "int8 UNIQUE").await;
    Postgres::run(&mut connection, "VACUUM ANALYZE t".into()).await;
    for mode in ["force_custom_plan", "force_generic_plan"] {
        Postgres::run(&mut connection, format!("SET plan_cache_mode = {mode}")).await;
        for (what, plan) in plans::<Postgres>() {
            let lines = explain_postgres(&mut connection, plan).await;
            let text = lines.join("\n");
            assert!(!text.contains("Seq Scan"), "{mode} {what}\n{text}");
            assert!(!text.contains("Rows Removed"), "{mode} {what}\n{text}");
            for line in &lines {
                // A sort may only put together what the ranges found.
                if let Some((_, rest)) = line.split_once("actual rows=") {
                    let rows: f64 = rest.split([' ', ')']).next().unwrap().parse().unwrap();
                    assert!(rows <= 3.0 * 21.0, "{mode} {what}\n{text}");
                }
            }
        }
    }
    connection.close().await.unwrap();
    scratch.drop_database().await;
}

/// EXPLAIN of a statement prepared on the server, which is what a generic plan needs.
async fn explain_postgres(connection: &mut PgConnection, plan: PagePlan<Postgres>) -> Vec<String> {
    let mut query = plan.into_query();
    let sql = query.sql().as_str().to_owned();
    let arguments: <Postgres as Database>::Arguments =
        query.build().take_arguments().unwrap().unwrap();
    let count = arguments.len();
    // All parameters here are integers; their values are read back through a SELECT of the same arguments.
    let list: Vec<_> = (1..=count).map(|i| format!("${i}::int8")).collect();
    let values = if count == 0 {
        Vec::new()
    } else {
        let row = sqlx::query_with(
            AssertSqlSafe(format!("SELECT {}", list.join(", "))),
            arguments,
        )
        .fetch_one(&mut *connection)
        .await
        .unwrap();
        (0..count)
            .map(|i| row.get::<i64, _>(i).to_string())
            .collect()
    };
    let types = vec!["int8"; count].join(", ");
    let explain = format!(
        "PREPARE p({types}) AS {sql}; EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE p({}); DEALLOCATE p",
        values.join(", ")
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(explain))
        .fetch_all(connection)
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}
