//! The sixteen canonical categories of failure, and the one table that says what each of them means
//! on every wire: HTTP status, gRPC code, retry advice, outcome and log level.
//!
//! A category is chosen where an error *type* is declared, never guessed from a message, so a failure
//! means the same to a browser, a gRPC peer, the log and our own retry layer.

use std::fmt;

use tracing::Level;

use crate::{Outcome, Retry};

/// What kind of failure this is: the canonical codes of `google.rpc.Code` without `OK`.
///
/// The set is closed on purpose: finer meaning belongs in a problem's `code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Category {
    /// The caller went away or withdrew the request.
    Cancelled,
    /// A failure nobody classified.
    Unknown,
    /// The request is wrong whatever the state of the system.
    InvalidArgument,
    /// Time ran out before the work was known to be done; it may still have happened.
    DeadlineExceeded,
    /// The thing that was named is not there.
    NotFound,
    /// The thing that was to be made is there already.
    AlreadyExists,
    /// The caller is known, and may not do this.
    PermissionDenied,
    /// A quota, a rate limit or a pool is used up.
    ResourceExhausted,
    /// The system is not in the state this request needs, and trying again will not change that.
    FailedPrecondition,
    /// A conflict with concurrent work: the whole unit of work may be tried again.
    Aborted,
    /// Past the valid range, such as reading beyond the end.
    OutOfRange,
    /// This operation does not exist here.
    Unimplemented,
    /// A broken invariant: a bug on this side.
    Internal,
    /// Not able to serve right now; soon again.
    Unavailable,
    /// Data is lost or corrupt beyond repair.
    DataLoss,
    /// Nobody knows who the caller is.
    Unauthenticated,
}

/// One line of the table.
struct Row {
    name: &'static str,
    title: &'static str,
    grpc: u8,
    http: u16,
    retry: Retry,
    outcome: Outcome,
    level: Level,
}

/// Spells a line of the table in the order of its columns.
const fn row(
    name: &'static str,
    title: &'static str,
    grpc: u8,
    http: u16,
    retry: Retry,
    outcome: Outcome,
    level: Level,
) -> Row {
    Row {
        name,
        title,
        grpc,
        http,
        retry,
        outcome,
        level,
    }
}

impl Category {
    /// All sixteen, in gRPC order.
    pub const ALL: [Self; 16] = [
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// The table. No wildcard arm: a new category cannot be added without answering every column.
    #[rustfmt::skip]
    const fn row(self) -> Row {
        use Outcome::{NotApplied, Unknown};
        use Retry::{AfterAuth, AfterStateChange, Backoff, Never, SameKeyOnly, Transaction};
        match self {
            Self::Cancelled          => row("cancelled",           "Cancelled",           1,  499, Never,            Unknown,    Level::DEBUG),
            Self::Unknown            => row("unknown",             "Unknown error",       2,  500, Never,            Unknown,    Level::ERROR),
            Self::InvalidArgument    => row("invalid_argument",    "Invalid argument",    3,  400, Never,            NotApplied, Level::DEBUG),
            Self::DeadlineExceeded   => row("deadline_exceeded",   "Deadline exceeded",   4,  504, SameKeyOnly,      Unknown,    Level::WARN),
            Self::NotFound           => row("not_found",           "Not found",           5,  404, Never,            NotApplied, Level::DEBUG),
            Self::AlreadyExists      => row("already_exists",      "Already exists",      6,  409, Never,            NotApplied, Level::DEBUG),
            Self::PermissionDenied   => row("permission_denied",   "Permission denied",   7,  403, Never,            NotApplied, Level::INFO),
            Self::ResourceExhausted  => row("resource_exhausted",  "Resource exhausted",  8,  429, Backoff,          NotApplied, Level::INFO),
            Self::FailedPrecondition => row("failed_precondition", "Failed precondition", 9,  400, AfterStateChange, NotApplied, Level::DEBUG),
            Self::Aborted            => row("aborted",             "Aborted",             10, 409, Transaction,      NotApplied, Level::INFO),
            Self::OutOfRange         => row("out_of_range",        "Out of range",        11, 400, Never,            NotApplied, Level::DEBUG),
            Self::Unimplemented      => row("unimplemented",       "Unimplemented",       12, 501, Never,            NotApplied, Level::WARN),
            Self::Internal           => row("internal",            "Internal error",      13, 500, Never,            Unknown,    Level::ERROR),
            // Whether the work was done depends on who was unavailable; until the source says, nobody knows.
            Self::Unavailable        => row("unavailable",         "Unavailable",         14, 503, Backoff,          Unknown,    Level::WARN),
            Self::DataLoss           => row("data_loss",           "Data loss",           15, 500, Never,            Unknown,    Level::ERROR),
            Self::Unauthenticated    => row("unauthenticated",     "Unauthenticated",     16, 401, AfterAuth,        NotApplied, Level::INFO),
        }
    }

    /// The name in logs and metrics: `invalid_argument`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().name
    }

