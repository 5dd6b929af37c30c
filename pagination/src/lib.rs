//! Keyset pagination that seeks for every order, with signed cursors bound to their query.
//!
//! **The promise.** Pages taken one after another are slices of one ORDER BY: no row twice, no row skipped,
//! forward, backward or to and fro, whatever the page sizes, ties and NULLs, and although rows are inserted
//! and deleted meanwhile. A page at the end of a million rows costs what the first one costs. A cursor that was
//! altered, has expired or belongs to another list is refused by name, never answered with a wrong page.
//!
//! ```
//! use mainstay_pagination::{Column, CursorCodec, KeyRing, KeysetDef, Page, PageRequest, Probe};
//! use sqlx::{Connection, Executor, FromRow, QueryBuilder, Sqlite, SqliteConnection};
//!
//! // The order, declared once: direction and NULLs per column, and a unique column that breaks ties.
//! const NEWEST: KeysetDef = KeysetDef::new("payments.newest")
//!     .desc(Column::timestamptz("created_at").not_null())
//!     .unique_desc(Column::i64("id").not_null());
//!
//! #[derive(FromRow)]
//! struct Payment { id: i64, amount: i64 }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # let mut connection = SqliteConnection::connect("sqlite::memory:").await?;
//! # connection.execute("CREATE TABLE payment (id INTEGER PRIMARY KEY, tenant TEXT, created_at INT NOT NULL, amount INT);
//! #     INSERT INTO payment VALUES (1, 'acme', 10, 5), (2, 'acme', 20, 6), (3, 'acme', 20, 7)").await?;
//! let codec = CursorCodec::hmac_sha256(KeyRing::new(1, b"thirty-two random bytes, at least")?);
//! let tenant = "acme";
//! let payments = || {
//!     NEWEST
//!         .select(|q: &mut QueryBuilder<Sqlite>| {
//!             q.push("SELECT id, created_at, amount FROM payment WHERE tenant = ").push_bind(tenant);
//!         })
//!         .bind_to(("payments", tenant)) // its cursors are good for this list and tenant only
//!         .previous(Probe::Exact)
//! };
//! let page: Page<Payment> = payments().fetch(&mut connection, &PageRequest::first(2), &codec).await?;
//! assert_eq!(page.items[0].id, 3);
//! assert!(page.info.has_next);
//!
//! let request = PageRequest::first(2).after(page.info.end_cursor.unwrap());
//! let page: Page<Payment> = payments().fetch(&mut connection, &request, &codec).await?;
//! assert_eq!(page.items[0].id, 1);
//! assert!(page.info.has_previous && !page.info.has_next);
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! # Why it is built this way
//!
//! OFFSET reads and throws away everything before the page, and repeats or skips rows when others are
//! inserted. Keyset pagination remembers the last row's sort key instead. What is hard is to say "after this
//! key" so that the database *seeks* to it:
//!
//! - `a > x OR (a = x AND b > y)` is a filter on Postgres and SQLite: it costs what OFFSET costs.
//! - `(a, b) > (x, y)` seeks on Postgres, but cannot say mixed directions or NULLs, and on SQLite it bounds
//!   only `a` if `b` is the rowid.
//! - One text with optional parameters (`$1 IS NULL OR ...`) is fine until the server chooses a generic plan.
//!
//! So the order and the cursor's state choose the statement: one row value where that seeks (Postgres, one
//! direction, NOT NULL), otherwise one index range per column joined by UNION ALL; the first page as well, where
//! the order wants NULLs at the end where the index does not have them. [`seek`] is that rule, pure and
//! without SQL. [`PagePlan::sql`] and [`PagePlan::strategy`] show what came of it.
//!
//! # The index
//!
//! Index the filter's equality columns, then the order's columns with their directions and without a NULLS
//! clause: `CREATE INDEX ON payment (tenant, created_at DESC, id DESC)`. All directions turned round serve as
//! well. If a nullable column *other than the first* has its NULLs where the database would not put them
//! (Postgres: `ASC NULLS FIRST`, `DESC NULLS LAST`), declare the index with the same NULLS clauses as the order;
//! SQLite has no such index and sorts the rows that share the columns before it.
//!
//! # What to know
//!
//! - A row whose sort key *changes* between two pages may be seen twice or not at all; that is in the nature of
//!   every cursor. Pages within one REPEATABLE READ transaction see one snapshot.
//! - A growing key is not a change feed: a row that commits late stands behind a cursor that has passed its
//!   place. To follow changes, use an outbox.
//! - Orders that no index holds (a computed relevance) gain nothing here.
//! - A cursor is not authorization: the query itself selects what the caller may see.
//!
//! # Features
//!
//! None by default: the order, the cursor codec, requests, pages and the planner are pure.
//!
//! | feature | adds |
//! |---|---|
//! | `postgres`, `sqlite` | `KeysetDef::select` and `fetch` over sqlx |
//! | `axum` | the `Paged` extractor; `PageError` as a problem document that names the parameter |
//! | `utoipa` | OpenAPI schemas and parameters |
//!
//! # Tracing
//!
//! Target `mainstay_pagination`: one `debug` event per page with the order's name, strategy, direction, limit
//! and number of rows; no keys, cursors or parameters.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "mysql")]
mod calendar;
mod codec;
#[cfg(feature = "sqlx")]
mod count;
mod cursor;
#[cfg(feature = "sqlx")]
mod database;
mod ddl;
mod decimal;
#[cfg(feature = "sqlx")]
mod error;
#[cfg(feature = "axum")]
mod extract;
#[cfg(feature = "axum")]
mod fault;
mod fingerprint;
mod key;
mod key_ring;
mod keyed;
mod keyset;
mod link;
mod micros;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(all(feature = "axum", feature = "utoipa"))]
mod openapi;
mod page;
#[cfg(feature = "sqlx")]
mod per_parent;
#[cfg(feature = "sqlx")]
mod plan;
#[cfg(feature = "postgres")]
mod postgres;
mod preset;
#[cfg(feature = "proof")]
mod proof;
mod quoted;
#[cfg(feature = "sqlx")]
mod reader;
mod request;
pub mod seek;
#[cfg(feature = "sqlx")]
mod select;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "sqlx")]
mod statement;
#[cfg(feature = "sqlx")]
mod statements;
#[cfg(feature = "sqlx")]
mod stream;
mod total;
#[cfg(feature = "sqlx")]
mod words;

