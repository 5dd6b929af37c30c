//! The outermost and oddest values of each kind, written as SQL: none is rounded, lost or met twice.

use mainstay_pagination::{Column, KeysetDef, NotNull, Page, PageRequest};
use sqlx::{FromRow, MySql, Postgres, QueryBuilder, Sqlite};

use crate::support::{Maria, Scratch, TestDb, codec, sqlite};

#[derive(FromRow)]
struct Row {
    id: i64,
}

struct Kind {
    name: &'static str,
    column: Column<NotNull>,
    values: &'static [&'static str],
}

const fn kind(name: &'static str, column: Column, values: &'static [&'static str]) -> Kind {
    Kind {
        name,
        column: column.not_null(),
        values,
    }
}

/// Each value twice, so that the id decides, too; forward and backward in pages of every small size.
async fn check<D: TestDb>(connection: &mut D::Connection, kinds: &[Kind])
where
    Row: for<'r> FromRow<'r, D::Row>,
{
    for kind in kinds {
        let column = D::column_type(kind.name);
        D::run(
            connection,
            format!(
                "CREATE TABLE kind_{} (id {} NOT NULL, k {column} NOT NULL)",
                kind.name,
                D::column_type("i64")
            ),
        )
        .await;
        let values = kind.values.iter().chain(kind.values).enumerate();
        let rows: Vec<_> = values
            .map(|(id, value)| format!("({id}, {value})"))
            .collect();
        D::run(
            connection,
            format!("INSERT INTO kind_{} VALUES {}", kind.name, rows.join(", ")),
        )
        .await;
        let base = format!("SELECT id, k FROM kind_{}", kind.name);
        let id = Column::i64("id").not_null();
        let ascending = D::integers(
            connection,
            format!("SELECT id FROM kind_{} ORDER BY k, id", kind.name),
        )
        .await;
        for (order, backward) in [
            (KeysetDef::new("up").asc(kind.column).unique_asc(id), false),
            (KeysetDef::new("up").asc(kind.column).unique_asc(id), true),
            (
                KeysetDef::new("down").desc(kind.column).unique_desc(id),
                false,
            ),
        ] {
            for limit in 1..=3 {
                let start = if backward {
                    PageRequest::last(limit)
                } else {
                    PageRequest::first(limit)
                };
                let mut request = start.clone();
                let mut seen = Vec::new();
                loop {
                    let page: Page<Row> = order
                        .select(|q: &mut QueryBuilder<D>| {
                            q.push(base.as_str());
                        })
                        .unbound()
                        .fetch(&mut *connection, &request, &codec())
                        .await
                        .unwrap_or_else(|error| panic!("{}: {error:?}", kind.name));
                    let ids = page.items.iter().map(|row| row.id);
                    if backward {
                        seen.extend(ids.rev());
                    } else {
                        seen.extend(ids);
                    }
                    let (more, cursor) = if backward {
                        (page.info.has_previous, page.info.start_cursor)
                    } else {
                        (page.info.has_next, page.info.end_cursor)
                    };
                    match cursor {
                        Some(cursor) if more && backward => request = start.clone().before(cursor),
                        Some(cursor) if more => request = start.clone().after(cursor),
                        _ => break,
                    }
                    assert!(seen.len() <= ascending.len(), "{} goes round", kind.name);
                }
                let expected: Vec<_> = if backward || order.name() == "down" {
                    ascending.iter().rev().copied().collect()
                } else {
                    ascending.clone()
                };
                assert_eq!(seen, expected, "{} {} by {limit}", kind.name, order.name());
            }
        }
    }
}

#[tokio::test]
async fn the_outermost_values_of_sqlite_are_kept() {
    let kinds = [
        kind(
            "i64",
            Column::i64("k"),
            &["-9223372036854775808", "9223372036854775807", "0"],
        ),
        kind("u64", Column::u64("k"), &["9223372036854775807", "0"]),
        kind(
            "f64",
            Column::f64("k"),
            &[
                "-9e999",
                "9e999",
                "0.1",
                "5e-324",
                "-0.0",
                "1.7976931348623157e308",
            ],
        ),
        kind(
            "decimal",
            Column::decimal("k"),
            &[
                "9007199254740993",
                "9007199254740992",
                "0.1",
                "0.30000000000000004",
                "0.3",
                "-1e300",
                "9e999",
                "'12.50'",
            ],
        ),
        kind(
            "text",
            Column::text("k"),
            &["''", "'a' || char(0)", "'a'", "'é'"],
        ),
        kind(
            "bytes",
            Column::bytes("k"),
            &["x''", "x'00'", "x'ff'", "x'0000'"],
        ),
        kind(
            "timestamptz",
            Column::timestamptz("k"),
            &["-9223372036854775808", "9223372036854775807", "-1"],
        ),
        kind(
            "date",
            Column::date("k"),
            &["-2147483648", "2147483647", "-1"],
        ),
        kind("time", Column::time("k"), &["0", "86399999999"]),
    ];
    check::<Sqlite>(&mut sqlite().await, &kinds).await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn the_outermost_values_of_postgres_are_kept() {
    let kinds = [
        kind(
            "i64",
            Column::i64("k"),
            &["-9223372036854775808", "9223372036854775807", "0"],
        ),
        kind(
            "f64",
            Column::f64("k"),
            &[
                "'NaN'",
                "'Infinity'",
                "'-Infinity'",
                "'-0'",
                "0",
                "5e-324",
                "0.1",
            ],
        ),
        kind(
            "f32",
            Column::f64("k"),
            &["'NaN'", "'-Infinity'", "0.1", "16777217", "1e-45"],
        ),
        kind(
            "decimal",
            Column::decimal("k"),
            &[
                "'NaN'",
                "'Infinity'",
                "'-Infinity'",
                "1.10",
                "1.1",
                "0.000000000000000000000000000001",
                "-99999999999999999999999999999999999999.99",
                "9007199254740993",
                "9007199254740992",
                "10000",
                "0",
            ],
        ),
        kind(
            "timestamptz",
            Column::timestamptz("k"),
            &[
                "'infinity'",
                "'-infinity'",
                "'4714-11-24 00:00:00+00 BC'",
                "'2000-01-01 00:00:00.000001+00'",
                "'2000-01-01 00:00:00.000002+00'",
            ],
        ),
        kind(
            "timestamp",
            Column::timestamp("k"),
            &["'infinity'", "'-infinity'", "'1969-12-31 23:59:59.999999'"],
        ),
        kind(
            "date",
            Column::date("k"),
            &[
                "'infinity'",
                "'-infinity'",
                "'4714-11-24 BC'",
                "'5874897-12-31'",
                "'1970-01-01'",
            ],
        ),
        kind(
            "time",
            Column::time("k"),
            &["'00:00'", "'24:00'", "'23:59:59.999999'"],
        ),
        kind(
            "uuid",
            Column::uuid("k"),
            &[
                "'00000000-0000-0000-0000-000000000000'",
                "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
            ],
        ),
    ];
    let scratch = Scratch::create().await;
    let mut connection = scratch.connect().await;
    check::<Postgres>(&mut connection, &kinds).await;
    drop(connection);
    scratch.drop_database().await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn the_outermost_values_of_mariadb_are_kept() {
    let kinds = [
        kind(
            "i64",
            Column::i64("k"),
            &["-9223372036854775808", "9223372036854775807", "0"],
        ),
        kind(
            "u64",
            Column::u64("k"),
            &["18446744073709551615", "9223372036854775808", "0"],
        ),
        kind(
            "f64",
            Column::f64("k"),
            &["0.1", "5e-324", "-0.0", "1.7976931348623157e308"],
        ),
        kind(
            "decimal",
            Column::decimal("k"),
            &[
                "9007199254740993.000000000001",
                "9007199254740993.000000000002",
                "-9999999999999999999999999999.999999999999",
                "0.000000000001",
            ],
        ),
        kind(
            "timestamp",
            Column::timestamp("k"),
            &["'1000-01-01'", "'9999-12-31 23:59:59.999999'"],
        ),
        kind(
            "date",
            Column::date("k"),
            &["'1000-01-01'", "'9999-12-31'", "'1970-01-01'"],
        ),
        kind(
            "time",
            Column::time("k"),
            &[
                "'-838:59:59'",
                "'838:59:59'",
                "'-00:00:00.000001'",
                "'23:59:59.999999'",
            ],
        ),
    ];
    let maria = Maria::create().await;
    let mut connection = maria.connect().await;
    check::<MySql>(&mut connection, &kinds).await;
    drop(connection);
    maria.drop_database().await;
}

/// A key that no anchor can name would end the walk before its time.
#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn a_value_that_cannot_be_asked_for_is_an_error_and_not_the_end_on_mariadb() {
    use futures_util::TryStreamExt;
    use mainstay_pagination::{PageError, PageRequest};

    #[derive(sqlx::FromRow)]
    struct Row {
        #[expect(dead_code, reason = "it is the walk that counts")]
        id: i64,
    }
    let maria = Maria::create().await;
    let mut connection = maria.connect().await;
    for (column, value, order) in [
        (
            "date",
            "'0000-05-05'",
            KeysetDef::new("x").asc(Column::date("k").not_null()),
        ),
        (
            "time(6)",
            "'-838:59:59.999999'",
            KeysetDef::new("x").asc(Column::time("k").not_null()),
        ),
    ] {
        MySql::run(
            &mut connection,
            format!(
                "CREATE TABLE t (id bigint PRIMARY KEY, k {column} NOT NULL);
                 INSERT INTO t VALUES (1, {value}), (2, {value}), (3, {value})"
            ),
        )
        .await;
        let list = order
            .unique_asc(Column::i64("id").not_null())
            .select(|q: &mut QueryBuilder<MySql>| {
                q.push("SELECT id, k FROM t");
            })
            .unbound();
        let (request, codec) = (PageRequest::first(1), codec());
        let rows: Result<Vec<Row>, PageError> = list
            .rows(&mut connection, &request, &codec)
            .try_collect()
            .await;
        match rows {
            Ok(rows) => assert_eq!(rows.len(), 3, "{value}"),
            Err(error) => assert!(!error.is_callers_mistake(), "{value}: {error}"),
        }
        MySql::run(&mut connection, "DROP TABLE t".into()).await;
    }
    drop(connection);
    maria.drop_database().await;
}
