//! What happened, in words that are the same for every database, and what each of them is to a client.

use std::time::Duration;

use crate::error::INTERNAL;
use crate::{Category, Descriptor, Outcome, Retry};

/// What happened, in words that are the same for every database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Condition {
    /// A row with this unique key is there already.
    UniqueViolation,
    /// A row that excludes this one is there already.
    ExclusionViolation,
    /// A reference points nowhere, or something still points at the row.
    ///
    /// One condition for both sides, because Postgres and SQLite cannot tell them apart (same code, same
    /// constraint, same table) and a `match` that works on MySQL alone would be a trap. The statement
    /// knows: an insert meets the first, a delete the second; say it with
    /// [`on_foreign_key`](super::DbResultExt::on_foreign_key). The log has MySQL's number, and 1451 (still
    /// referenced) and 1452 (points nowhere) do tell.
    ForeignKeyViolation,
    /// A NULL where none may be.
    NotNullViolation,
    /// A CHECK expression is false.
    CheckViolation,
    /// The transaction cannot be made serializable with the others; only running it again helps.
    SerializationFailure,
    /// Chosen as the victim of a deadlock. MySQL and MariaDB have rolled the whole transaction back, so
    /// that a next statement would run, and commit, outside of it.
    Deadlock,
    /// A lock was not to be had in time, or not at once where the statement said `NOWAIT`.
    ///
    /// MySQL, MariaDB and SQLite undo the statement alone and leave the transaction open, with its earlier
    /// statements and its locks: roll it back before running it again. (Postgres accepts nothing else, and a
    /// dropped `sqlx::Transaction` does it on every database.)
    LockTimeout,
    /// The statement was cancelled or ran out of time.
    StatementTimeout,
    /// The database takes no writes now.
    ReadOnly,
    /// No connection could be opened: full, starting, refused.
    CannotConnect,
    /// The connection broke while it was in use. Whether the work was done is not known.
    ConnectionLost,
    /// The server says it does not know whether the commit happened.
    CommitUnknown,
    /// Out of disk or memory.
    OutOfResources,
    /// A value does not fit its column or type: too long, out of range, malformed.
    DataException,
    /// A statement was sent into a transaction that had failed before.
    TransactionAborted,
    /// A trigger or function raised an error of its own.
    Raised,
    /// Stored data is damaged.
    Corruption,
    /// The pool had no connection to lend in time.
    PoolTimedOut,
    /// The pool is closed: this process is shutting down.
    PoolClosed,
    /// A row that had to be there is not.
    RowNotFound,
    /// A mistake in the program, the schema or the set-up, or a code this table does not know.
    Other,
}

const fn describe(code: &'static str, category: Category, docs: &'static str) -> Descriptor {
    Descriptor::new(code, category)
        .with_docs(docs)
        .with_owner("mainstay_errors::db")
}

/// A second: long enough for the other transaction to end, short enough to be asked for.
const SOON: Duration = Duration::from_secs(1);

const ALREADY_EXISTS: Descriptor = describe(
    "already_exists",
    Category::AlreadyExists,
    "Something with the same key exists already.",
);
const STILL_REFERENCED: Descriptor = describe(
    "reference_conflict",
    Category::FailedPrecondition,
    "The request refers to something that is not there, or would remove something that is still referred to.",
)
.with_status(409);
/// Aborted work is offered as 503 to whoever is outside the transaction; inside, the advice says `transaction`.
const TRANSACTION_CONFLICT: Descriptor = describe(
    "transaction_conflict",
    Category::Unavailable,
    "Concurrent work got in the way and nothing of this request was applied. The same request may be sent again.",
)
.with_retry(Retry::Transaction)
.with_retry_after(SOON)
.with_outcome(Outcome::NotApplied);
const DATABASE_TIMEOUT: Descriptor = describe(
    "database_timeout",
    Category::DeadlineExceeded,
    "The work took too long and was stopped.",
);
const UNAVAILABLE: Descriptor = describe(
    "database_unavailable",
    Category::Unavailable,
    "The database cannot take this request now. Nothing was applied.",
)
.with_outcome(Outcome::NotApplied);
const CONNECTION_LOST: Descriptor = describe(
    "database_connection_lost",
    Category::Unavailable,
    "The connection to the database broke while it was in use. Whether the request took effect is not known.",
)
.with_retry(Retry::SameKeyOnly)
.with_outcome(Outcome::Unknown);
const VALUE_REFUSED: Descriptor = describe(
    "value_refused",
    Category::InvalidArgument,
    "A value of the request does not fit: it is too long, out of range or malformed.",
);
const DATA_LOSS: Descriptor = describe(
    "data_loss",
    Category::DataLoss,
    "Stored data is damaged. This needs a person.",
);

