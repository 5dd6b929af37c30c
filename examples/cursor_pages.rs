//! Pages that seek: forward and back through a list in SQLite, with cursors that cannot be forged.
//!
//! Run it with `cargo run --example cursor_pages`. The database is a file in a temporary folder.
//!
//! It prints:
//!
//! ```text
//! # the first page
//! strategy: Start
//! (created_at, id): [(50, 7), (40, 6), (30, 5)]
//! previous: false, next: true
//!
//! # the next page
//! strategy: Ranges(2)
//! (created_at, id): [(30, 4), (30, 3), (20, 2)]
//! previous: true, next: true
//!
//! # back again; 9 has come since
//! strategy: Ranges(2)
//! (created_at, id): [(50, 7), (40, 6), (30, 5)]
//! previous: true, next: true
//!
//! the same rows as at first: true
//!
//! # the SQL of the next page
//! SELECT page.* FROM (SELECT r.* FROM (SELECT page.* FROM (SELECT id, created_at FROM payment WHERE tenant = ?
//! ) AS page WHERE likelihood(page."created_at" = ?, 0.0001) AND page."id" < ? ORDER BY page."created_at" DESC, page."id" DESC LIMIT ?) AS r UNION ALL SELECT r.* FROM (SELECT page.* FROM (SELECT id, created_at FROM payment WHERE tenant = ?
//! ) AS page WHERE page."created_at" < ? ORDER BY page."created_at" DESC, page."id" DESC LIMIT ?) AS r) AS page ORDER BY page."created_at" DESC, page."id" DESC LIMIT ?
//!
//! # cursors: tampered with, of another tenant, made up
//! cursor_bad_signature: the cursor's signature does not match
//! cursor_wrong_query: the cursor belongs to another list, filter or order
//! cursor_malformed: this is not a cursor
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

use mainstay::pagination::{
    Column, Cursor, CursorCodec, KeyRing, KeysetDef, Page, PageError, PageInfo, PageQuery,
    PageRequest, Probe,
};
use sqlx::{FromRow, QueryBuilder, Sqlite, SqlitePool, sqlite::SqliteConnectOptions};

/// The order of the list, declared once: newest first. Times may be equal, so a unique column breaks ties;
/// without one this does not compile, for pages would repeat rows or lose them.
const NEWEST: KeysetDef = KeysetDef::new("payments.newest")
    .desc(Column::timestamptz("created_at").not_null())
    .unique_desc(Column::i64("id").not_null());

const NO_CURSOR: &str = "a page with rows has cursors";

#[derive(FromRow, PartialEq)]
struct Payment {
    id: i64,
    created_at: i64,
}

/// The list of a tenant's payments. The base query selects what the caller may see; the page adds order,
/// place and limit.
fn payments(tenant: &str) -> PageQuery<'_, Sqlite> {
    NEWEST
        .select(move |q: &mut QueryBuilder<Sqlite>| {
            q.push("SELECT id, created_at FROM payment WHERE tenant = ")
                .push_bind(tenant);
        })
        .bind_to(("payments", tenant)) // a cursor of this list is refused by every other
}

/// Reads a page and prints it, with the form of the statement that read it.
async fn show(
    pool: &SqlitePool,
    codec: &CursorCodec,
    title: &str,
    request: PageRequest,
) -> Result<Page<Payment>, Box<dyn Error>> {
    let plan = payments("acme")
        .previous(Probe::Exact) // the way back is looked up as well: one index lookup more
        .plan(&request, codec)?; // `fetch` does both; a plan can be looked at first
    println!("# {title}\nstrategy: {:?}", plan.strategy());
    let page: Page<Payment> = plan.fetch(pool, codec).await?;
    let rows: Vec<_> = page.items.iter().map(|p| (p.created_at, p.id)).collect();
    println!("(created_at, id): {rows:?}");
    let PageInfo {
        has_previous,
        has_next,
        ..
    } = page.info;
    println!("previous: {has_previous}, next: {has_next}\n");
    Ok(page)
}

/// Tries a cursor, and prints what its sender is told.
async fn attempt(
    pool: &SqlitePool,
    codec: &CursorCodec,
    tenant: &str,
    cursor: Cursor,
) -> Result<(), PageError> {
    let request = PageRequest::first(3).after(cursor);
    let page = payments(tenant).fetch(pool, &request, codec).await;
    match page.map(|page: Page<Payment>| page.items.len()) {
        Ok(rows) => println!("{rows} rows"),
        // Over HTTP, with the feature `axum`: a 400 problem document that names the parameter `after`.
        Err(PageError::Cursor { source, .. }) => println!("{}: {source}", source.code()),
        Err(other) => return Err(other),
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("payments.db"))
        .create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await?;
    for statement in [
        "CREATE TABLE payment (id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, created_at INTEGER NOT NULL)",
        // The filter's columns first, then the order's: this is what every page seeks in.
        "CREATE INDEX payment_newest ON payment (tenant, created_at DESC, id DESC)",
        // Payments 3, 4 and 5 were made at the same moment.
        "INSERT INTO payment VALUES (1, 'acme', 10), (2, 'acme', 20), (3, 'acme', 30), (4, 'acme', 30), \
         (5, 'acme', 30), (6, 'acme', 40), (7, 'acme', 50), (8, 'other', 60)",
    ] {
        sqlx::query(statement).execute(&pool).await?;
    }
    // In a service the secret comes from its configuration, and the ring holds the previous one as well.
    let codec = CursorCodec::hmac_sha256(KeyRing::new(1, b"an example's secret of 32 bytes!")?);

    let first = show(&pool, &codec, "the first page", PageRequest::first(3)).await?;
    let end = first.info.end_cursor.clone().ok_or(NO_CURSOR)?;

    // Rows that come or go meanwhile neither repeat nor hide others: a cursor is a place, not a number.
    sqlx::query("INSERT INTO payment VALUES (9, 'acme', 70)")
        .execute(&pool)
        .await?;
    let next = PageRequest::first(3).after(end.clone());
    let second = show(&pool, &codec, "the next page", next.clone()).await?;
    let start = second.info.start_cursor.ok_or(NO_CURSOR)?;

    let back = PageRequest::last(3).before(start);
    let again = show(&pool, &codec, "back again; 9 has come since", back).await?;
    let same = again.items == first.items;
    println!("the same rows as at first: {same}\n");

    // One range of the index for the rest of those made at the same moment, and one for what follows.
    println!("# the SQL of the next page");
    println!("{}\n", payments("acme").plan(&next, &codec)?.sql());

    // A client may change a cursor, try it elsewhere or make one up. It never gets a wrong page.
    println!("# cursors: tampered with, of another tenant, made up");
    let mut text = end.to_string();
    text.truncate(text.len() - 4);
    attempt(&pool, &codec, "acme", Cursor::new(text + "AAAA")).await?;
    attempt(&pool, &codec, "other", end).await?;
    attempt(&pool, &codec, "acme", Cursor::new("page-2")).await?;
    pool.close().await;
    Ok(())
}
