//! Failures over gRPC: to and from `tonic::Status` with the details of google.rpc.

mod details;
mod layer;
mod message;
mod path;
mod read;
mod reason;

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use tonic::{Code, Status};

pub use details::STATUS_BYTES_MAX;
pub use layer::{StatusBody, StatusFuture, StatusLayer, StatusService};
pub use message::MESSAGE_BYTES_MAX;

use crate::{CHAIN_LINKS_MAX, Error, Problem};

impl Problem {
    /// The problem as a failed call, with the details that google.rpc defines (AIP-193).
    ///
    /// | member | where it travels |
    /// |---|---|
    /// | category | `grpc-status` |
    /// | `detail`, else `title` | `grpc-message`, up to [`MESSAGE_BYTES_MAX`] as it travels |
    /// | `code` | `ErrorInfo.reason` in upper case; beside it as metadata when it is no snake case of 3 to 63 bytes |
    /// | [domain](Self::domain) | `ErrorInfo.domain`, up to 255 bytes |
    /// | `retry`, `outcome` | `ErrorInfo.metadata`, always |
    /// | `type`, `title`, `status`, `instance`, `detail` | `ErrorInfo.metadata`, when nothing else says it |
    /// | `type` that is a web address | `Help` too, under the title |
    /// | extension members | `ErrorInfo.metadata`: a string as it is, unless it would read as JSON, else JSON |
    /// | those whose name is no `[a-z][a-zA-Z0-9-_]+` up to 64 bytes | together in metadata `other-members` |
    /// | `retry_after` | `RetryInfo`, to the nanosecond |
    /// | `request_id` | `RequestInfo` |
    /// | `errors` | `BadRequest`: `/lines/0/amount` is `lines[0].amount`, other locations are `query:/limit` |
    /// | their `code`, `detail` | `reason`, `description` (without a detail, the code in words) |
    /// | their `params` | metadata `violation-extras`, a JSON array along the violations |
    ///
    /// [`from_status`](Self::from_status) reads it all back. Lost are the [headers](Self::headers), which are HTTP's,
    /// and [`reported_status`](Self::reported_status). Equal problems are equal bytes.
    ///
    /// The details stay within [`STATUS_BYTES_MAX`]. What does not fit is left out in this order: `Help`, the
    /// violations from the last, the extension members from the largest, the other metadata from `detail` up; the first
    /// four lines of the table but the metadata, `retry`, `outcome`, `retry_after` and `request_id` always fit.
    ///
    /// ```
    /// use mainstay_errors::{Category, Problem};
    ///
    /// let problem = Problem::new(Category::NotFound, "order_not_found")
    ///     .with_domain("orders.example.com")
    ///     .with_detail("order 7 not found");
    /// let status = problem.to_status();
    /// assert_eq!(status.code(), tonic::Code::NotFound);
    /// assert_eq!(status.message(), "order 7 not found");
    /// assert_eq!(Problem::from_status(&status), problem);
    /// ```
    #[must_use]
    pub fn to_status(&self) -> Status {
        let title = self.title();
        let message = message::bounded(self.detail().unwrap_or(&title));
        let details = details::encode(self, message);
        let code = Code::from_i32(i32::from(self.category().grpc_code()));
        Status::with_details(code, message, details.into())
    }
}

impl From<&Problem> for Status {
    fn from(problem: &Problem) -> Self {
        problem.to_status()
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        problem.to_status()
    }
}

/// The error stays behind the status as its source, for the log: it does not travel.
impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut status = error.to_problem().to_status();
        status.set_source(Arc::new(Cause(error)));
        status
    }
}

impl From<crate::Violations> for Status {
    fn from(violations: crate::Violations) -> Self {
        Error::from(violations).into()
    }
}

#[cfg(feature = "sqlx")]
impl From<crate::db::DbFault> for Status {
    fn from(fault: crate::db::DbFault) -> Self {
        Error::from(fault).into()
    }
}

/// The error behind a status. `Status` shows the `Debug` of its source in its own `Display`, which people put into
/// messages: so this shows the code alone. The error itself is its source.
struct Cause(Error);

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.code())
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

/// The error a status was made of, also when others have wrapped it since.
fn error_behind(status: &Status) -> Option<&Error> {
    let mut next = StdError::source(status);
    for _ in 0..CHAIN_LINKS_MAX {
        let link = next?;
        if let Some(error) = link.downcast_ref::<Error>() {
            return Some(error);
        }
        next = link.source();
    }
    None
}
