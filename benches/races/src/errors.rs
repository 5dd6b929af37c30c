//! The error envelope: writing and reading one problem document, and the size of the error types.

use std::convert::Infallible;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::HeaderValue;
use http_api_problem::{ApiError, HttpApiProblem};
use mainstay_errors::{Category, Error, Fault, PROBLEM_JSON, Problem, ProblemLayer};
use problem_details::ProblemDetails;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tower::{Layer, Service, service_fn};

use crate::race::{contestant, is_counted, run};

const TYPE: &str = "/problems/order_not_found";
const TITLE: &str = "Order not found";
const DETAIL: &str = "There is no order 7.";
const CODE: &str = "order_not_found";

/// What somebody writes by hand who needs just this document: the lower bound.
#[derive(Serialize, Deserialize)]
struct ByHand<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    retry: &'a str,
    outcome: &'a str,
}

const BY_HAND: ByHand<'static> = ByHand {
    r#type: TYPE,
    title: TITLE,
    status: 404,
    detail: DETAIL,
    code: CODE,
    retry: "never",
    outcome: "not_applied",
};

/// The same, owned: what can be kept after the body is gone.
#[derive(Deserialize)]
#[expect(dead_code, reason = "only read into")]
struct ByHandOwned {
    r#type: String,
    title: String,
    status: u16,
    detail: String,
    code: String,
    retry: String,
    outcome: String,
}

#[derive(Serialize, Deserialize)]
struct Extensions {
    code: String,
    retry: String,
    outcome: String,
}

#[derive(Debug, thiserror::Error, Fault)]
enum OrderError {
    #[error("There is no order {id}.")]
    #[fault(not_found, public)]
    OrderNotFound { id: u64 },
}

fn ours() -> Problem {
    Problem::new(Category::NotFound, CODE).with_detail(DETAIL)
}

fn problem_details() -> ProblemDetails<Extensions> {
    ProblemDetails::new()
        .with_type(http::Uri::from_static(TYPE))
        .with_title(TITLE)
        .with_status(http::StatusCode::NOT_FOUND)
        .with_detail(DETAIL)
        .with_extensions(Extensions {
            code: CODE.to_owned(),
            retry: "never".to_owned(),
            outcome: "not_applied".to_owned(),
        })
}

fn http_api_problem() -> HttpApiProblem {
    HttpApiProblem::new(http::StatusCode::NOT_FOUND)
        .type_url(TYPE)
        .title(TITLE)
        .detail(DETAIL)
        .value("code", &CODE)
        .value("retry", &"never")
        .value("outcome", &"not_applied")
}

