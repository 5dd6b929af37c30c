//! Every reason for which the layer answers in the handler's place, and the problem that says so.

use std::fmt;
use std::time::Duration;

use mainstay_errors::{Category, Descriptor, Fault, Outcome, Public, Retry};

use crate::Error;
use crate::error::{BUSY, FAILED, INVALID_ID, UNAVAILABLE};
use crate::key::KeyError;

/// Why the layer answers in the handler's place. Its codes are public contract: put it into your registry of problems
/// with `Registry::new().with::<IdempotencyError>()`.
#[derive(Debug)]
#[non_exhaustive]
pub enum IdempotencyError {
    /// 400 `idempotency_key_missing`.
    KeyMissing,
    /// 400 `idempotency_key_malformed`.
    KeyMalformed(KeyError),
    /// 400 `idempotency_key_malformed`: a version 7 UUID made later than now.
    KeyFromTheFuture,
    /// 412 `idempotency_key_expired`: its record may be gone, so it may have run.
    KeyExpired,
    /// 422 `idempotency_key_reused`: the key stands for a different request.
    KeyReused,
    /// 409 `idempotency_key_in_flight`, with `Retry-After: 1`.
    KeyInFlight,
    /// 503 `idempotency_overloaded`: too many keyed requests in progress.
    Overloaded,
    /// 413 `request_body_too_large`.
    RequestTooLarge {
        /// The cap.
        bytes_max: usize,
    },
    /// 400 `request_body_incomplete`.
    RequestIncomplete,
    /// 408 `request_body_timeout`.
    RequestTimeout,
    /// 500 `idempotency_response_not_kept`: rolled back, because the answer was too large, broke off or could not be sealed.
    ResponseNotKept,
    /// 504 `idempotency_handler_timeout`: rolled back.
    HandlerTimeout,
    /// 500 `idempotency_transaction_lost`: the handler kept its [`IdemTx`](crate::IdemTx) past its answer; rolled back.
    TransactionLost,
    /// 500 `idempotency_record_unreadable`: the operation was done, and its answer is kept, but sealed with a key that is
    /// not known, or damaged.
    RecordUnreadable(Error),
    /// The store failed before the commit.
    Store(Error),
    /// 503 `idempotency_outcome_unknown`: the commit went unanswered and the database could not be asked; or, under a lease,
    /// steps are done or begun, and the rest is not.
    OutcomeUnknown(Error),
    /// 503 `outcome_unknown`: as above, for a request without a key.
    OutcomeUnknownWithoutKey(Error),
}

const ASK_AGAIN: Duration = Duration::from_secs(1);

const fn describe(
    code: &'static str,
    category: Category,
    title: &'static str,
    docs: &'static str,
) -> Descriptor {
    Descriptor::new(code, category)
        .with_title(title)
        .with_docs(docs)
        .with_owner("mainstay_idempotency")
}

const MISSING: Descriptor = describe(
    "idempotency_key_missing",
    Category::InvalidArgument,
    "Idempotency key missing",
    "This operation needs an `Idempotency-Key` header: one key per logical call, the same for each of its attempts.",
);
const MALFORMED: Descriptor = describe(
    "idempotency_key_malformed",
    Category::InvalidArgument,
    "Idempotency key malformed",
    "The key is one header line holding a quoted string or a bare token of 1 to 255 visible ASCII characters.",
);
const EXPIRED: Descriptor = describe(
    "idempotency_key_expired",
    Category::FailedPrecondition,
    "Idempotency key expired",
    "The key was made longer ago than answers are kept, so it may have been used. Find out what it did before sending a new one.",
)
.with_status(412)
.with_retry(Retry::Never)
.with_outcome(Outcome::Unknown);
const REUSED: Descriptor = describe(
    "idempotency_key_reused",
    Category::InvalidArgument,
    "Idempotency key reused",
    "The key was used for a different request. A new request needs a new key.",
)
.with_status(422);
const IN_FLIGHT: Descriptor = describe(
    "idempotency_key_in_flight",
    Category::Aborted,
    "Idempotency key in flight",
    "A request with this key is running. Ask again with the same key for its answer.",
)
.with_retry(Retry::After(ASK_AGAIN))
.with_outcome(Outcome::Unknown);
const OVERLOADED: Descriptor = describe(
    "idempotency_overloaded",
    Category::Unavailable,
    "Too many requests in progress",
    "The service has as many keyed requests in progress as it allows itself. Nothing of this one was done.",
)
.with_retry(Retry::After(ASK_AGAIN))
.with_outcome(Outcome::NotApplied);
const TOO_LARGE: Descriptor = describe(
    "request_body_too_large",
    Category::InvalidArgument,
    "Request body too large",
    "The body of a keyed request is read whole before anything runs, and this one is larger than that allows.",
)
.with_status(413);
const INCOMPLETE: Descriptor = describe(
    "request_body_incomplete",
    Category::InvalidArgument,
    "Request body incomplete",
    "The body ended before it was complete. Nothing was done.",
);
const SLOW: Descriptor = describe(
    "request_body_timeout",
    Category::InvalidArgument,
    "Request body too slow",
    "The body was not complete in time. Nothing was done.",
)
.with_status(408)
.with_retry(Retry::Backoff);
const NOT_KEPT: Descriptor = describe(
    "idempotency_response_not_kept",
    Category::Internal,
    "The answer could not be kept",
    "The answer was larger than may be kept, or broke off. What cannot be repeated is not committed: nothing was done.",
)
.with_outcome(Outcome::NotApplied);
const TIMEOUT: Descriptor = describe(
    "idempotency_handler_timeout",
    Category::DeadlineExceeded,
    "The request took too long",
    "The request was stopped and rolled back. Nothing was done.",
)
.with_retry(Retry::Backoff)
.with_outcome(Outcome::NotApplied);
const LOST: Descriptor = describe(
    "idempotency_transaction_lost",
    Category::Internal,
    "Internal error",
    "The service kept a transaction longer than its request. It was rolled back: nothing was done.",
)
.with_outcome(Outcome::NotApplied);
const UNREADABLE: Descriptor = describe(
    "idempotency_record_unreadable",
    Category::Internal,
    "The kept answer cannot be read",
    "A request with this key was carried out before. Its answer is kept, but the service cannot read it. Nothing was done again.",
)
.with_retry(Retry::Never)
.with_outcome(Outcome::Unknown);
const UNKNOWN: Descriptor = describe(
    "idempotency_outcome_unknown",
    Category::Unavailable,
    "Outcome unknown",
    "What became of a request with this key is not known: the word on its commit was lost, or it stopped between its steps. Ask again \
     with the same key: the answer is replayed, or what is left to do is done, and nothing twice.",
)
.with_retry(Retry::SameKeyOnly)
.with_outcome(Outcome::Unknown);
const UNKNOWN_WITHOUT_KEY: Descriptor = describe(
    "outcome_unknown",
    Category::Unavailable,
    "Outcome unknown",
    "The commit was sent and its answer was lost. Read back before asking again.",
)
.with_retry(Retry::Never)
.with_outcome(Outcome::Unknown);

