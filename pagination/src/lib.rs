//! Keyset pagination that seeks for every order.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod codec;
mod cursor;
#[cfg(feature = "sqlx")]
mod database;
#[cfg(feature = "sqlx")]
mod error;
#[cfg(feature = "axum")]
mod extract;
#[cfg(feature = "axum")]
mod fault;
mod fingerprint;
mod key;
mod key_ring;
mod keyset;
mod link;
mod micros;
mod page;
#[cfg(feature = "postgres")]
mod postgres;
mod request;
pub mod seek;
#[cfg(feature = "sqlx")]
mod select;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "sqlx")]
mod statement;

pub use codec::{CURSOR_CHARS_MAX, CursorCodec};
pub use cursor::{Cursor, CursorError};
#[cfg(feature = "sqlx")]
pub use database::{PageDb, PageSource, PushKey};
#[cfg(feature = "sqlx")]
pub use error::PageError;
#[cfg(feature = "axum")]
pub use extract::{DefaultPages, PagePolicy, Paged};
pub use fingerprint::Fingerprint;
pub use key::{Key, KeyKind};
pub use key_ring::{KeyRing, KeyRingError, SECRET_BYTES_MIN};
pub use keyset::{
    COLUMNS_MAX, Column, Decided, Direction, KeysetBuilder, KeysetDef, NotNull, Nullable, Nulls,
    OrderColumn, Undecided,
};
pub use micros::UnixMicros;
pub use page::{Page, PageInfo, Probe};
pub use request::{LimitError, OnExceed, PAGE_ROWS_MAX, PageDirection, PageLimits, PageRequest};
pub use seek::{Dialect, Strategy};
#[cfg(feature = "sqlx")]
pub use select::{PagePlan, PageQuery, Select};