pub use codec::{CURSOR_CHARS_MAX, CursorCodec};
pub use cursor::{Cursor, CursorError};
#[cfg(feature = "sqlx")]
pub use database::{PageDb, PageSource, PushIndexHint, PushKey};
#[cfg(feature = "sqlx")]
pub use error::PageError;
#[cfg(feature = "axum")]
pub use extract::{DefaultPages, PagePolicy, Paged};
pub use fingerprint::Fingerprint;
pub use key::{Key, KeyKind, Keys};
pub use key_ring::{KeyRing, KeyRingError, SECRET_BYTES_MIN};
pub use keyed::{KeyValue, Keyset};
pub use keyset::{
    COLUMNS_MAX, Column, Decided, Direction, KeysetBuilder, KeysetDef, NotNull, Nullable, Nulls,
    OrderColumn, Undecided, Walk,
};
pub use link::Links;
#[cfg(feature = "derive")]
pub use mainstay_pagination_derive::Keyset;
pub use micros::UnixMicros;
pub use page::{Page, PageInfo, Probe};
#[cfg(feature = "sqlx")]
pub use per_parent::{PARENTS_MAX, Parent, ParentsPlan, ParentsQuery, PerParent};
#[cfg(feature = "sqlx")]
pub use plan::PagePlan;
pub use preset::{
    Connection, Edge, EstimatedTotal, JsonApiLinks, JsonApiMeta, JsonApiMetaPage, JsonApiPage,
    Preset, RelayPageInfo, TokenPage,
};
#[cfg(feature = "proof")]
pub use proof::{Scans, SeekError, assert_seeks, seeks};
pub use request::{LimitError, OnExceed, PAGE_ROWS_MAX, PageDirection, PageLimits, PageRequest};
pub use seek::{Dialect, Strategy};
#[cfg(feature = "sqlx")]
pub use select::{PageQuery, Select};
pub use total::{ESTIMATE_ROWS_MAX, Total, TotalIs, TotalRows};
