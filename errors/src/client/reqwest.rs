//! reqwest's answers, and its failures to get one.

use ::reqwest::{Error, Response, Url};

use super::body::{Collected, problem};
use super::{OrProblem, fails, now};
use crate::{Category, Outcome, Problem, ProblemReader, Retry};

/// Unless the reader has a [`base`](ProblemReader::base), a relative `type` and `instance` are resolved against the
/// URL that answered, without its credentials and its query: they are the caller's secrets, and a problem is
/// passed on.
impl OrProblem for Response {
    fn is_failure(&self) -> bool {
        fails(self.status())
    }

    async fn into_problem_with(mut self, reader: &ProblemReader) -> Problem {
        let reader = reader.received(now(), Some(public(self.url())));
        let (status, headers) = (self.status().as_u16(), std::mem::take(self.headers_mut()));
        let bytes_min = self.content_length().unwrap_or(0);
        let mut collected = Collected::begin(&reader, &headers, bytes_min);
        while let Some(so_far) = collected.take() {
            match self.chunk().await {
                Ok(Some(chunk)) => collected = so_far.with(chunk),
                Ok(None) => {
                    collected = Some(so_far);
                    break;
                }
                // It broke off, or its coding is damaged.
                Err(_) => break,
            }
        }
        problem(&reader, status, &headers, collected)
    }
}

/// The URL as others may see it.
fn public(url: &Url) -> String {
    let mut url = url.clone();
    // Refused for URLs that cannot have credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

impl Problem {
    /// What it means for the caller that reqwest got no answer at all.
    ///
    /// | failure | status, code | advice | outcome |
    /// |---|---|---|---|
    /// | no connection was made | 503 `unavailable` | backoff | not applied |
    /// | the request could not be built | 500 `internal` | never | not applied |
    /// | time ran out | 504 `deadline_exceeded` | same key only | unknown |
    /// | `error_for_status` | as its status says | as its status says | as its status says |
    /// | anything else: cut off, unreadable, redirected without end | 503 `unavailable` | same key only | unknown |
    ///
    /// Nothing of the error's text is taken: it holds the URL, and a query may hold a secret. Log the error
    /// itself where that may be logged.
    ///
    /// "No connection was made" is what the *last* attempt of the client says. A client that follows redirects or
    /// repeats requests by itself may have been answered, and obeyed, before: for requests with an
    /// effect switch both off, which is what an outcome can be told of.
    #[must_use]
    pub fn from_reqwest(error: &Error) -> Self {
        if let Some(status) = error.status() {
            return Self::read_document(status.as_u16(), None, b"");
        }
        // The order counts: an attempt to connect that timed out is both.
        let (category, retry, outcome) = if error.is_connect() {
            (Category::Unavailable, Retry::Backoff, Outcome::NotApplied)
        } else if error.is_builder() {
            (Category::Internal, Retry::Never, Outcome::NotApplied)
        } else if error.is_timeout() {
            (
                Category::DeadlineExceeded,
                Retry::SameKeyOnly,
                Outcome::Unknown,
            )
        } else {
            (Category::Unavailable, Retry::SameKeyOnly, Outcome::Unknown)
        };
        Self::read_document(category.http_status(), None, b"")
            .with_retry(retry)
            .with_outcome(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_passed_on_without_secrets() {
        let url = "https://user:word@api.example.com/v1/orders?token=hunter2#x";
        assert_eq!(
            public(&url.parse().unwrap()),
            "https://api.example.com/v1/orders"
        );
        assert_eq!(public(&"data:,x".parse().unwrap()), "data:,x");
    }

    #[test]
    fn a_request_that_could_not_be_built_did_nothing() {
        let client = ::reqwest::Client::new();
        let error = client.get("not a url?token=hunter2").build().unwrap_err();
        let problem = Problem::from_reqwest(&error);
        assert_eq!(
            (problem.code(), problem.retry(), problem.outcome()),
            ("internal", Retry::Never, Outcome::NotApplied)
        );
        let shown = format!("{problem:?}{:?}", problem.to_bytes());
        assert!(!shown.contains("hunter2"));
    }
}
