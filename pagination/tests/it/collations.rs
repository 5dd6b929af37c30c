//! A text key is compared as its own expression collates, in every range, whatever the table's collation is.

use mainstay_pagination::{Column, KeysetDef, Page, PageRequest, Probe};
use mainstay_pagination::{PageError, PageQuery};
use sqlx::{Connection, FromRow, MySql, Postgres, QueryBuilder, Sqlite};

use crate::support::{Maria, Scratch, TestDb, codec, sqlite};

#[derive(FromRow)]
struct Item {
    id: i64,
}

fn orders() -> [KeysetDef; 4] {
    let id = Column::i64("id").not_null();
    let n = Column::text("n");
    [
        KeysetDef::new("a").asc(n.not_null()).unique_asc(id),
        KeysetDef::new("d").desc(n.not_null()).unique_asc(id),
        KeysetDef::new("f").asc(n.nulls_first()).unique_desc(id),
        KeysetDef::new("l").desc(n.nulls_last()).unique_desc(id),
    ]
}

async fn check<D: TestDb>(connection: &mut D::Connection, expressions: &[&str])
where
    Item: for<'r> FromRow<'r, D::Row>,
{
    D::run(
        connection,
        "INSERT INTO t VALUES (1, 'b'), (2, 'B'), (3, 'a'), (4, 'A'), (5, 'a '), (6, 'c'), (7, 'B '), (8, 'C'), (9, 'á')".into(),
    )
    .await;
    for expression in expressions {
        let base = format!("SELECT id, {expression} AS n FROM t");
        for order in orders() {
            let (direction, id) = match order.name() {
                "a" => ("ASC", "ASC"),
                "d" => ("DESC", "ASC"),
                "f" => ("ASC", "DESC"),
                _ => ("DESC", "DESC"),
            };
            let expected = D::integers(
                connection,
                format!("SELECT id FROM ({base}) AS x ORDER BY n {direction}, id {id}"),
            )
            .await;
            for limit in 1..5 {
                let mut seen = Vec::new();
                let mut request = PageRequest::first(limit);
                loop {
                    let select = order.select(|q: &mut QueryBuilder<D>| {
                        q.push(base.as_str());
                    });
                    let page: Page<Item> = select
                        .unbound()
                        .previous(Probe::Exact)
                        .fetch(&mut *connection, &request, &codec())
                        .await
                        .unwrap();
                    assert_eq!(page.info.has_previous, !seen.is_empty());
                    seen.extend(page.items.iter().map(|item| item.id));
                    match page.info.end_cursor {
                        Some(cursor) if page.info.has_next => {
                            request = PageRequest::first(limit).after(cursor);
                        }
                        _ => break,
                    }
                }
                assert_eq!(
                    seen,
                    expected,
                    "{expression} in {} by {limit}",
                    order.name()
                );
            }
        }
    }
}

#[tokio::test]
async fn sqlite_compares_text_by_the_expressions_collation() {
    let mut connection = sqlite().await;
    Sqlite::run(
        &mut connection,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE); CREATE INDEX i ON t (name, id)".into(),
    )
    .await;
    check::<Sqlite>(
        &mut connection,
        &[
            "name",
            "name COLLATE BINARY",
            "name COLLATE RTRIM",
            "lower(name)",
            "COALESCE(name, '')",
            "+name",
        ],
    )
    .await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn postgres_compares_text_by_the_expressions_collation() {
    let scratch = Scratch::create().await;
    let mut connection = scratch.connect().await;
    Postgres::run(
        &mut connection,
        "CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE t (id int8 PRIMARY KEY, name text COLLATE folded); CREATE INDEX ON t (name, id)"
            .into(),
    )
    .await;
    check::<Postgres>(
        &mut connection,
        &[
            "name",
            "name COLLATE \"C\"",
            "lower(name COLLATE \"C\")",
            "name::varchar(9)",
        ],
    )
    .await;
    drop(connection);
    scratch.drop_database().await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn mariadb_compares_text_by_the_expressions_collation() {
    let maria = Maria::create().await;
    let mut connection = maria.connect().await;
    // (Not among the expressions: `name COLLATE latin1_bin`, for which MariaDB 10.11 itself sorts 'a ' behind 'a' and
    // calls them equal.) Another character set than the connection's, and a collation in which 'a' = 'A' = 'á' = 'a '.
    MySql::run(
        &mut connection,
        "CREATE TABLE t (id bigint PRIMARY KEY, name varchar(9) CHARACTER SET latin1 COLLATE latin1_swedish_ci);
         CREATE INDEX i ON t (name, id)"
            .into(),
    )
    .await;
    check::<MySql>(
        &mut connection,
        &[
            "name",
            "lower(name)",
            "CONVERT(name USING utf8mb4) COLLATE utf8mb4_nopad_bin",
            "COALESCE(name, '')",
        ],
    )
    .await;
    connection.close().await.unwrap();
    maria.drop_database().await;
}

/// ENUM and SET are ordered by their numbers, and a parameter is compared with their text.
#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn mariadb_takes_no_key_that_is_ordered_by_one_thing_and_compared_by_another() {
    let maria = Maria::create().await;
    let mut connection = maria.connect().await;
    MySql::run(
        &mut connection,
        "SET sql_mode = '';
         CREATE TABLE t (id bigint PRIMARY KEY, kind ENUM('z', 'a'), kinds SET('z', 'a'),
                         bin ENUM('z', 'a') COLLATE utf8mb4_bin, day date);
         INSERT INTO t VALUES (1, 'z', 'z', 'z', '0000-00-00')"
            .into(),
    )
    .await;
    for (column, key) in [
        ("kind", Column::text("n").nulls_first()),
        ("kinds", Column::text("n").nulls_first()),
        ("bin", Column::text("n").nulls_first()),
        ("day", Column::date("n").nulls_first()),
    ] {
        let order = KeysetDef::new("o")
            .asc(key)
            .unique_asc(Column::i64("id").not_null());
        let query: PageQuery<'_, MySql> = order
            .select(|q: &mut QueryBuilder<MySql>| {
                q.push("SELECT id, ").push(column).push(" AS n FROM t");
            })
            .unbound();
        let page: Result<Page<Item>, _> = query
            .fetch(&mut connection, &PageRequest::first(5), &codec())
            .await;
        assert!(
            matches!(page, Err(PageError::KeyType { .. })),
            "{column} {:?}",
            page.map(|p| p.info)
        );
    }
    // Its number is a key like any other.
    let order = KeysetDef::new("o")
        .asc(Column::i64("n").nulls_first())
        .unique_asc(Column::i64("id").not_null());
    let page: Page<Item> = order
        .select(|q: &mut QueryBuilder<MySql>| {
            q.push("SELECT id, CAST(kind AS SIGNED) AS n FROM t");
        })
        .unbound()
        .fetch(&mut connection, &PageRequest::first(5), &codec())
        .await
        .unwrap();
    assert_eq!(page.items.len(), 1);
    connection.close().await.unwrap();
    maria.drop_database().await;
}
