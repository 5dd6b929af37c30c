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
//! key" so that the database *seeks* to it, because no form does on all of them:
//!
//! - `a > x OR (a = x AND b > y)` is the way in on MySQL and MariaDB; on Postgres and SQLite it is a filter, which
//!   costs what OFFSET costs.
//! - `(a, b) > (x, y)` seeks on Postgres, but cannot say mixed directions or NULLs; MySQL and MariaDB read the index
//!   from its start for it, and on SQLite it bounds only `a` if `b` is the rowid.
//! - One text with optional parameters (`$1 IS NULL OR ...`) is fine until the server chooses a generic plan.
//!
//! So the database, the order and the cursor's NULLs choose the statement: one row value on Postgres where the order
//! has one direction and no NULLs, otherwise one index range per column joined by UNION ALL there and on SQLite, and
//! by OR on MySQL and MariaDB; the first page as well, where the order wants NULLs at the end where the index does not
//! have them. [`seek`] is that rule, pure and without SQL. [`PagePlan::sql`] and [`PagePlan::strategy`] show what came
//! of it, and `PageQuery::statements` lists every text that a list can send.
//!
//! At a million rows, page of 20, exact flags on both sides (`cargo test -p mainstay-pagination depth`, 2 shared
//! cores, debug build, best of 60):
//!
//! | | row 20 | row 500,000 | row 999,000 | OFFSET there |
//! |---|---|---|---|---|
//! | Postgres 15 | 0.56 ms, 28 buffers | 0.57 ms, 28 | 0.53 ms, 28 | 145 ms |
//! | MariaDB 10.11 | 0.45 ms, 22 rows read | 0.46 ms, 22 | 0.45 ms, 22 | 1,045 ms |
//! | SQLite 3 | 0.53 ms | 0.54 ms | 0.50 ms | 61 ms |
//!
//! # What a list can do
//!
//! - [`PageRequest`]: the first or the last rows, after a cursor, before one, or between two. `has_next` and
//!   `has_previous` are exact on the side the page goes to; on the side it came from they are by [`Probe`].
//! - [`Total`]: no count (the default), an exact one, one up to a cap, or the planner's estimate.
//! - `PageQuery::pages` and `PageQuery::rows`: the whole list as a stream, a page at a time in memory, from any cursor
//!   on, over a pool, a connection or one transaction.
//! - `KeysetDef::per_parent`: the first rows of many lists in one statement, each with a cursor of its own.
//! - Expressions and joined columns are columns by their output names ([`Column`], [`Column::joined`]).
//! - `seeks` and `assert_seeks` (feature `proof`): the proof, by EXPLAIN, in your own tests.
//!
//! # The index
//!
//! Index the filter's equality columns, then the order's columns with their directions:
//! `CREATE INDEX ON payment (tenant, created_at DESC, id DESC)`. All directions turned round serve as well.
//! [`KeysetDef::index_ddl`] writes it. What is particular:
//!
//! - **Postgres.** No NULLS clause, unless a nullable column *other than the first* has its NULLs where the database
//!   would not put them (`ASC NULLS FIRST`, `DESC NULLS LAST`): then every column as the order has it.
//! - **MySQL and MariaDB.** With a filter in front (`tenant = ?`), say which index to use: `FROM payment FORCE INDEX
//!   (payment_newest)`, in generic code [`PushIndexHint`]. The optimizer prefers all of the tenant's rows by `ref` to the
//!   range behind the cursor. Mixed directions need MySQL 8 or MariaDB 10.8. An expression needs a generated column.
//! - **SQLite, MySQL and MariaDB** have no index with NULLs elsewhere. For the first column that does not matter. A later
//!   one is sorted: on SQLite the rows that share the columns before it, on MySQL and MariaDB everything behind the
//!   cursor. Where that is too much, order by whether it is NULL first: with `prio IS NULL AS prio_is_null` in the query
//!   and in the index (an expression on SQLite, a generated column on MySQL), the order
//!   `.asc(Column::bool("prio_is_null").not_null()).asc(Column::i64("prio").nulls_first())` has the NULLs last and seeks.
//! - **A joined column** cannot stand in one index with the unique one: rows that share it are sorted, so it should have
//!   few each. Without [`Column::joined`] Postgres would compare the two tables' columns as one row value, which no
//!   index bounds.
//!
//! # Cursors
//!
//! A cursor holds the sort key of a row, not its id: it stays good when the row is deleted, and one serves for `after`
//! and `before`. It is opaque text of at most 1024 characters that is made for one list: eight bytes of SHA-256 over the
//! order and over whatever [`bind_to`](Select::bind_to) was given. [`CursorCodec`] makes and checks it; its bytes are held
//! by golden files. There are three ways to protect it:
//!
//! - [`hmac_sha256`](CursorCodec::hmac_sha256): nobody else can make or change one. The choice unless there is a reason.
//! - `aead` (feature `aead`): nobody else can read one either. For orders by what a client must not see.
//! - [`unsigned`](CursorCodec::unsigned): anybody can make one, and so probe positions within what the query selects.
//!
//! Keys lose nothing: instants and times of day to the database's own microsecond, decimals as text, floats by their
//! bits (NaN stands above all on Postgres, as it does there; elsewhere there is none), text and bytes as they are. They
//! are never compared here, only by the database.
//!
//! What a round trip of a timestamp and a UUID costs (`benches/instructions.rs`; medians of 21 runs on two shared cores):
//!
//! | | instructions | ns | allocations | characters |
//! |---|---|---|---|---|
//! | unsigned | 1,183 | 88 | 1 | 47 |
//! | signed | | 468 | 1 | 70, with an expiry 75 |
//! | signed, written by hand for this order alone | | 418 | 1 | 70 |
//! | sealed | | 1,216 | 1 | 86 |
//! | JSON in base64, unsigned, as is usual | 4,703 | 298 | | |
//!
//! (Where there is HMAC or AES, the counter does not know the processor's own instructions for them. 900 was the goal
//! unsigned. What is over it is the price of one codec for all orders: values carry a tag, and are checked against
//! their columns. Signed, the goal was 1.15 times the time of what is written by hand; it is 1.12.)
//!
//! Planning a page (its cursor read, its statement written and its parameters bound, with the driver's own buffers) costs
//! 7,207 instructions and 1.0 µs for a row value on Postgres, 9,086 and 1.2 µs for three ranges on SQLite, 12,180 and
//! 1.5 µs for OR on MariaDB, 17,293 and 2.1 µs with an exact probe on Postgres (the same bench, `sql_*`, medians of 11
//! runs on a busy machine). Of the last, 41 % is the driver's binding of parameters. 1 µs was the goal.
//!
//! # Derived orders
//!
//! With the feature `derive`, an order stands beside the fields that it names, and is checked against them:
//!
//! ```
//! use mainstay_pagination::{Key, Keyset, UnixMicros};
//!
//! #[derive(Keyset)] // and sqlx::FromRow
//! #[keyset(name = "tickets.by_priority", order = "priority desc nulls last, opened_at desc, id", unique = "id")]
//! struct Ticket { id: i64, priority: Option<i32>, opened_at: UnixMicros }
//!
//! assert_eq!(Ticket::BY_PRIORITY.columns().count(), 3);
//! let ticket = Ticket { id: 7, priority: None, opened_at: UnixMicros(5) };
//! assert_eq!(*ticket.keys(), [Key::Null, Key::Micros(5), Key::I64(7)]);
//! ```
//!
//! # Over HTTP
//!
//! `Paged` (feature `axum`) reads the page from the query string, under the names that a [`Preset`] has: `limit`, `after`
//! and `before`; GitHub's, AIP-158's, JSON:API's or Relay's. A policy gives the default and the maximum and says whether
//! more is cut or refused. Whatever is wrong is a 400 problem that names each parameter, cursors included, which `fetch`
//! checks. `Paged::respond` answers as the preset does: body, `Link` header (RFC 8288), `links`, `next_page_token`,
//! connection. With `utoipa` its parameters and bodies are in the OpenAPI document.
//!
//! ```
//! # #[cfg(feature = "axum")] {
//! use axum::{http::Uri, response::Response};
//! use mainstay_errors::Problem;
//! use mainstay_pagination::{Page, PageInfo, PageLimits, PagePolicy, Paged, Preset};
//!
//! struct Tickets;
//! impl PagePolicy for Tickets {
//!     const LIMITS: PageLimits = PageLimits::new(20, 100);
//!     const PRESET: Preset = Preset::JsonApi; // page[size], page[after], page[before]
//! }
//!
//! async fn list(uri: Uri, page: Paged<Tickets>) -> Result<Response, Problem> {
//!     let tickets: Page<String> = // ... .fetch(&pool, &page, &codec).await?
//! #       Page { items: vec![], info: PageInfo::default(), total: None, cursors: vec![] };
//!     Ok(page.respond(tickets, &uri))
//! }
//! # }
//! ```
//!
//! # What to know
//!
//! - A row whose sort key *changes* between two pages may be seen twice or not at all; that is in the nature of
//!   every cursor. Rows that are not changed are seen exactly once, and keys only ever grow (or fall) along a walk,
//!   whatever others write. Pages within one REPEATABLE READ transaction see one snapshot.
//! - A growing key is not a change feed: a row that commits late stands behind a cursor that has passed its
//!   place. To follow changes, use an outbox.
//! - **Where keyset loses.** Orders that no index holds (a computed relevance, a sort chosen among dozens of columns)
//!   gain nothing here: each page sorts the list. "Page 37 of 500" does not exist; there is no jumping but to an end
//!   or to a cursor. A filter that the index does not have in front is read past row by row until a page is full.
//!   Lists of a few hundred rows are as fast with OFFSET (and as wrong when others write).
//! - Text is compared by the database, in the column's collation. On MySQL and MariaDB, ENUM and SET are no keys (they
//!   are ordered by number and compared as text: order by `CAST(kind AS SIGNED)`), and instants are `DATETIME(6)` in
//!   UTC or `TIMESTAMP(6)`; sqlx sets the session to UTC, and so it must stay.
//! - A key that no cursor can hold (text or bytes of about 700 bytes and more) or no parameter (a date of year 0 on
//!   MariaDB) is an error of the page that ends with it, [`PageError::KeyTooLarge`] or [`PageError::KeyType`], and a 500.
//!   Where clients write such a column, bound its length or order by an expression that does.
//! - A page between two cursors reads at most a page's rows beyond the second one (on Postgres with a row value, none).
//! - MySQL itself was not at hand: the dialect is the one that is tested on MariaDB 10.11, and uses nothing that
//!   MySQL 8 lacks.
//! - A cursor is not authorization: the query itself selects what the caller may see.
//!
//! # What is not here
//!
//! - A filter language: the query is yours. Nor sorting in a client's words: each order is declared.
//! - A page's number, AIP-158's `skip`, OFFSET: to skip rows is to read them.
//! - Relay's `first` together with `last`: the specification allows and discourages it; here it is a 400.
//! - Keys of other types (enums, `citext`, intervals, arrays): an anchor bound as something else is compared by other
//!   rules than ORDER BY's. Select an expression of a known type under a name, and index it.
//! - jiff's types as fields of derived orders, since sqlx does not read them: [`KeyValue`] is a few lines for a type of
//!   one's own.
//! - Microsoft SQL Server and Oracle, which sqlx does not speak.
//! - A watermark for tailing a growing key (`pg_snapshot_xmin`): it is a predicate of the query, and the outbox has it.
//! - `has_previous` per parent, and paging parents backward: the parent's own list takes the same cursors.
//!
//! # Features
//!
//! None by default: the order, the cursor codec, requests, pages and the planner are pure.
//!
//! | feature | adds |
//! |---|---|
//! | `postgres`, `sqlite`, `mysql` | `KeysetDef::select`, `fetch`, streams and `per_parent` over sqlx; `mysql` is MariaDB's too |
//! | `proof` | `seeks` and `assert_seeks`, for tests |
//! | `axum` | the `Paged` extractor; `PageError` as a problem document that names the parameter |
//! | `aead` | `CursorCodec::aead`: cursors that nobody can read |
//! | `derive` | `#[derive(Keyset)]` |
//! | `time`, `chrono`, `rust_decimal` | their types as fields of derived orders |
//! | `utoipa` | OpenAPI schemas and parameters |
//!
//! # Tracing
//!
//! Target `mainstay_pagination`: one `debug` event per page with the order's name, strategy, direction, limit
//! and number of rows, and one per statement of `per_parent`; no keys, cursors or parameters.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "mysql")]
mod calendar;
mod codec;
mod column;
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
#[cfg(feature = "sqlx")]
mod text;
mod total;
#[cfg(feature = "sqlx")]
mod words;

pub use codec::{CURSOR_CHARS_MAX, CursorCodec};
pub use column::{Column, Decided, NotNull, Nullable, Undecided};
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
pub use keyset::{COLUMNS_MAX, Direction, KeysetBuilder, KeysetDef, Nulls, OrderColumn, Walk};
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
