//! Streams of rows and pages: from a pool, within one transaction, resumed, and to the first error.

use futures_util::{StreamExt, TryStreamExt};
use mainstay_pagination::{
    Column, CursorCodec, KeysetDef, Page, PageDb, PageError, PageQuery, PageRequest, Total,
};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{FromRow, Pool, QueryBuilder, Sqlite};

use crate::support::{TestDb, codec};

const BY_ID: KeysetDef = KeysetDef::new("by_id").unique_asc(Column::i64("id").not_null());

#[derive(FromRow, Debug)]
struct Item {
    id: i64,
}

fn query<D: PageDb>() -> PageQuery<'static, D> {
    BY_ID
        .select(|q: &mut QueryBuilder<D>| {
            q.push("SELECT id FROM t");
        })
        .unbound()
}

/// A hundred rows, in a file: a pool's connections share it.
async fn pool(name: &str) -> (Pool<Sqlite>, std::path::PathBuf) {
    let file = std::env::temp_dir().join(format!("mainstay_{name}_{}.db", std::process::id()));
    let _ = std::fs::remove_file(&file);
    let options = SqliteConnectOptions::new()
        .filename(&file)
        .create_if_missing(true);
    let pool = SqlitePoolOptions::new()
        .connect_with(options)
        .await
        .unwrap();
    let tuples: Vec<String> = (0..100).map(|i| format!("({i})")).collect();
    let mut connection = pool.acquire().await.unwrap();
    Sqlite::run(
        &mut connection,
        format!(
            "CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES {}",
            tuples.join(", ")
        ),
    )
    .await;
    drop(connection);
    (pool, file)
}

#[tokio::test]
async fn pages_go_on_from_the_cursor_of_the_last_one_seen() {
    let (pool, file) = pool("resume").await;
    let codec = codec();
    let mut seen: Vec<i64> = Vec::new();
    let mut request = PageRequest::first(7);
    // Broken off after every third page, as if the process had ended.
    loop {
        let pages = query::<Sqlite>()
            .total(Total::Exact)
            .pages(&pool, &request, &codec);
        let pages: Vec<Page<Item>> = pages.take(3).try_collect().await.unwrap();
        let Some(last) = pages.last() else {
            break;
        };
        request = PageRequest::first(7).after(last.info.end_cursor.clone().unwrap());
        // Counted once per stream.
        let totals: Vec<Option<u64>> = pages.iter().map(|p| p.total.map(|t| t.count)).collect();
        assert_eq!(totals[0], Some(100));
        assert!(totals[1..].iter().all(Option::is_none));
        seen.extend(
            pages
                .iter()
                .flat_map(|page| &page.items)
                .map(|item| item.id),
        );
    }
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    pool.close().await;
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn rows_within_a_transaction_see_one_snapshot() {
    let (pool, file) = pool("snapshot").await;
    let codec = codec();
    // SQLite's snapshot begins with the first read of a transaction, in WAL mode beside writers.
    sqlx::query("PRAGMA journal_mode = WAL")
        .execute(&pool)
        .await
        .unwrap();
    let mut tx = pool.begin().await.unwrap();
    let request = PageRequest::first(10);
    let mut seen = Vec::new();
    {
        let rows = query::<Sqlite>().rows(&mut *tx, &request, &codec);
        let mut rows = std::pin::pin!(rows);
        while let Some(row) = rows.next().await {
            let row: Item = row.unwrap();
            if row.id == 5 {
                let delete = "DELETE FROM t WHERE id >= 50";
                sqlx::query(delete).execute(&pool).await.unwrap();
            }
            seen.push(row.id);
        }
    }
    tx.rollback().await.unwrap();
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    let rest: Vec<Item> = query::<Sqlite>()
        .rows(&pool, &request, &codec)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(rest.len(), 50);
    pool.close().await;
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn a_refused_request_is_the_streams_only_item() {
    let (pool, file) = pool("refused").await;
    let codec = codec();
    for request in [PageRequest::first(0), PageRequest::first(5).after("forged")] {
        let pages = query::<Sqlite>().pages(&pool, &request, &codec);
        let pages: Vec<Result<Page<Item>, PageError>> = pages.collect().await;
        assert_eq!(pages.len(), 1);
        assert!(pages[0].as_ref().unwrap_err().is_callers_mistake());
    }
    pool.close().await;
    std::fs::remove_file(file).unwrap();
}

/// A stream may be moved to another task, though the closure borrows.
#[test]
fn streams_are_send() {
    fn assert_send<T: Send>(_: T) {}
    fn check<D: PageDb>(pool: &Pool<D>, codec: &CursorCodec, tenant: &str)
    where
        Item: for<'r> FromRow<'r, D::Row>,
    {
        let query = || {
            BY_ID
                .select(|q: &mut QueryBuilder<D>| {
                    q.push("SELECT id FROM t -- ").push(tenant.len());
                })
                .unbound()
        };
        assert_send(query().rows::<Item, _>(pool, &PageRequest::first(1), codec));
        assert_send(query().pages::<Item, _>(pool, &PageRequest::first(1), codec));
    }
    let _ = check::<Sqlite>;
}
