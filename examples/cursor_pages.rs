//! Pages that seek: through a million rows in SQLite to the end and back, with cursors that cannot be forged.
//!
//! Run it with `cargo run --example cursor_pages`. The database is a file in a temporary folder; to make a million rows
//! and to read them twice takes about ten seconds in a debug build. `cargo run --example cursor_pages 20000` does the
//! same with fewer.
//!
//! It prints (each time is the median of nine; this run was a debug build):
//!
//! ```text
//! # a list of 1000000 payments, three of each moment
//! there: 200 pages, 1000000 rows; and back: 200 pages, 1000000 rows
//! each row once, in order: true
//!
//! # a page of 20 rows    seek       OFFSET
//! at the start           0.25 ms    0.15 ms
//! in the middle          0.40 ms    32.50 ms
//! at the end             0.38 ms    65.31 ms
//!
//! # the SQL of a page in the middle: Ranges(2)
//! SELECT page.* FROM (SELECT r.* FROM (SELECT page.* FROM (SELECT id, created_at FROM payment WHERE tenant = ?
//! ) AS page WHERE likelihood(page."created_at" = ?, 0.0001) AND page."id" < ? ORDER BY page."id" DESC LIMIT ?) AS r UNION ALL SELECT r.* FROM (SELECT page.* FROM (SELECT id, created_at FROM payment WHERE tenant = ?
//! ) AS page WHERE page."created_at" < ? ORDER BY page."created_at" DESC, page."id" DESC LIMIT ?) AS r) AS page ORDER BY page."created_at" DESC, page."id" DESC LIMIT ?
//!
//! # a payment comes, another goes
//! the page before the middle is the same: true
//!
//! # cursors: tampered with, of another tenant, made up
//! cursor_bad_signature: the cursor's signature does not match
//! cursor_wrong_query: the cursor belongs to another list, filter or order
//! cursor_malformed: this is not a cursor
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{error::Error, time::Duration};

use mainstay::pagination::{
    Cursor, CursorCodec, KeyRing, Keyset, Page, PageError, PageQuery, PageRequest, UnixMicros,
};
use sqlx::{
    FromRow, QueryBuilder, Sqlite, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::time::Instant;

/// The order of the list, declared once beside the row: newest first. Times may be equal, so a unique column breaks
/// ties; without one this does not compile, for pages would repeat rows or lose them.
#[derive(FromRow, Keyset, PartialEq)]
#[keyset(
    name = "payments.newest",
    order = "created_at desc, id desc",
    unique = "id"
)]
struct Payment {
    id: i64,
    created_at: UnixMicros,
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How many rows the list has if nothing is said.
const ROWS: i64 = 1_000_000;
/// A page for people.
const SMALL: u32 = 20;
/// A page for a program that reads everything.
const LARGE: u32 = 5_000;
/// How often a page is timed.
const TIMES: usize = 9;

/// The list of a tenant's payments. The base query selects what the caller may see; the page adds order,
/// place and limit.
fn payments(tenant: &str) -> PageQuery<'_, Sqlite> {
    Payment::NEWEST
        .select(move |q: &mut QueryBuilder<Sqlite>| {
            q.push("SELECT id, created_at FROM payment WHERE tenant = ")
                .push_bind(tenant);
        })
        .bind_to(("payments", tenant)) // a cursor of this list is refused by every other
}

struct List {
    pool: SqlitePool,
    codec: CursorCodec,
    rows: i64,
}

impl List {
    async fn page(&self, request: &PageRequest) -> std::result::Result<Page<Payment>, PageError> {
        payments("acme")
            .fetch(&self.pool, request, &self.codec)
            .await
    }

    /// Goes through all pages from `request` on, by the cursors alone, and shows each to `seen`.
    async fn walk(
        &self,
        request: PageRequest,
        mut seen: impl FnMut(&Page<Payment>),
    ) -> Result<usize> {
        let forward = request == PageRequest::first(LARGE);
        let (mut next, mut pages) = (Some(request), 0);
        while let Some(request) = next {
            let page = self.page(&request).await?;
            seen(&page);
            pages += 1;
            let (more, cursor) = if forward {
                (page.info.has_next, page.info.end_cursor)
            } else {
                (page.info.has_previous, page.info.start_cursor)
            };
            next = cursor.filter(|_| more).map(|cursor| match forward {
                true => PageRequest::first(LARGE).after(cursor),
                false => PageRequest::last(LARGE).before(cursor),
            });
        }
        Ok(pages)
    }

    /// The median time of this page.
    async fn time(&self, request: &PageRequest) -> Result<Duration> {
        let mut times = Vec::with_capacity(TIMES);
        for _ in 0..TIMES {
            let start = Instant::now();
            let _ = self.page(request).await?;
            times.push(start.elapsed());
        }
        Ok(median(times))
    }

