//! Orders by what is no plain column of the table: expressions, generated columns, columns of a joined table, and
//! whether a column is NULL.

use futures_util::TryStreamExt;
use mainstay_pagination::{
    Column, Key, KeysetDef, PageDb, PageQuery, PageRequest, Strategy, assert_seeks, seeks,
};
use sqlx::{FromRow, MySql, Postgres, QueryBuilder, Sqlite};

use crate::support::{Maria, Scratch, TestDb, codec, sqlite};

#[derive(FromRow)]
struct Item {
    id: i64,
}

const BY_NAME: KeysetDef = KeysetDef::new("by_name")
    .asc(Column::text("name_key").not_null())
    .unique_asc(Column::i64("id").not_null());

/// The customer is another table's column, so the two are no row value.
const BY_CUSTOMER: KeysetDef = KeysetDef::new("by_customer")
    .asc(Column::text("customer").joined().not_null())
    .unique_asc(Column::i64("id").not_null());
const BY_CUSTOMER_UNAWARE: KeysetDef = KeysetDef::new("by_customer")
    .asc(Column::text("customer").not_null())
    .unique_asc(Column::i64("id").not_null());

/// NULLs last behind another column, on databases whose indexes have them first.
const FLAGGED: KeysetDef = KeysetDef::new("flagged")
    .asc(Column::i64("score").not_null())
    .asc(Column::bool("prio_is_null").not_null())
    .asc(Column::i64("prio").nulls_first())
    .unique_asc(Column::i64("id").not_null());