/// All of them, for the registry.
pub(super) const CATALOG: [Descriptor; 9] = [
    ALREADY_EXISTS,
    STILL_REFERENCED,
    TRANSACTION_CONFLICT,
    DATABASE_TIMEOUT,
    UNAVAILABLE,
    CONNECTION_LOST,
    VALUE_REFUSED,
    DATA_LOSS,
    INTERNAL,
];

impl Condition {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::UniqueViolation,
        Self::ExclusionViolation,
        Self::ForeignKeyViolation,
        Self::NotNullViolation,
        Self::CheckViolation,
        Self::SerializationFailure,
        Self::Deadlock,
        Self::LockTimeout,
        Self::StatementTimeout,
        Self::ReadOnly,
        Self::CannotConnect,
        Self::ConnectionLost,
        Self::CommitUnknown,
        Self::OutOfResources,
        Self::DataException,
        Self::TransactionAborted,
        Self::Raised,
        Self::Corruption,
        Self::PoolTimedOut,
        Self::PoolClosed,
        Self::RowNotFound,
        Self::Other,
    ];

    /// What this condition is to a client, unless the call site knows better.
    #[must_use]
    pub const fn descriptor(self) -> &'static Descriptor {
        match self {
            Self::UniqueViolation | Self::ExclusionViolation => &ALREADY_EXISTS,
            Self::ForeignKeyViolation => &STILL_REFERENCED,
            Self::SerializationFailure | Self::Deadlock | Self::LockTimeout => {
                &TRANSACTION_CONFLICT
            }
            Self::StatementTimeout => &DATABASE_TIMEOUT,
            Self::ReadOnly
            | Self::CannotConnect
            | Self::OutOfResources
            | Self::PoolTimedOut
            | Self::PoolClosed => &UNAVAILABLE,
            Self::ConnectionLost | Self::CommitUnknown => &CONNECTION_LOST,
            Self::DataException => &VALUE_REFUSED,
            Self::Corruption => &DATA_LOSS,
            // A constraint that no call site expected is a bug, and so is the rest.
            Self::NotNullViolation
            | Self::CheckViolation
            | Self::TransactionAborted
            | Self::Raised
            | Self::RowNotFound
            | Self::Other => &INTERNAL,
        }
    }

    /// The words for the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UniqueViolation => "unique violation",
            Self::ExclusionViolation => "exclusion violation",
            Self::ForeignKeyViolation => "foreign key violation",
            Self::NotNullViolation => "not-null violation",
            Self::CheckViolation => "check violation",
            Self::SerializationFailure => "serialization failure",
            Self::Deadlock => "deadlock",
            Self::LockTimeout => "lock timeout",
            Self::StatementTimeout => "statement timeout or cancel",
            Self::ReadOnly => "read-only database",
            Self::CannotConnect => "cannot connect",
            Self::ConnectionLost => "connection lost",
            Self::CommitUnknown => "commit outcome unknown",
            Self::OutOfResources => "out of disk or memory",
            Self::DataException => "data exception",
            Self::TransactionAborted => "transaction already aborted",
            Self::Raised => "error raised in the database",
            Self::Corruption => "corruption",
            Self::PoolTimedOut => "pool timed out",
            Self::PoolClosed => "pool closed",
            Self::RowNotFound => "row not found",
            Self::Other => "unexpected database error",
        }
    }

    /// True when running the whole transaction again, from its first read, may succeed.
    #[must_use]
    pub const fn is_transaction_conflict(self) -> bool {
        matches!(
            self,
            Self::SerializationFailure | Self::Deadlock | Self::LockTimeout
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_condition_is_listed_once_and_is_in_the_catalogue() {
        for (at, condition) in Condition::ALL.into_iter().enumerate() {
            assert_eq!(condition as usize, at);
            assert!(CATALOG.contains(condition.descriptor()), "{condition:?}");
        }
        // A variant that is added before the last one makes the list too short.
        assert_eq!(Condition::Other as usize + 1, Condition::ALL.len());
    }

    #[test]
    fn running_the_transaction_again_is_advised_where_it_may_help_and_nowhere_else() {
        for condition in Condition::ALL {
            assert_eq!(
                condition.is_transaction_conflict(),
                condition.descriptor().retry() == Retry::Transaction,
                "{condition:?}"
            );
        }
    }

    /// Reliability rule E5: what may be tried again either did not happen, or says that nobody knows.
    #[test]
    fn whatever_may_be_retried_is_honest_about_its_outcome() {
        for descriptor in CATALOG {
            match descriptor.retry() {
                Retry::Never | Retry::AfterStateChange | Retry::SameKeyOnly => {}
                retry => assert_eq!(
                    descriptor.outcome(),
                    Outcome::NotApplied,
                    "{retry} {}",
                    descriptor.code()
                ),
            }
        }
    }
}
