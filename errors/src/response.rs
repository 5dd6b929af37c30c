//! Problems and errors as axum responses.
//!
//! A response made here carries the failure itself in its extensions, so that the
//! [`ProblemLayer`](crate::ProblemLayer) can complete the document and log the cause once. Without
//! that layer the response is still right, only without a request id and without a log line.

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::{Error, PROBLEM_JSON, Problem};

/// What a failed response is, for the layer around it.
#[derive(Clone)]
pub(crate) struct Failure {
    pub(crate) problem: Problem,
    pub(crate) error: Option<Arc<Error>>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = render(&self);
        response.extensions_mut().insert(Failure {
            problem: self,
            error: None,
        });
        response
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let problem = self.to_problem();
        let mut response = render(&problem);
        response.extensions_mut().insert(Failure {
            problem,
            error: Some(Arc::new(self)),
        });
        response
    }
}

impl IntoResponse for crate::Violations {
    fn into_response(self) -> Response {
        Error::from(self).into_response()
    }
}

#[cfg(feature = "sqlx")]
impl IntoResponse for crate::db::DbFault {
    fn into_response(self) -> Response {
        Error::from(self).into_response()
    }
}

/// Status, headers and body of a problem.
pub(crate) fn render(problem: &Problem) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = problem.status_code();
    *response.body_mut() = represent(problem, response.headers_mut());
    response
}

/// Writes the headers that belong to the document into `headers` and gives the body.
pub(crate) fn represent(problem: &Problem, headers: &mut HeaderMap) -> Body {
    let bytes = problem.to_bytes();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    // Said here rather than left to the server, so that HEAD says it too.
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    // A 404 or 405 may be cached by rule of thumb, and this one names one request.
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    // A header may have several values, such as one challenge for each scheme.
    let given: Vec<bool> = problem
        .headers()
        .map(|(name, _)| headers.contains_key(name))
        .collect();
    for ((name, value), given) in problem.headers().zip(given) {
        if !given {
            headers.append(name, value.clone());
        }
    }
    if let Some(seconds) = problem.retry_after_seconds() {
        headers
            .entry(header::RETRY_AFTER)
            .or_insert(HeaderValue::from(seconds));
    }
    Body::from(bytes)
}

/// Headers that describe the body they came with and nothing else.
const REPRESENTATION: [&str; 14] = [
    "content-type",
    "content-length",
    "content-encoding",
    "content-language",
    "content-location",
    "content-digest",
    "repr-digest",
    "digest",
    "content-md5",
    "content-disposition",
    "etag",
    "last-modified",
    "transfer-encoding",
    "trailer",
];

/// Takes away what described a body that is about to be replaced, and keeps everything else: `Allow`,
/// `WWW-Authenticate`, `Retry-After`, cookies, CORS.
pub(crate) fn drop_representation(status: StatusCode, headers: &mut HeaderMap) {
    for name in REPRESENTATION {
        headers.remove(name);
    }
    // The one status with which `Content-Range` is not about the body: it says how long the whole is.
    if status != StatusCode::RANGE_NOT_SATISFIABLE {
        headers.remove(header::CONTENT_RANGE);
    }
}
