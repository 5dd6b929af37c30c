//! What the error envelope costs beside the least that somebody would write by hand.
//!
//! ```sh
//! cargo bench --bench error_envelope
//! ```
//!
//! Each group's first line is the lower bound; compare within one run. The bar: `encode/mainstay` within 15 % of
//! `encode/by_hand`, which write the same bytes.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::convert::Infallible;
use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use http::{Request, StatusCode};
use mainstay::errors::{Category, Error, Fault, PROBLEM_JSON, Problem, ProblemLayer};
use serde::{Deserialize, Serialize};
use tower::{Layer, Service, service_fn};

/// Just this document, by hand.
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

/// The same as it is kept when it was read.
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

fn by_hand() -> Bytes {
    serde_json::to_vec(black_box(&BY_HAND)).unwrap().into()
}

fn encode(c: &mut Criterion) {
    let problem =
        Problem::new(Category::NotFound, "order_not_found").with_detail("There is no order 7.");
    assert_eq!(problem.to_bytes(), by_hand());
    let mut group = c.benchmark_group("encode");
    group.bench_function("by_hand", |b| b.iter(by_hand));
    group.bench_function("mainstay", |b| b.iter(|| black_box(&problem).to_bytes()));
    group.finish();
}

fn make(c: &mut Criterion) {
    let fault = |id| Error::from(OrderError::OrderNotFound { id });
    let mut group = c.benchmark_group("make");
    group.bench_function("fault_to_problem", |b| {
        b.iter(|| fault(black_box(7)).to_problem());
    });
    group.bench_function("axum_json_response", |b| {
        b.iter(|| (StatusCode::NOT_FOUND, Json(black_box(&BY_HAND))).into_response());
    });
    group.bench_function("fault_response", |b| {
        b.iter(|| fault(black_box(7)).into_response());
    });
    group.finish();
}

fn decode(c: &mut Criterion) {
    let body = by_hand();
    let mut group = c.benchmark_group("decode");
    group.bench_function("by_hand", |b| {
        b.iter(|| serde_json::from_slice::<Read>(black_box(&body)).unwrap());
    });
    group.bench_function("mainstay", |b| {
        b.iter(|| Problem::read_document(404, Some(PROBLEM_JSON), black_box(&body)));
    });
    group.finish();
}

/// Nothing here waits, so one poll is all of it.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("a service that answers at once"),
    }
}

async fn answer(_: Request<()>) -> Result<Response, Infallible> {
    Ok(Response::new(Body::empty()))
}

fn success(c: &mut Criterion) {
    let mut bare = service_fn(answer);
    let mut layered = ProblemLayer::default().layer(service_fn(answer));
    let request = || {
        // With an id, as behind a proxy that gives one; without, one is made.
        let request = Request::get("/").header("x-request-id", "01a1fd50-3db7-71da");
        request.body(()).unwrap()
    };
    let mut group = c.benchmark_group("success");
    group.bench_function("bare", |b| b.iter(|| now(bare.call(request()))));
    group.bench_function("problem_layer", |b| {
        b.iter(|| now(layered.call(request())));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = encode, make, decode, success
}
criterion_main!(benches);
