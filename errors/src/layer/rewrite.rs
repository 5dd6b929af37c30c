//! What becomes of a response: decided by its status, its extensions and its content type.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::body::{Body, Bytes};
use http::{HeaderMap, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::{BodyExt, Collected, Full, Limited};
use serde_json::Value;

use super::asked::Asked;
use super::future::unwound;
use super::localize::localized;
use super::{PassThrough, REQUEST_ID, Shared, headers};
use crate::http_codes;
use crate::problem::{DOCUMENT_BYTES_MAX, PROBLEM_JSON, essence};
use crate::response::{Failure, drop_representation, represent};
use crate::violations::VALIDATION_FAILED;
use crate::{Error, Problem};

/// The answer, or what has to be read for it.
pub(super) enum Rewrite {
    Done(Response<Body>),
    Read(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

/// Decides about the response of the inner service.
pub(super) fn answer(
    mut response: Response<Body>,
    mut asked: Asked,
    shared: &Arc<Shared>,
) -> Rewrite {
    if is_grpc(&response) {
        return Rewrite::Done(response);
    }
    let status = response.status();
    let fails = status.is_client_error() || status.is_server_error();
    // A handler may put a success around a document, which is still a failure.
    if !fails && !is_wrapped(&response) {
        if let Some(id) = asked.known_id() {
            response.headers_mut().insert(REQUEST_ID, id.to_header());
        }
        return Rewrite::Done(response);
    }
    let id = asked.id().to_header();
    response.headers_mut().insert(REQUEST_ID, id);
    if response.extensions().get::<PassThrough>().is_some() {
        return Rewrite::Done(response);
    }
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        let problem = failure.problem.under_status(status.as_u16());
        let error = failure.error.as_deref();
        if let ContentType::Other = content_type(&response) {
            // Something between put a page of its own in the document's place and left the extensions.
            let problem = problem.with_request_id(asked.id().clone());
            shared.log.log(&problem, error);
            response.extensions_mut().insert(problem);
            return Rewrite::Done(response);
        }
        return Rewrite::Done(finish(response, problem, error, asked, shared));
    }
    match content_type(&response) {
        ContentType::Bare => {
            let problem = http_codes::for_status(status.as_u16()).to_problem();
            let problem = match wait_of(response.headers()) {
                Some(wait) => problem.with_retry_after(wait),
                None => problem,
            };
            Rewrite::Done(finish(response, problem, None, asked, shared))
        }
        ContentType::Problem if is_small(response.body()) => {
            Rewrite::Read(Box::pin(complete(response, asked, Arc::clone(shared))))
        }
        ContentType::Problem | ContentType::Other => Rewrite::Done(response),
    }
}

/// The answer to a request whose handler panicked. The message goes to the log alone.
pub(super) fn panicked(
    payload: &(dyn Any + Send),
    mut asked: Asked,
    shared: &Arc<Shared>,
) -> Response<Body> {
    let error = Error::panicked(payload);
    let problem = error.to_problem();
    let mut response = Response::new(Body::empty());
    let id = asked.id().to_header();
    response.headers_mut().insert(REQUEST_ID, id);
    finish(response, problem, Some(&error), asked, shared)
}

/// Completes a document of ours whose failure was lost on the way: its bytes were recorded and
/// replayed, or another layer copied the response. A document of anybody else stays as it is.
async fn complete(response: Response<Body>, asked: Asked, shared: Arc<Shared>) -> Response<Body> {
    let (parts, body) = response.into_parts();
    // Of a body that breaks off, or is larger than it said, only the status is left to tell.
    let Some(read) = collected(body).await else {
        let problem = http_codes::for_status(parts.status.as_u16()).to_problem();
        let response = Response::from_parts(parts, Body::empty());
        return finish(response, problem, None, asked, &shared);
    };
    let trailers = read.trailers().cloned();
    let bytes = read.to_bytes();
    if !is_incomplete(&bytes) {
        let body = match trailers {
            Some(trailers) => {
                Body::new(Full::new(bytes).with_trailers(async { Some(Ok(trailers)) }))
            }
            None => Body::from(bytes),
        };
        return Response::from_parts(parts, body);
    }
    let problem = Problem::read_document(parts.status.as_u16(), Some(PROBLEM_JSON), &bytes);
    let response = Response::from_parts(parts, Body::empty());
    finish(response, problem, None, asked, &shared)
}

/// The body whole; `None` when it fails, panics, or goes on after what it said is its end.
async fn collected(body: Body) -> Option<Collected<Bytes>> {
    let mut reading = pin!(Limited::new(body, DOCUMENT_BYTES_MAX).collect());
    poll_fn(|cx| match unwound(|| reading.as_mut().poll(cx)) {
        Ok(polled) => polled.map(Result::ok),
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// Logs the problem and puts it into the response, into its extensions too.
fn finish(
    response: Response<Body>,
    problem: Problem,
    error: Option<&Error>,
    mut asked: Asked,
    shared: &Shared,
) -> Response<Body> {
    let mut problem = problem
        .with_default_type_base(&shared.type_base)
        .with_request_id(asked.id().clone());
    // Under its own status, that is: one that a handler put around it stays.
    if problem.code() == VALIDATION_FAILED.code() && problem.status() == VALIDATION_FAILED.status()
    {
        problem = problem.with_status(shared.validation_status);
    }
    shared.log.log(&problem, error);
    let (mut parts, _) = response.into_parts();
    parts.status = problem.status_code();
    drop_representation(parts.status, &mut parts.headers);
    if let Some(localize) = &shared.localize {
        let asked = asked.accept_language.as_ref();
        problem = localized(&**localize, problem, asked, &mut parts.headers);
    }
    headers::complete(parts.status, &mut parts.headers, shared);
    let body = represent(&problem, &mut parts.headers);
    parts.extensions.insert(problem);
    Response::from_parts(parts, if asked.is_head { Body::empty() } else { body })
}

/// A document of ours under a status that is no failure.
fn is_wrapped(response: &Response<Body>) -> bool {
    response.extensions().get::<Failure>().is_some()
        && matches!(content_type(response), ContentType::Problem)
}

/// gRPC says in trailers how a call went; its status is 200 and its headers are its own.
fn is_grpc(response: &Response<Body>) -> bool {
    response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// What the other layer asked callers to wait, in seconds. A date stays where it is, in the header.
fn wait_of(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    value
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| value.parse::<u64>().ok())
        .flatten()
        .map(Duration::from_secs)
}

enum ContentType {
    /// None, or plain text: what frameworks answer with when nobody said anything.
    Bare,
    Problem,
    Other,
}

fn content_type(response: &Response<Body>) -> ContentType {
    let Some(value) = response.headers().get(header::CONTENT_TYPE) else {
        return ContentType::Bare;
    };
    let essence = essence(value.to_str().unwrap_or_default());
    if essence.eq_ignore_ascii_case("text/plain") {
        ContentType::Bare
    } else if essence.eq_ignore_ascii_case(PROBLEM_JSON) {
        ContentType::Problem
    } else {
        ContentType::Other
    }
}

/// Small enough to be read whole, and known to be.
fn is_small(body: &Body) -> bool {
    body.size_hint()
        .upper()
        .is_some_and(|bytes| bytes <= DOCUMENT_BYTES_MAX as u64)
}

/// A document of ours: it has the members that only we write, and no request id yet.
fn is_incomplete(bytes: &[u8]) -> bool {
    let Ok(Value::Object(members)) = serde_json::from_slice::<Value>(bytes) else {
        return false;
    };
    let has = |name| members.get(name).is_some_and(Value::is_string);
    has("code") && has("retry") && has("outcome") && !members.contains_key("request_id")
}

impl Problem {
    /// A handler may have put another status around its problem; document and response must agree.
    fn under_status(self, status: u16) -> Self {
        if self.category().allows_status(status) && StatusCode::from_u16(status).is_ok() {
            self.with_status(status)
        } else {
            self
        }
    }
}