fn query<D: PageDb>(order: &KeysetDef, sql: &'static str) -> PageQuery<'static, D> {
    order
        .select(move |q: &mut QueryBuilder<D>| {
            q.push(sql);
        })
        .unbound()
}

/// Each statement seeks, and a walk gives what the full ORDER BY gives.
async fn check<D: TestDb>(
    connection: &mut D::Connection,
    order: &KeysetDef,
    sql: &'static str,
    row: &[Key],
    order_by: &str,
) where
    Item: for<'r> FromRow<'r, D::Row>,
{
    for plan in query::<D>(order, sql).statements(row) {
        assert_seeks(connection, plan).await;
    }
    let expected = D::integers(
        connection,
        format!("SELECT id FROM ({sql}) AS whole ORDER BY {order_by}"),
    )
    .await;
    let request = PageRequest::first(97);
    let codec = codec();
    let seen: Vec<Item> = query::<D>(order, sql)
        .rows(connection, &request, &codec)
        .try_collect()
        .await
        .unwrap();
    let seen: Vec<i64> = seen.iter().map(|item| item.id).collect();
    assert!(!seen.is_empty());
    assert_eq!(seen, expected);
}

async fn fill<D: TestDb>(connection: &mut D::Connection) {
    D::run(
        connection,
        "CREATE TABLE customer (id bigint PRIMARY KEY, name varchar(40) NOT NULL);
         CREATE TABLE t (id bigint PRIMARY KEY, customer_id bigint NOT NULL, name varchar(40) NOT NULL, score int NOT NULL, prio int)"
            .into(),
    )
    .await;
    let customers: Vec<String> = (0..300)
        .map(|i| format!("({i}, 'Customer {}')", i % 290))
        .collect();
    let rows: Vec<String> = (0..4_000)
        .map(|i| {
            let prio = match i * 13 % 7 {
                0 => "NULL".into(),
                n => n.to_string(),
            };
            format!(
                "({i}, {}, 'Na{}Me', {}, {prio})",
                i * 31 % 300,
                i * 17 % 2_000,
                i % 20
            )
        })
        .collect();
    D::run(
        connection,
        format!(
            "INSERT INTO customer VALUES {}; INSERT INTO t VALUES {};
             CREATE INDEX customer_name ON customer (name);
             CREATE INDEX t_customer ON t (customer_id, id)",
            customers.join(", "),
            rows.join(", ")
        ),
    )
    .await;
}

const JOINED: &str =
    "SELECT t.id, c.name AS customer FROM customer AS c JOIN t ON t.customer_id = c.id";

#[tokio::test]
async fn sqlite_seeks_by_an_index_on_an_expression() {
    let mut connection = sqlite().await;
    fill::<Sqlite>(&mut connection).await;
    Sqlite::run(
        &mut connection,
        "CREATE INDEX by_name ON t (lower(name), id);
         CREATE INDEX flagged ON t (score, (prio IS NULL), prio, id); ANALYZE"
            .into(),
    )
    .await;
    check::<Sqlite>(
        &mut connection,
        &BY_NAME,
        "SELECT id, lower(name) AS name_key FROM t",
        &[Key::from("na7me"), Key::I64(5)],
        "name_key, id",
    )
    .await;
    check::<Sqlite>(
        &mut connection,
        &FLAGGED,
        "SELECT id, score, prio IS NULL AS prio_is_null, prio FROM t",
        &[Key::I64(7), Key::Bool(false), Key::I64(3), Key::I64(5)],
        "score, prio NULLS LAST, id",
    )
    .await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn postgres_seeks_by_expressions_and_by_joined_columns() {
    let scratch = Scratch::create().await;
    let mut connection = scratch.connect().await;
    fill::<Postgres>(&mut connection).await;
    Postgres::run(
        &mut connection,
        "CREATE INDEX ON t (lower(name), id)".into(),
    )
    .await;
    for table in ["t", "customer"] {
        Postgres::run(&mut connection, format!("VACUUM ANALYZE {table}")).await;
    }
    check::<Postgres>(
        &mut connection,
        &BY_NAME,
        "SELECT id, lower(name) AS name_key FROM t",
        &[Key::from("na7me"), Key::I64(5)],
        "name_key, id",
    )
    .await;
    let row = [Key::from("Customer 150"), Key::I64(5)];
    check::<Postgres>(&mut connection, &BY_CUSTOMER, JOINED, &row, "customer, id").await;

    // Without `joined` it is a row value over two tables, which no index bounds.
    let plans = query::<Postgres>(&BY_CUSTOMER_UNAWARE, JOINED).statements(&row);
    let plan = plans
        .into_iter()
        .find(|plan| plan.strategy() == Strategy::RowValue)
        .unwrap();
    assert!(seeks(&mut connection, plan).await.is_err());
    drop(connection);
    scratch.drop_database().await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn mariadb_seeks_by_generated_columns() {
    let maria = Maria::create().await;
    let mut connection = maria.connect().await;
    fill::<MySql>(&mut connection).await;
    MySql::run(
        &mut connection,
        "ALTER TABLE t ADD COLUMN name_key varchar(40) AS (lower(name)) VIRTUAL,
                       ADD COLUMN prio_is_null boolean AS (prio IS NULL) VIRTUAL,
                       ADD INDEX by_name (name_key, id),
                       ADD INDEX flagged (score, prio_is_null, prio, id);
         ANALYZE TABLE t"
            .into(),
    )
    .await;
    // A generated column may be NULL as far as the database knows, so it is said which rows there are.
    check::<MySql>(
        &mut connection,
        &BY_NAME,
        "SELECT id, name_key FROM t FORCE INDEX (by_name)",
        &[Key::from("na7me"), Key::I64(5)],
        "name_key, id",
    )
    .await;
    check::<MySql>(
        &mut connection,
        &FLAGGED,
        "SELECT id, score, prio_is_null, prio FROM t FORCE INDEX (flagged)",
        &[Key::I64(7), Key::Bool(false), Key::I64(3), Key::I64(5)],
        "score, prio IS NULL, prio, id",
    )
    .await;
    drop(connection);
    maria.drop_database().await;
}

/// What is wrong is told, not only that something is.
async fn a_missing_index_is_told<D: TestDb>(connection: &mut D::Connection, says: &[&str]) {
    fill::<D>(connection).await;
    D::run(connection, "CREATE INDEX score_only ON t (score)".into()).await;
    let order = KeysetDef::new("no_index")
        .asc(Column::text("name").not_null())
        .unique_desc(Column::i64("id").not_null());
    let sql = "SELECT id, name FROM t WHERE score = 3";
    let plans = query::<D>(&order, sql).statements(&[Key::from("Na7Me"), Key::I64(5)]);
    assert!(plans.len() >= 4);
    for plan in plans {
        let told = seeks(connection, plan).await.unwrap_err().to_string();
        assert!(says.iter().any(|says| told.contains(says)), "{told}");
    }
}

#[tokio::test]
async fn sqlite_tells_what_does_not_seek() {
    a_missing_index_is_told::<Sqlite>(&mut sqlite().await, &["no key bounds", "are sorted"]).await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn postgres_tells_what_does_not_seek() {
    let scratch = Scratch::create().await;
    let mut connection = scratch.connect().await;
    a_missing_index_is_told::<Postgres>(&mut connection, &["a key is a filter", "are sorted"])
        .await;
    // The session is as it was.
    let seqscan = sqlx::query_scalar::<_, String>("SHOW enable_seqscan")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(seqscan, "on");
    drop(connection);
    scratch.drop_database().await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn mariadb_tells_what_does_not_seek() {
    let maria = Maria::create().await;
    let mut connection = maria.connect().await;
    a_missing_index_is_told::<MySql>(&mut connection, &["all rows of the filter", "are sorted"])
        .await;
    drop(connection);
    maria.drop_database().await;
}