    /// The median time of the same page by OFFSET.
    async fn time_offset(&self, offset: i64) -> Result<Duration> {
        let mut times = Vec::with_capacity(TIMES);
        for _ in 0..TIMES {
            let start = Instant::now();
            let page: Vec<Payment> = sqlx::query_as(
                "SELECT id, created_at FROM payment WHERE tenant = 'acme' \
                 ORDER BY created_at DESC, id DESC LIMIT ? OFFSET ?",
            )
            .bind(SMALL)
            .bind(offset)
            .fetch_all(&self.pool)
            .await?;
            times.push(start.elapsed());
            assert!(!page.is_empty());
        }
        Ok(median(times))
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Makes the table: so many payments of one tenant, three of each moment, and one of another.
async fn make(pool: SqlitePool, rows: i64) -> Result<List> {
    sqlx::query(
        "CREATE TABLE payment (id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, created_at INTEGER NOT NULL)",
    )
    .execute(&pool)
    .await?;
    sqlx::query(
        "INSERT INTO payment WITH RECURSIVE n (id) AS (VALUES (1) UNION ALL SELECT id + 1 FROM n WHERE id < ?) \
         SELECT id, 'acme', 1700000000000000 + id / 3 * 1000 FROM n",
    )
    .bind(rows)
    .execute(&pool)
    .await?;
    // The filter's columns first, then the order's: this is what every page seeks in.
    sqlx::query("CREATE INDEX payment_newest ON payment (tenant, created_at DESC, id DESC)")
        .execute(&pool)
        .await?;
    // In a service the secret comes from its configuration, and the ring holds the previous one as well.
    let codec = CursorCodec::hmac_sha256(KeyRing::new(1, b"an example's secret of 32 bytes!")?);
    Ok(List { pool, codec, rows })
}

/// To the end and back. Returns a cursor from the middle.
async fn there_and_back(list: &List) -> Result<Cursor> {
    let (mut last, mut in_order, mut rows, mut middle) = (None, true, 0, None);
    let there = list
        .walk(PageRequest::first(LARGE), |page| {
            for payment in &page.items {
                let place = (payment.created_at, payment.id);
                in_order &= last.is_none_or(|last| place < last);
                last = Some(place);
                rows += 1;
            }
            if middle.is_none() && 2 * rows >= list.rows {
                middle.clone_from(&page.info.end_cursor);
            }
        })
        .await?;
    let mut rows_back = 0;
    last = None;
    let back = list
        .walk(PageRequest::last(LARGE), |page| {
            for payment in page.items.iter().rev() {
                let place = (payment.created_at, payment.id);
                in_order &= last.is_none_or(|last| place > last);
                last = Some(place);
                rows_back += 1;
            }
        })
        .await?;
    println!("there: {there} pages, {rows} rows; and back: {back} pages, {rows_back} rows");
    let complete = in_order && rows == list.rows && rows_back == list.rows;
    println!("each row once, in order: {complete}\n");
    Ok(middle.ok_or("a page with rows has cursors")?)
}

/// What a page costs, wherever it is.
async fn times(list: &List, middle: &Cursor) -> Result<()> {
    println!("# a page of {SMALL} rows    seek       OFFSET");
    for (place, request, offset) in [
        ("at the start ", PageRequest::first(SMALL), 0),
        (
            "in the middle",
            PageRequest::first(SMALL).after(middle.clone()),
            list.rows / 2,
        ),
        (
            "at the end   ",
            PageRequest::last(SMALL),
            list.rows - i64::from(SMALL),
        ),
    ] {
        let seek = list.time(&request).await?.as_secs_f64() * 1e3;
        let by_offset = list.time_offset(offset).await?.as_secs_f64() * 1e3;
        println!("{place}          {seek:.2} ms    {by_offset:.2} ms");
    }
    Ok(())
}

/// Rows that come or go meanwhile neither repeat nor hide others: a cursor is a place, not a number.
async fn while_others_write(list: &List, middle: &Cursor) -> Result<()> {
    println!("# a payment comes, another goes");
    let before_middle = PageRequest::last(SMALL).before(middle.clone());
    let before = list.page(&before_middle).await?;
    sqlx::query("INSERT INTO payment VALUES (?, 'acme', 1800000000000000), (?, 'other', 1)")
        .bind(list.rows + 1)
        .bind(list.rows + 2)
        .execute(&list.pool)
        .await?;
    sqlx::query("DELETE FROM payment WHERE id = ?")
        .bind(list.rows - 1)
        .execute(&list.pool)
        .await?;
    let after = list.page(&before_middle).await?;
    let same = before.items == after.items;
    println!("the page before the middle is the same: {same}\n");
    Ok(())
}

/// Tries a cursor, and prints what its sender is told.
async fn attempt(list: &List, tenant: &str, cursor: Cursor) -> std::result::Result<(), PageError> {
    let request = PageRequest::first(3).after(cursor);
    let page = payments(tenant)
        .fetch(&list.pool, &request, &list.codec)
        .await;
    match page.map(|page: Page<Payment>| page.items.len()) {
        Ok(rows) => println!("{rows} rows"),
        // Over HTTP, with the feature `axum`: a 400 problem document that names the parameter `after`.
        Err(PageError::Cursor { source, .. }) => println!("{}: {source}", source.code()),
        Err(other) => return Err(other),
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let rows = std::env::args()
        .nth(1)
        .map_or(Ok(ROWS), |rows| rows.parse())?;
    let folder = tempfile::tempdir()?;
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("payments.db"))
        .create_if_missing(true)
        // It is made for this run only.
        .journal_mode(SqliteJournalMode::Off)
        .synchronous(SqliteSynchronous::Off);
    println!("# a list of {rows} payments, three of each moment");
    let list = make(SqlitePool::connect_with(options).await?, rows).await?;

    let middle = there_and_back(&list).await?;
    times(&list, &middle).await?;

    // One range of the index for the rest of those made at the same moment, and one for what follows.
    let plan = payments("acme").plan(
        &PageRequest::first(SMALL).after(middle.clone()),
        &list.codec,
    )?;
    println!("\n# the SQL of a page in the middle: {:?}", plan.strategy());
    println!("{}\n", plan.sql());

    while_others_write(&list, &middle).await?;

    // A client may change a cursor, try it elsewhere or make one up. It never gets a wrong page.
    println!("# cursors: tampered with, of another tenant, made up");
    let mut text = middle.to_string();
    text.truncate(text.len() - 4);
    attempt(&list, "acme", Cursor::new(text + "AAAA")).await?;
    attempt(&list, "other", middle).await?;
    attempt(&list, "acme", Cursor::new("page-2")).await?;
    list.pool.close().await;
    Ok(())
}