    /// The name for people: `Invalid argument`.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.row().title
    }

    /// The HTTP status of this category, always 4xx or 5xx. A code may choose another of the same class.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        self.row().http
    }

    /// The number of the gRPC status code, 1 to 16.
    #[must_use]
    pub const fn grpc_code(self) -> u8 {
        self.row().grpc
    }

    /// What a caller may do about it, unless the error itself knows better.
    #[must_use]
    pub const fn retry(self) -> Retry {
        self.row().retry
    }

    /// Whether the request took effect, unless the error itself knows better.
    #[must_use]
    pub const fn outcome(self) -> Outcome {
        self.row().outcome
    }

    /// How loud the log should be. A caller's mistake is not an operator's alarm.
    #[must_use]
    pub const fn level(self) -> Level {
        self.row().level
    }

    /// True when `status` is of the same class (4xx or 5xx) as this category's own, so that a code may use it.
    #[must_use]
    pub const fn allows_status(self, status: u16) -> bool {
        status >= 400 && status <= 599 && status / 100 == self.http_status() / 100
    }

    /// The category with this gRPC number; `None` for 0 (`OK`) and for numbers nobody assigned.
    #[must_use]
    pub fn from_grpc_code(code: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|category| category.grpc_code() == code)
    }

    /// The category with this [`as_str`](Self::as_str) name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|category| category.as_str() == name)
    }

    /// The best category for a bare HTTP status: what a reader falls back to when a response says no more.
    ///
    /// Several categories share a status; this picks the one whose advice is safe for all of them
    /// (a bare 409 reads as `failed_precondition`: look before trying again). Outside 400–599: `Unknown`.
    #[must_use]
    pub const fn from_http_status(status: u16) -> Self {
        match status {
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 | 410 => Self::NotFound,
            408 | 504 => Self::DeadlineExceeded,
            409 | 412 | 428 => Self::FailedPrecondition,
            416 => Self::OutOfRange,
            423 => Self::Aborted,
            429 => Self::ResourceExhausted,
            499 => Self::Cancelled,
            400..=499 => Self::InvalidArgument,
            501 | 505 => Self::Unimplemented,
            502 | 503 | 507 => Self::Unavailable,
            500..=599 => Self::Internal,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_names_and_order_agree_with_grpc() {
        for (at, category) in Category::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(category.grpc_code()), at + 1);
            assert_eq!(category as usize, at);
            assert_eq!(
                Category::from_grpc_code(category.grpc_code()),
                Some(category)
            );
            assert_eq!(Category::from_name(category.as_str()), Some(category));
        }
        assert_eq!(Category::from_grpc_code(0), None);
        assert_eq!(Category::from_grpc_code(17), None);
    }

    #[test]
    fn every_status_is_an_error_and_its_own_class() {
        for category in Category::ALL {
            let status = category.http_status();
            assert!((400..600).contains(&status), "{category}");
            assert!(category.allows_status(status), "{category}");
            assert!(!category.allows_status(200), "{category}");
        }
        assert!(Category::FailedPrecondition.allows_status(412));
        assert!(!Category::FailedPrecondition.allows_status(503));
    }

    #[test]
    fn the_table_reads_as_specified() {
        let table: Vec<_> = Category::ALL
            .into_iter()
            .map(|c| {
                let (retry, outcome) = (c.retry().as_str(), c.outcome().as_str());
                format!(
                    "{c} {} {} {retry} {outcome} {}",
                    c.grpc_code(),
                    c.http_status(),
                    c.level()
                )
            })
            .collect();
        assert_eq!(
            table,
            [
                "cancelled 1 499 never unknown DEBUG",
                "unknown 2 500 never unknown ERROR",
                "invalid_argument 3 400 never not_applied DEBUG",
                "deadline_exceeded 4 504 same_key_only unknown WARN",
                "not_found 5 404 never not_applied DEBUG",
                "already_exists 6 409 never not_applied DEBUG",
                "permission_denied 7 403 never not_applied INFO",
                "resource_exhausted 8 429 backoff not_applied INFO",
                "failed_precondition 9 400 after_state_change not_applied DEBUG",
                "aborted 10 409 transaction not_applied INFO",
                "out_of_range 11 400 never not_applied DEBUG",
                "unimplemented 12 501 never not_applied WARN",
                "internal 13 500 never unknown ERROR",
                "unavailable 14 503 backoff unknown WARN",
                "data_loss 15 500 never unknown ERROR",
                "unauthenticated 16 401 after_auth not_applied INFO",
            ]
        );
    }

    #[test]
    fn a_bare_status_never_reads_as_another_class() {
        for status in (400..600).filter(|status| *status != 408) {
            let category = Category::from_http_status(status);
            assert!(
                category.allows_status(status),
                "{status} read as {category}"
            );
        }
        assert_eq!(Category::from_http_status(200), Category::Unknown);
        assert_eq!(Category::from_http_status(0), Category::Unknown);
    }
}
