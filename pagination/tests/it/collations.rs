//! A text key is compared as its own expression collates, in every range, whatever the table's collation is.

use mainstay_pagination::{Column, KeysetDef, Page, PageRequest, Probe};
use sqlx::{FromRow, Postgres, QueryBuilder, Sqlite};

use crate::support::{Scratch, TestDb, codec, sqlite};

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
#[ignore = "needs DATABASE_URL_POSTGRES; tests/run provides it"]
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
