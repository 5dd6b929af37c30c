//! How many rows a list has: exactly, up to a cap, and about.

use mainstay_pagination::{
    Column, ESTIMATE_ROWS_MAX, KeysetDef, Page, PageRequest, PushKey, Total, TotalIs, TotalRows,
};
use sqlx::{Connection, FromRow, MySql, Postgres, QueryBuilder, Sqlite};

use crate::support::{Maria, Scratch, TestDb, codec, sqlite};

const BY_ID: KeysetDef = KeysetDef::new("by_id").unique_asc(Column::i64("id").not_null());
/// Half of them belong to the tenant.
const ROWS: i64 = 30_000;

#[derive(FromRow)]
struct Item {
    #[expect(dead_code, reason = "only counted")]
    id: i64,
}

async fn total<D: TestDb>(
    connection: &mut D::Connection,
    total: Total,
    below: i64,
    request: &PageRequest,
) -> Option<TotalRows>
where
    Item: for<'r> FromRow<'r, D::Row>,
{
    let page: Page<Item> = BY_ID
        .select(|q: &mut QueryBuilder<D>| {
            q.push("SELECT id FROM t WHERE tenant = ")
                .push_key(1_i64)
                .push(" AND id < ")
                .push_key(below)
                .push(" -- the tenant's");
        })
        .unbound()
        .total(total)
        .fetch(connection, request, &codec())
        .await
        .unwrap();
    page.total
}

async fn check<D: TestDb>(connection: &mut D::Connection) -> TotalRows
where
    Item: for<'r> FromRow<'r, D::Row>,
{
    D::run(
        connection,
        "CREATE TABLE t (id bigint PRIMARY KEY, tenant bigint NOT NULL); CREATE INDEX i ON t (tenant, id)".into(),
    )
    .await;
    let tuples: Vec<String> = (0..ROWS).map(|i| format!("({i}, {})", i % 2)).collect();
    D::run(
        connection,
        format!("INSERT INTO t VALUES {}", tuples.join(", ")),
    )
    .await;

    let first = PageRequest::first(20);
    let is = |count, is| Some(TotalRows { count, is });
    let half = u64::try_from(ROWS / 2).unwrap();
    for (asked, answer) in [
        (Total::None, None),
        (Total::Exact, is(half, TotalIs::Exact)),
        (Total::Capped(1_000), is(1_000, TotalIs::MoreThan)),
        (Total::Capped(15_000), is(half, TotalIs::Exact)),
    ] {
        assert_eq!(total::<D>(connection, asked, ROWS, &first).await, answer);
    }
    // The list's only page needs no count, and no estimate.
    for asked in [Total::Exact, Total::Capped(1_000), Total::Estimated] {
        let few = total::<D>(connection, asked, 10, &first).await;
        assert_eq!(few, is(5, TotalIs::Exact), "{asked:?}");
    }
    let cap = total::<D>(connection, Total::Capped(3), 10, &first).await;
    assert_eq!(cap, is(3, TotalIs::MoreThan));
    let none = total::<D>(connection, Total::Exact, 0, &PageRequest::last(20)).await;
    assert_eq!(none, is(0, TotalIs::Exact));
    D::run(connection, D::ANALYZE.into()).await;
    total::<D>(connection, Total::Estimated, ROWS, &first)
        .await
        .unwrap()
}

#[tokio::test]
async fn sqlite_has_no_estimates_and_counts_up_to_a_bound() {
    let estimate = check::<Sqlite>(&mut sqlite().await).await;
    assert_eq!(estimate.count, u64::from(ESTIMATE_ROWS_MAX));
    assert_eq!(estimate.is, TotalIs::MoreThan);
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn postgres_counts_and_estimates() {
    let scratch = Scratch::create().await;
    let mut connection = scratch.connect().await;
    let estimate = check::<Postgres>(&mut connection).await;
    println!("Postgres estimates {} of {}", estimate.count, ROWS / 2);
    assert_eq!(estimate.is, TotalIs::Estimated);
    assert!((14_000..16_000).contains(&estimate.count), "{estimate:?}");
    connection.close().await.unwrap();
    scratch.drop_database().await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn mariadb_counts_and_estimates() {
    let maria = Maria::create().await;
    let mut connection = maria.connect().await;
    let estimate = check::<MySql>(&mut connection).await;
    println!("MariaDB estimates {} of {}", estimate.count, ROWS / 2);
    assert_eq!(estimate.is, TotalIs::Estimated);
    assert!((3_000..30_000).contains(&estimate.count), "{estimate:?}");
    connection.close().await.unwrap();
    maria.drop_database().await;
}