pub fn race() {
    let (mainstay, pd, hap) = (ours(), problem_details(), http_api_problem());
    let body = mainstay.to_bytes();
    check(&body, &pd, &hap);

    run(
        "encode a document that is there",
        vec![
            contestant("hand-written struct", || {
                bytes::Bytes::from(serde_json::to_vec(&BY_HAND).unwrap()).len()
            }),
            contestant("mainstay-errors", || mainstay.to_bytes().len()),
            contestant("problem_details 0.11", || {
                bytes::Bytes::from(serde_json::to_vec(&pd).unwrap()).len()
            }),
            contestant("http-api-problem 0.60", || {
                bytes::Bytes::from(hap.json_bytes()).len()
            }),
        ],
    );
    run(
        "make and encode",
        vec![
            contestant("hand-written struct", || {
                let detail = format!("There is no order {}.", std::hint::black_box(7));
                let by_hand = ByHand {
                    detail: &detail,
                    ..BY_HAND
                };
                bytes::Bytes::from(serde_json::to_vec(&by_hand).unwrap()).len()
            }),
            contestant("mainstay-errors, derived fault", || {
                let fault = OrderError::OrderNotFound {
                    id: std::hint::black_box(7),
                };
                Error::from(fault).to_problem().to_bytes().len()
            }),
            contestant("mainstay-errors, Problem", || ours().to_bytes().len()),
            contestant("problem_details 0.11", || {
                bytes::Bytes::from(serde_json::to_vec(&problem_details()).unwrap()).len()
            }),
            contestant("http-api-problem 0.60", || {
                bytes::Bytes::from(http_api_problem().json_bytes()).len()
            }),
        ],
    );
    run(
        "axum response",
        vec![
            contestant("axum::Json of the hand-written struct", || {
                let answer = (http::StatusCode::NOT_FOUND, Json(&BY_HAND)).into_response();
                answer.headers().len()
            }),
            contestant("mainstay-errors", || {
                mainstay.clone().into_response().headers().len()
            }),
            contestant("problem_details 0.11", || {
                problem_details().into_response().headers().len()
            }),
            contestant("http-api-problem 0.60", || {
                hap.to_axum_response().headers().len()
            }),
        ],
    );
    run(
        "decode",
        vec![
            contestant("hand-written struct, owned", || {
                let read: ByHandOwned = serde_json::from_slice(&body).unwrap();
                read.code.len()
            }),
            contestant("mainstay-errors", || {
                Problem::read_document(404, Some(PROBLEM_JSON), &body)
                    .code()
                    .len()
            }),
            contestant("problem_details 0.11", || {
                let read: ProblemDetails<Extensions> = serde_json::from_slice(&body).unwrap();
                read.extensions.code.len()
            }),
            contestant("http-api-problem 0.60", || {
                let read: HttpApiProblem = serde_json::from_slice(&body).unwrap();
                read.additional_fields().len()
            }),
        ],
    );

    success();
    if is_counted() {
        return;
    }
    println!("size of the error type, in bytes");
    for (name, bytes) in [
        ("mainstay_errors::Error", size_of::<Error>()),
        ("mainstay_errors::Problem", size_of::<Problem>()),
        (
            "problem_details::ProblemDetails",
            size_of::<ProblemDetails>(),
        ),
        (
            "http_api_problem::HttpApiProblem",
            size_of::<HttpApiProblem>(),
        ),
        ("http_api_problem::ApiError", size_of::<ApiError>()),
    ] {
        println!("  {name:<42} {bytes:>9}");
    }
    println!();
}

/// What the layer costs a request that it has nothing to do with.
fn success() {
    // As hyper reads it, with an id that a proxy has given: the headers share the bytes of the head.
    let head = Bytes::from(b"localhost 01a1fd50-3db7-71da".to_vec());
    let request = || {
        let part = |range| HeaderValue::from_maybe_shared(head.slice(range)).unwrap();
        let request = http::Request::get("/").header("host", part(0..9));
        request
            .header("x-request-id", part(10..28))
            .body(())
            .unwrap()
    };
    let mut alone = service_fn(answer);
    let mut layered = ProblemLayer::default().layer(service_fn(answer));
    run(
        "a success under the layer",
        vec![
            contestant("the service alone", || now(alone.call(request()))),
            contestant("mainstay-errors, ProblemLayer", || {
                now(layered.call(request()))
            }),
        ],
    );
}

/// With a header, as every answer has.
async fn answer(_: http::Request<()>) -> Result<Response, Infallible> {
    let mut answer = Response::new(Body::empty());
    let etag = HeaderValue::from_static("\"1\"");
    answer.headers_mut().insert("etag", etag);
    Ok(answer)
}

/// Nothing here waits, so one poll is all of it.
fn now(future: impl Future<Output = Result<Response, Infallible>>) -> usize {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(answer)) => usize::from(answer.status().as_u16()),
        Poll::Ready(Err(_)) | Poll::Pending => unreachable!("a service that answers at once"),
    }
}

/// The contestants write the same document and read the same members; ours writes the hand-written bytes.
fn check(body: &[u8], pd: &ProblemDetails<Extensions>, hap: &HttpApiProblem) {
    let by_hand = serde_json::to_vec(&BY_HAND).unwrap();
    assert_eq!(
        String::from_utf8_lossy(body),
        String::from_utf8_lossy(&by_hand)
    );
    let fault = Error::from(OrderError::OrderNotFound { id: 7 });
    assert_eq!(fault.to_problem().to_bytes(), body);
    let document: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(serde_json::to_value(pd).unwrap(), document);
    assert_eq!(serde_json::to_value(hap).unwrap(), document);

    let read: ProblemDetails<Extensions> = serde_json::from_slice(body).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), document);
    let read: HttpApiProblem = serde_json::from_slice(body).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), document);
    let read = Problem::read_document(404, Some(PROBLEM_JSON), body);
    assert_eq!(read.to_bytes(), body);
}
