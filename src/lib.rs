#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "errors")]
pub use mainstay_errors as errors;
#[cfg(feature = "idempotency")]
pub use mainstay_idempotency as idempotency;
#[cfg(feature = "outbox")]
pub use mainstay_outbox as outbox;
#[cfg(feature = "pagination")]
pub use mainstay_pagination as pagination;
#[cfg(feature = "retry")]
pub use mainstay_retry as retry;