impl Fault for IdempotencyError {
    const CATALOG: &'static [Descriptor] = &[
        MISSING,
        MALFORMED,
        EXPIRED,
        REUSED,
        IN_FLIGHT,
        OVERLOADED,
        TOO_LARGE,
        INCOMPLETE,
        SLOW,
        NOT_KEPT,
        TIMEOUT,
        LOST,
        UNREADABLE,
        UNKNOWN,
        UNKNOWN_WITHOUT_KEY,
        BUSY,
        UNAVAILABLE,
        FAILED,
        INVALID_ID,
    ];

    fn descriptor(&self) -> &'static Descriptor {
        match self {
            Self::KeyMissing => &MISSING,
            Self::KeyMalformed(_) | Self::KeyFromTheFuture => &MALFORMED,
            Self::KeyExpired => &EXPIRED,
            Self::KeyReused => &REUSED,
            Self::KeyInFlight => &IN_FLIGHT,
            Self::Overloaded => &OVERLOADED,
            Self::RequestTooLarge { .. } => &TOO_LARGE,
            Self::RequestIncomplete => &INCOMPLETE,
            Self::RequestTimeout => &SLOW,
            Self::ResponseNotKept => &NOT_KEPT,
            Self::HandlerTimeout => &TIMEOUT,
            Self::TransactionLost => &LOST,
            Self::RecordUnreadable(_) => &UNREADABLE,
            Self::Store(error) => error.descriptor(),
            Self::OutcomeUnknown(_) => &UNKNOWN,
            Self::OutcomeUnknownWithoutKey(_) => &UNKNOWN_WITHOUT_KEY,
        }
    }

    fn detail(&self) -> Option<Public<'_>> {
        match self {
            Self::KeyMalformed(error) => Some(Public::new(error.to_string())),
            Self::KeyFromTheFuture => Some(Public::new(
                "the key's own time is later than now: check the clock that made it",
            )),
            Self::RequestTooLarge { bytes_max } => Some(Public::new(format!(
                "the body may have at most {bytes_max} bytes"
            ))),
            _ => None,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Store(error) => error.retry(),
            _ => self.descriptor().retry(),
        }
    }
}

impl fmt::Display for IdempotencyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyMalformed(error) => write!(f, "idempotency key malformed: {error}"),
            Self::KeyFromTheFuture => f.write_str("idempotency key made later than now"),
            Self::Store(_) => f.write_str("request not run"),
            other => f.write_str(&other.descriptor().title()),
        }
    }
}

impl std::error::Error for IdempotencyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::KeyMalformed(error) => Some(error),
            Self::Store(error)
            | Self::RecordUnreadable(error)
            | Self::OutcomeUnknown(error)
            | Self::OutcomeUnknownWithoutKey(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for IdempotencyError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_statuses_are_contract() {
        let table: Vec<_> = IdempotencyError::CATALOG
            .iter()
            .map(|d| (d.code(), d.status(), d.outcome().as_str()))
            .collect();
        assert_eq!(
            table,
            [
                ("idempotency_key_missing", 400, "not_applied"),
                ("idempotency_key_malformed", 400, "not_applied"),
                ("idempotency_key_expired", 412, "unknown"),
                ("idempotency_key_reused", 422, "not_applied"),
                ("idempotency_key_in_flight", 409, "unknown"),
                ("idempotency_overloaded", 503, "not_applied"),
                ("request_body_too_large", 413, "not_applied"),
                ("request_body_incomplete", 400, "not_applied"),
                ("request_body_timeout", 408, "not_applied"),
                ("idempotency_response_not_kept", 500, "not_applied"),
                ("idempotency_handler_timeout", 504, "not_applied"),
                ("idempotency_transaction_lost", 500, "not_applied"),
                ("idempotency_record_unreadable", 500, "unknown"),
                ("idempotency_outcome_unknown", 503, "unknown"),
                ("outcome_unknown", 503, "unknown"),
                ("idempotency_store_busy", 503, "not_applied"),
                ("idempotency_store_unavailable", 503, "not_applied"),
                ("idempotency_store_failed", 500, "not_applied"),
                ("message_id_invalid", 400, "not_applied"),
            ]
        );
    }
}
