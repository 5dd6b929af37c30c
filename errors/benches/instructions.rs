//! What one operation costs in instructions, which a loaded machine does not change: run it under callgrind.
//!
//! ```sh
//! cargo bench -p mainstay-errors --features axum --bench instructions --no-run   # prints where the program is
//! for n in 1000 3000; do valgrind --tool=callgrind --callgrind-out-file=/dev/null PROGRAM decode $n; done
//! ```
//!
//! Instructions per operation are the difference of the two totals over the difference of the two counts: start-up
//! cancels out. Without arguments every operation runs a few times, so that a broken one is noticed.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench"
)]

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{Request, StatusCode};
use mainstay_errors::{Category, Error, Fault, PROBLEM_JSON, Problem, ProblemLayer};
use serde::{Deserialize, Serialize};
use tower::{Layer, Service, service_fn};

/// Just this document, by hand: the lower bound of writing it.
#[derive(Serialize)]
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
    r#type: "/problems/order_not_found",
    title: "Order not found",
    status: 404,
    detail: "There is no order 7.",
    code: "order_not_found",
    retry: "never",
    outcome: "not_applied",
};

/// The lower bound of reading it, kept when the body is gone.
#[derive(Deserialize)]
#[expect(dead_code, reason = "only read into")]
struct Read {
    r#type: String,
    title: String,
    status: u16,
    detail: String,
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

fn problem() -> Problem {
    Problem::new(Category::NotFound, "order_not_found").with_detail("There is no order 7.")
}

fn body() -> Bytes {
    serde_json::to_vec(black_box(&BY_HAND)).unwrap().into()
}

fn times<T>(n: u64, mut operation: impl FnMut() -> T) {
    for _ in 0..n {
        black_box(operation());
    }
}

fn encode(n: u64) {
    let problem = problem();
    assert_eq!(problem.to_bytes(), body());
    times(n, || black_box(&problem).to_bytes());
}

fn encode_by_hand(n: u64) {
    times(n, body);
}

fn decode(n: u64) {
    let body = body();
    times(n, || {
        Problem::read_document(404, Some(PROBLEM_JSON), black_box(&body))
    });
}

fn decode_by_hand(n: u64) {
    let body = body();
    times(n, || {
        serde_json::from_slice::<Read>(black_box(&body)).unwrap()
    });
}

fn respond(n: u64) {
    times(n, || {
        Error::from(OrderError::OrderNotFound { id: black_box(7) }).into_response()
    });
}

fn respond_problem(n: u64) {
    times(n, || problem().into_response());
}

fn respond_by_hand(n: u64) {
    times(n, || {
        let detail = format!("There is no order {}.", black_box(7));
        let by_hand = ByHand {
            detail: &detail,
            ..BY_HAND
        };
        (StatusCode::NOT_FOUND, Json(&by_hand)).into_response()
    });
}

fn answer(_: Request<Body>) -> Ready<Result<Response, Infallible>> {
    ready(Ok(Response::new(Body::empty())))
}

/// Nothing here waits, so one poll is all of a call.
fn call<S: Service<Request<Body>, Response = Response>>(n: u64, mut service: S) {
    times(n, || {
        // With an id, as behind a proxy that gives one.
        let request = Request::get("/").header("x-request-id", "01a1fd50-3db7-71da");
        let future = pin!(service.call(request.body(Body::empty()).unwrap()));
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => answer.is_ok(),
            Poll::Pending => unreachable!("a service that answers at once"),
        }
    });
}

fn success(n: u64) {
    call(n, ProblemLayer::default().layer(service_fn(answer)));
}

fn success_bare(n: u64) {
    call(n, service_fn(answer));
}

/// What runs so many times.
type Operation = fn(u64);

const OPERATIONS: [(&str, Operation); 9] = [
    ("encode", encode),
    ("encode_by_hand", encode_by_hand),
    ("decode", decode),
    ("decode_by_hand", decode_by_hand),
    ("respond", respond),
    ("respond_problem", respond_problem),
    ("respond_by_hand", respond_by_hand),
    ("success", success),
    ("success_bare", success_bare),
];

fn main() {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    if let [name, n] = arguments.as_slice() {
        let (_, run) = OPERATIONS.iter().find(|(known, _)| known == name).unwrap();
        run(n.parse().unwrap());
    } else {
        for (name, run) in OPERATIONS {
            run(10);
            println!("{name}");
        }
    }
}
