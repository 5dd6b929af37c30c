//! Pages that seek: forward and back through a list in SQLite, with cursors that cannot be forged.
//!
//! Run it with `cargo run --example cursor_pages`. The database is a file in a temporary folder.
//!
//! @@OUTPUT@@
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

use mainstay::pagination::{
    Column, Cursor, CursorCodec, KeyRing, KeysetDef, Page, PageError, PageQuery, PageRequest, Probe,
};
use sqlx::{FromRow, QueryBuilder, Sqlite, SqlitePool, sqlite::SqliteConnectOptions};

/// The order of the list, declared once: newest first. Times may be equal, so a unique column breaks ties;
/// without one this does not compile, for pages would repeat rows or lose them.
const NEWEST: KeysetDef = KeysetDef::new("payments.newest")
    .desc(Column::timestamptz("created_at").not_null())
    .unique_desc(Column::i64("id").not_null());

#[derive(FromRow)]
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
    let page: Page<Payment> = payments("acme")
        .previous(Probe::Exact) // the way back is looked up as well: one index lookup more
        .fetch(pool, &request, codec)
        .await?;
    let rows: Vec<_> = page.items.iter().map(|p| (p.created_at, p.id)).collect();
    println!("# {title}");
    println!("(created_at, id): {rows:?}");
    println!(
        "previous: {}, next: {}",
        page.info.has_previous, page.info.has_next
    );
    println!(
        "strategy: {:?}\n",
        payments("acme").plan(&request, codec)?.strategy()
    );
    Ok(page)
}

/// What a client is told about a cursor.
async fn refused(
    pool: &SqlitePool,
    codec: &CursorCodec,
    tenant: &str,
    cursor: &Cursor,
) -> Result<&'static str, PageError> {
    let request = PageRequest::first(3).after(cursor.clone());
    match payments(tenant)
        .fetch::<Payment, _>(pool, &request, codec)
        .await
    {
        Err(PageError::Cursor { source, .. }) => Ok(source.code()), // over HTTP: a 400 that names `after`
        Err(other) => Err(other),
        Ok(_) => Ok("not refused"),
    }
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
    let end = first
        .info
        .end_cursor
        .clone()
        .ok_or("a page with rows has cursors")?;

    // Rows that come or go meanwhile neither repeat nor hide others: a cursor is a place, not a number.
    sqlx::query("INSERT INTO payment VALUES (9, 'acme', 70)")
        .execute(&pool)
        .await?;
    let next = PageRequest::first(3).after(end.clone());
    let second = show(&pool, &codec, "the next page", next.clone()).await?;
    let start = second
        .info
        .start_cursor
        .ok_or("a page with rows has cursors")?;

    let back = PageRequest::last(3).before(start);
    let again = show(&pool, &codec, "back again, and 9 has come since", back).await?;
    let ids = |page: &Page<Payment>| page.items.iter().map(|p| p.id).collect::<Vec<_>>();
    println!(
        "the same rows as at first: {}\n",
        ids(&again) == ids(&first)
    );

    println!(
        "# the SQL of the next page: a range of the index for the rest of the tie, and one for what follows"
    );
    println!("{}\n", payments("acme").plan(&next, &codec)?.sql());

    // A client may change a cursor, keep it too long or try it elsewhere. It is told so, and never gets a wrong page.
    let mut text = end.to_string();
    text.truncate(text.len() - 4);
    let tampered = Cursor::new(text + "AAAA");
    println!("# cursors that are refused");
    println!(
        "tampered:         {}",
        refused(&pool, &codec, "acme", &tampered).await?
    );
    println!(
        "another tenant's: {}",
        refused(&pool, &codec, "other", &end).await?
    );
    println!(
        "made up:          {}",
        refused(&pool, &codec, "acme", &"page-2".into()).await?
    );
    pool.close().await;
    Ok(())
}
