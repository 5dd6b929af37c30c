//! The caller's side over HTTP: a failed answer becomes the [`Problem`] it carries.
//!
//! A client needs one question answered, "did it work, and if not, what may I do", and it must get an
//! answer from a document, from a proxy's HTML and from a body that breaks off alike. So reading is
//! total and bounded: an answer that worked passes untouched, a failed one is read up to the
//! [`ProblemReader`]'s bound and no further, and whatever cannot be read is judged by its status and headers.

mod body;
#[cfg(feature = "client")]
mod http;
#[cfg(feature = "reqwest")]
mod reqwest;

use std::future::Future;
use std::time::SystemTime;

use crate::{Problem, ProblemReader};

/// Turns failed answers into [`Problem`]s: for `http::Response` (feature `client`; hyper, tower and axum
/// clients) and for `reqwest::Response` (feature `reqwest`).
///
#[cfg_attr(feature = "client", doc = "```")]
#[cfg_attr(not(feature = "client"), doc = "```ignore")]
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use mainstay_errors::{OrProblem, Retry};
///
/// let answer = http::Response::builder()
///     .status(503)
///     .header("content-type", "application/problem+json")
///     .header("retry-after", "2")
///     .body(Full::<Bytes>::from(r#"{"type":"/problems/provider_down","code":"provider_down"}"#))
///     .unwrap();
/// let problem = answer.or_problem().await.unwrap_err();
/// assert_eq!(problem.code(), "provider_down");
/// assert_eq!(problem.retry(), Retry::After(std::time::Duration::from_secs(2)));
/// # }
/// ```
///
/// # What is read
///
/// At most [`DOCUMENT_BYTES_MAX`](crate::DOCUMENT_BYTES_MAX) bytes of the body, or what the [`ProblemReader`]
/// says. A body that is larger, breaks off, or is compressed (`Content-Encoding` other than `identity`: the
/// client that asked for it undoes it) is judged by status and headers. The rest of a larger one is not
/// read: dropping it closes the HTTP/1 connection or resets the HTTP/2 stream.
///
/// # Time
///
/// There is no time limit here: a server that sends a byte an hour is read for as long as the caller
/// waits. Whoever sends requests has a deadline around the whole exchange already (reqwest's `timeout` covers the body), and a
/// second one would only be shorter by accident.
///
/// # Cancel safety
///
/// Dropping a future drops the answer with what was not read of it, and nothing else. Whether the request took
/// effect is then as unknown as after a timeout.
///
/// # Passing a problem on
///
/// `Error::from(problem)` answers with the same code, `type`, advice, outcome and extensions, and a service in
/// the middle needs to know none of them. Three things are not the next caller's:
///
/// - The **request id** is the upstream's. `ProblemLayer` writes its own in its place.
/// - **401** and **403** speak of the credentials of the service in the middle, not of its caller's. Match
///   them first, and answer with a fault of your own.
/// - The **outcome** is that of the one call. A service that had done something before it must say so.
pub trait OrProblem: Sized + Send {
    /// Whether the answer is a failure: 4xx or 5xx.
    fn is_failure(&self) -> bool;

    /// Reads the answer as a failure, whatever its status; one outside 400–599 reads as 500.
    fn into_problem_with(self, reader: &ProblemReader) -> impl Future<Output = Problem> + Send;

    /// Reads the answer as a failure, as a [`ProblemReader`] with nothing set does.
    fn into_problem(self) -> impl Future<Output = Problem> + Send {
        async { self.into_problem_with(&ProblemReader::new()).await }
    }

    /// The answer, its body unread, or the problem it reports.
    ///
    /// # Errors
    /// The [`Problem`] when the status is 4xx or 5xx.
    fn or_problem_with(
        self,
        reader: &ProblemReader,
    ) -> impl Future<Output = Result<Self, Problem>> + Send {
        let reader = self.is_failure().then(|| reader.clone());
        async move {
            match reader {
                Some(reader) => Err(self.into_problem_with(&reader).await),
                None => Ok(self),
            }
        }
    }

    /// [`or_problem_with`](Self::or_problem_with) a [`ProblemReader`] with nothing set.
    ///
    /// # Errors
    /// The [`Problem`] when the status is 4xx or 5xx.
    fn or_problem(self) -> impl Future<Output = Result<Self, Problem>> + Send {
        async {
            if self.is_failure() {
                Err(self.into_problem().await)
            } else {
                Ok(self)
            }
        }
    }
}

/// The status of a failure.
fn fails(status: ::http::StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// The moment an answer arrived. Counts only for a `Retry-After` that is a date on an answer without `Date`.
#[expect(
    clippy::disallowed_methods,
    reason = "the edge: what reads the answer is pure and takes this as an argument"
)]
fn now() -> SystemTime {
    SystemTime::now()
}
