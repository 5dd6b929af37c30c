//! One keyset for both databases, in generic code: what a service that supports either writes.

use mainstay_pagination::{
    Column, CursorCodec, KeysetDef, Page, PageDb, PageError, PageRequest, PageSource, Probe,
    PushKey, UnixMicros,
};
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{FromRow, Pool, Postgres, QueryBuilder, Sqlite};
use uuid::Uuid;

use crate::support::{Scratch, TestDb, codec};

const NEWEST: KeysetDef = KeysetDef::new("payments.newest")
    .desc(Column::timestamptz("created_at").not_null())
    .unique_desc(Column::uuid("id").not_null());

#[derive(FromRow, Debug, PartialEq)]
struct Payment {
    id: Uuid,
    created_at: UnixMicros,
    currency: String,
}

async fn list<D: PageDb>(
    source: impl PageSource<D>,
    codec: &CursorCodec,
    tenant: &str,
    currency: Option<&str>,
    request: &PageRequest,
) -> Result<Page<Payment>, PageError>
where
    Payment: for<'r> FromRow<'r, D::Row>,
{
    NEWEST
        .select(|q: &mut QueryBuilder<D>| {
            q.push("SELECT id, created_at, currency FROM payment WHERE tenant = ")
                .push_key(tenant);
            if let Some(currency) = currency {
                q.push(" AND currency = ").push_key(currency);
            }
        })
        .bind_to(("payments", tenant, currency))
        .previous(Probe::Exact)
        .fetch(source, request, codec)
        .await
}

/// Whole lists, page by page, from neighbouring microseconds and equal ones.
async fn pages_are_lossless<D: TestDb>(pool: &Pool<D>)
where
    Payment: for<'r> FromRow<'r, D::Row>,
{
    let mut connection = pool.acquire().await.unwrap();
    let columns = [D::column_type("uuid"), D::column_type("timestamptz")];
    D::run(
        &mut connection,
        format!(
            "CREATE TABLE payment (id {} PRIMARY KEY, tenant text NOT NULL, currency text NOT NULL, created_at {} NOT NULL)",
            columns[0], columns[1]
        ),
    )
    .await;
    let start = 1_763_700_000_999_990;
    for n in 0..40_u32 {
        let mut insert = QueryBuilder::<D>::new(
            "INSERT INTO payment (id, tenant, currency, created_at) VALUES (",
        );
        insert
            .push_key(Uuid::from_u128(u128::from(n * 7919 % 40) << 100))
            .push(", ");
        insert
            .push_key(if n % 4 == 0 { "globex" } else { "acme" })
            .push(", ");
        insert
            .push_key(if n % 3 == 0 { "EUR" } else { "USD" })
            .push(", ");
        insert
            .push_key(UnixMicros(start + i64::from(n / 3)))
            .push(")");
        D::execute(&mut connection, insert).await;
    }
    drop(connection);

    let codec = codec();
    let whole = list(pool, &codec, "acme", None, &PageRequest::first(1_000))
        .await
        .unwrap();
    assert_eq!(whole.items.len(), 30);
    assert!(
        whole
            .items
            .is_sorted_by(|a, b| (a.created_at, a.id) > (b.created_at, b.id))
    );
    assert!(!whole.info.has_next && !whole.info.has_previous);

    let mut walked = Vec::new();
    let mut request = PageRequest::first(7);
    loop {
        let page = list(pool, &codec, "acme", None, &request).await.unwrap();
        assert_eq!(page.info.has_previous, !walked.is_empty());
        walked.extend(page.items);
        match page.info.end_cursor.filter(|_| page.info.has_next) {
            Some(cursor) => request = PageRequest::first(7).after(cursor),
            None => break,
        }
    }
    assert_eq!(walked, whole.items);

    let euros = list(pool, &codec, "acme", Some("EUR"), &PageRequest::last(5))
        .await
        .unwrap();
    assert_eq!(euros.items.len(), 5);
    assert!(euros.info.has_previous && !euros.info.has_next);

    // A cursor of another filter or tenant is not taken.
    for (tenant, currency) in [
        ("acme", None),
        ("acme", Some("USD")),
        ("globex", Some("EUR")),
    ] {
        let request = PageRequest::first(5).after(euros.info.end_cursor.clone().unwrap());
        let error = list(pool, &codec, tenant, currency, &request)
            .await
            .unwrap_err();
        assert!(error.is_callers_mistake(), "{error}");
    }

    // Within a transaction.
    let mut tx = pool.begin().await.unwrap();
    let page = list::<D>(&mut *tx, &codec, "acme", None, &PageRequest::first(7))
        .await
        .unwrap();
    assert_eq!(page.items, whole.items[..7]);
    tx.rollback().await.unwrap();
}

#[tokio::test]
async fn one_keyset_pages_through_sqlite() {
    let folder = std::env::temp_dir().join(format!("mainstay-pagination-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let options = SqliteConnectOptions::new()
        .filename(folder.join("payments.db"))
        .create_if_missing(true);
    let pool = SqlitePoolOptions::new()
        .connect_with(options)
        .await
        .unwrap();
    pages_are_lossless::<Sqlite>(&pool).await;
    pool.close().await;
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn one_keyset_pages_through_postgres() {
    let scratch = Scratch::create().await;
    let pool = PgPoolOptions::new()
        .max_connections(2)
        .connect(&scratch.url)
        .await
        .unwrap();
    pages_are_lossless::<Postgres>(&pool).await;
    pool.close().await;
    scratch.drop_database().await;
}

/// A handler's future must be `Send` even where the closure borrows.
#[test]
fn fetching_is_send() {
    fn assert_send<T: Send>(_: T) {}
    fn check<D: PageDb>(pool: &Pool<D>, codec: &CursorCodec)
    where
        Payment: for<'r> FromRow<'r, D::Row>,
    {
        assert_send(list(pool, codec, "acme", None, &PageRequest::first(1)));
    }
    let _ = (check::<Sqlite>, check::<Postgres>);
}
