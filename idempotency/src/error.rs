//! What a store can answer with when it cannot answer.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use mainstay_errors::{Category, Descriptor, Fault, Outcome, Retry};

/// A failure of the store. What a caller may act on is its [`kind`](Error::kind); the driver's own error is the source.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What sort of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Another writer was in the way for too long (lock timeout, deadlock, serialization failure, `SQLITE_BUSY`).
    Busy,
    /// The database cannot be reached, is shutting down, or the pool has no connection to give.
    Unavailable,
    /// The statement was refused: a missing table, an aborted transaction, a right that was not granted.
    Database,
    /// A row that this version cannot read.
    Corrupt,
    /// A consumer name or message id that is empty or over its cap.
    InvalidId,
    /// The transaction that was begun is no longer open: the handler ended it, or the database did.
    TransactionEnded,
}

impl Error {
    /// For stores outside this crate.
    pub fn new(kind: ErrorKind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            kind,
            source: Some(source.into()),
        }
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

pub(crate) const BUSY: Descriptor =
    Descriptor::new("idempotency_store_busy", Category::Unavailable)
        .with_title("The database is busy")
        .with_docs(
            "Another writer was in the way for too long. Nothing of the request was committed.",
        )
        .with_outcome(Outcome::NotApplied)
        .with_owner("mainstay_idempotency");
pub(crate) const UNAVAILABLE: Descriptor =
    Descriptor::new("idempotency_store_unavailable", Category::Unavailable)
        .with_title("The database cannot be reached")
        .with_docs("No connection could be had, or it broke. Nothing of the request was committed.")
        .with_outcome(Outcome::NotApplied)
        .with_owner("mainstay_idempotency");
pub(crate) const FAILED: Descriptor =
    Descriptor::new("idempotency_store_failed", Category::Internal)
        .with_title("The database refused a statement")
        .with_docs(
            "A statement of the service itself was refused. Nothing of the request was committed.",
        )
        .with_outcome(Outcome::NotApplied)
        .with_owner("mainstay_idempotency");
pub(crate) const INVALID_ID: Descriptor =
    Descriptor::new("message_id_invalid", Category::InvalidArgument)
        .with_title("Message id invalid")
        .with_docs(
            "The message's id, or its consumer's name, is empty or too long to be remembered.",
        )
        .with_owner("mainstay_idempotency");

/// For a request that this failure ended before anything of it was committed.
impl Fault for Error {
    const CATALOG: &'static [Descriptor] = &[BUSY, UNAVAILABLE, FAILED, INVALID_ID];

    fn descriptor(&self) -> &'static Descriptor {
        match self.kind {
            ErrorKind::Busy => &BUSY,
            ErrorKind::Unavailable => &UNAVAILABLE,
            ErrorKind::InvalidId => &INVALID_ID,
            ErrorKind::Database | ErrorKind::Corrupt | ErrorKind::TransactionEnded => &FAILED,
        }
    }

    fn retry(&self) -> Retry {
        match self.kind {
            // Long enough for most writers to be done, short enough not to be felt.
            ErrorKind::Busy | ErrorKind::Unavailable => Retry::After(Duration::from_secs(1)),
            _ => self.descriptor().retry(),
        }
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self { kind, source: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            ErrorKind::Busy => "the idempotency store is busy",
            ErrorKind::Unavailable => "the idempotency store is unavailable",
            ErrorKind::Database => "the idempotency store refused a statement",
            ErrorKind::Corrupt => "a row of the idempotency store cannot be read",
            ErrorKind::InvalidId => "a consumer name or message id is empty or too long",
            ErrorKind::TransactionEnded => "the transaction ended before its commit",
        })
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}
