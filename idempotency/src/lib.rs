//! Idempotency keys that commit with the write they protect.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod error;
mod fingerprint;
#[cfg(feature = "sqlx")]
mod inbox;
#[cfg(feature = "axum")]
mod inflight;
mod key;
#[cfg(feature = "axum")]
mod layer;
#[cfg(feature = "axum")]
mod local;
mod policy;
mod recorded;
#[cfg(feature = "axum")]
mod refusal;
mod scope;
#[cfg(feature = "sqlx")]
pub mod store;
#[cfg(feature = "sqlx")]
mod tx;
pub mod webhook;

pub use error::{Error, ErrorKind};
pub use fingerprint::Fingerprint;
pub use key::{Age, KEY_BYTES_MAX, Key, KeyError, Parse};
pub use policy::{Keep, OutcomePolicy, StripeV1, SuccessOnly, TerminalOnly};
pub use recorded::{HEADER_BYTES_MAX, RecordError, Recorded};
pub use scope::Scope;

#[cfg(feature = "axum")]
pub use refusal::IdempotencyError;

#[cfg(feature = "sqlx")]
pub use inbox::{INBOX_RETENTION, Inbox};
#[cfg(feature = "axum")]
pub use layer::{IdempotencyLayer, IdempotencyService, ResponseFuture, Scoped, Unscoped, Wait};
#[cfg(feature = "sqlx")]
pub use store::{Claim, IdempotencyDb, Seen, migrate, reap, reap_inbox};
#[cfg(feature = "sqlx")]
pub use tx::IdemTx;
