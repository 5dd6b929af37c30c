//! What a database error means, decided from the backend's code alone.
//!
//! This file is pure: no driver is needed to ask it, so the whole table is a unit test. It never looks
//! at a message, because messages follow the server's locale and echo values.

use std::time::Duration;

use crate::error::INTERNAL;
use crate::{Category, Descriptor, Outcome, Retry};

/// Whose codes are being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// SQLSTATE, five characters: `23505`.
    Postgres,
    /// SQLite's extended result code in decimal: `2067`.
    Sqlite,
}

/// What happened, in words that are the same for every database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Condition {
    /// A row with this unique key is there already.
    UniqueViolation,
    /// A row that excludes this one is there already.
    ExclusionViolation,
    /// A reference points nowhere, or something still points at the row. Databases report both alike.
    ForeignKeyViolation,
    /// A NULL where none may be.
    NotNullViolation,
    /// A CHECK expression is false.
    CheckViolation,
    /// The transaction cannot be made serializable with the others; only running it again helps.
    SerializationFailure,
    /// Chosen as the victim of a deadlock.
    Deadlock,
    /// A lock was not to be had in time.
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
    /// A value does not fit its type: too long, out of range, malformed.
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

/// Reads a database's code. Total: what the table does not know is [`Condition::Other`].
///
/// ```
/// use mainstay_errors::db::{Backend, Condition, classify};
///
/// assert_eq!(classify(Backend::Postgres, "40001"), Condition::SerializationFailure);
/// assert_eq!(classify(Backend::Sqlite, "517"), Condition::SerializationFailure);
/// ```
#[must_use]
pub fn classify(backend: Backend, code: &str) -> Condition {
    match backend {
        Backend::Postgres => postgres(code),
        Backend::Sqlite => code.parse().map_or(Condition::Other, sqlite),
    }
}

fn postgres(sqlstate: &str) -> Condition {
    match sqlstate {
        "23505" => Condition::UniqueViolation,
        "23P01" => Condition::ExclusionViolation,
        "23503" | "23001" => Condition::ForeignKeyViolation,
        "23502" => Condition::NotNullViolation,
        "23514" => Condition::CheckViolation,
        "40001" => Condition::SerializationFailure,
        "40P01" => Condition::Deadlock,
        // lock_timeout and NOWAIT alike.
        "55P03" => Condition::LockTimeout,
        // statement_timeout and pg_cancel_backend alike.
        "57014" => Condition::StatementTimeout,
        "25006" => Condition::ReadOnly,
        "25P02" => Condition::TransactionAborted,
        // Full, starting up or shutting down, refused by the server, never reached.
        "53300" | "57P03" | "08001" | "08004" => Condition::CannotConnect,
        // The backend was told to end: by an administrator, by a crash, for being idle.
        "57P01" | "57P02" | "57P05" => Condition::ConnectionLost,
        "08007" => Condition::CommitUnknown,
        "53100" | "53200" => Condition::OutOfResources,
        "XX001" | "XX002" => Condition::Corruption,
        "P0001" => Condition::Raised,
        // Arithmetic is the program's mistake, the rest of the class the value's.
        "22012" => Condition::Other,
        _ if sqlstate.starts_with("22") => Condition::DataException,
        _ if sqlstate.starts_with("08") => Condition::ConnectionLost,
        _ => Condition::Other,
    }
}

fn sqlite(extended: u32) -> Condition {
    match extended {
        // UNIQUE, PRIMARY KEY and ROWID.
        2067 | 1555 | 2579 => Condition::UniqueViolation,
        787 => Condition::ForeignKeyViolation,
        1299 => Condition::NotNullViolation,
        275 => Condition::CheckViolation,
        1811 => Condition::Raised,
        // BUSY_SNAPSHOT: the snapshot is stale, and no amount of waiting renews it.
        517 => Condition::SerializationFailure,
        // The low byte is the primary code, the rest says more.
        _ => match extended & 0xff {
            5 | 6 => Condition::LockTimeout,
            7 | 13 => Condition::OutOfResources,
            8 => Condition::ReadOnly,
            9 => Condition::StatementTimeout,
            11 | 26 => Condition::Corruption,
            14 => Condition::CannotConnect,
            18 => Condition::DataException,
            _ => Condition::Other,
        },
    }
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

    /// True when the server's message may echo a value of the request.
    pub(super) const fn may_echo_values(self) -> bool {
        matches!(
            self,
            Self::DataException | Self::CheckViolation | Self::NotNullViolation
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row as `code condition → wire code, status, retry, outcome`.
    fn table(backend: Backend, codes: &[&str]) -> String {
        let line = |code: &&str| {
            let condition = classify(backend, code);
            let d = condition.descriptor();
            format!(
                "{code} {condition:?} {} {} {} {}\n",
                d.code(),
                d.status(),
                d.retry(),
                d.outcome()
            )
        };
        codes.iter().map(line).collect()
    }

    #[test]
    fn postgres_reads_as_specified() {
        insta::assert_snapshot!(
            "postgres",
            table(
                Backend::Postgres,
                &[
                    "23505", "23P01", "23503", "23001", "23502", "23514", "40001", "40P01",
                    "55P03", "57014", "25006", "53300", "57P03", "57P01", "57P02", "57P05",
                    "08000", "08001", "08003", "08004", "08006", "08007", "53100", "53200",
                    "22001", "22003", "22P02", "22021", "22012", "25P02", "P0001", "42P01",
                    "42703", "42601", "42501", "28P01", "XX001", "XX002", "XX000", "", "nonsense",
                ]
            )
        );
    }

    #[test]
    fn sqlite_reads_as_specified() {
        insta::assert_snapshot!(
            "sqlite",
            table(
                Backend::Sqlite,
                &[
                    "2067",
                    "1555",
                    "2579",
                    "787",
                    "1299",
                    "275",
                    "3091",
                    "1811",
                    "517",
                    "5",
                    "261",
                    "773",
                    "6",
                    "262",
                    "9",
                    "8",
                    "264",
                    "776",
                    "1032",
                    "14",
                    "13",
                    "7",
                    "18",
                    "11",
                    "779",
                    "26",
                    "1",
                    "10",
                    "",
                    "-5",
                    "99999999999",
                ]
            )
        );
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
