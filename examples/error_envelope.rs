//! One truth about a failure: an enum of yours becomes problem documents (RFC 9457) over an axum router, statuses with
//! google.rpc details over gRPC, and the same enum again in the client that reads either.
//!
//! Run it with `cargo run --example error_envelope`. It needs neither a server nor a database.
//!
//! It prints:
//!
//! ```text
//! # A domain error
//! GET /orders/7 -> 404 Not Found
//! content-type: application/problem+json
//! {"type":"/problems/order_not_found","title":"Order not found","status":404,"detail":"order 7 not found","code":"order_not_found","retry":"never","outcome":"not_applied","request_id":"example-1","order_id":7}
//!
//! # Values that do not fit their types, all at once
//! POST /orders -> 422 Unprocessable Entity
//! content-type: application/problem+json
//! {"type":"/problems/validation_failed","title":"Validation failed","status":422,"code":"validation_failed","retry":"never","outcome":"not_applied","request_id":"example-1","errors":[{"pointer":"/amount","location":"body","code":"wrong_type","detail":"must be an integer"},{"pointer":"/item","location":"body","code":"wrong_type","detail":"must be a string"}]}
//!
//! # Values that break the rules of the domain
//! POST /orders -> 422 Unprocessable Entity
//! content-type: application/problem+json
//! {"type":"/problems/validation_failed","title":"Validation failed","status":422,"code":"validation_failed","retry":"never","outcome":"not_applied","request_id":"example-1","errors":[{"pointer":"/item","location":"body","code":"empty"},{"pointer":"/amount","location":"body","code":"too_small","detail":"must be at least 1"}]}
//!
//! # A failure whose cause is nobody's business
//! POST /orders -> 503 Service Unavailable
//! content-type: application/problem+json
//! retry-after: 2
//! {"type":"/problems/provider_down","title":"Provider down","status":503,"code":"provider_down","retry":"after","retry_after":2,"outcome":"not_applied","request_id":"example-1"}
//!
//! # A path nobody serves: the framework's own 404
//! GET /invoices -> 404 Not Found
//! content-type: application/problem+json
//! {"type":"/problems/not_found","title":"Not found","status":404,"code":"not_found","retry":"never","outcome":"not_applied","request_id":"example-1"}
//!
//! # The same two errors over gRPC
//! NotFound: order 7 not found
//! ErrorInfo: ORDER_NOT_FOUND of orders.example.com
//!   order_id: 7
//!   outcome: not_applied
//!   retry: never
//!
//! Unavailable: Provider down
//! ErrorInfo: PROVIDER_DOWN of orders.example.com
//!   outcome: not_applied
//!   retry: after
//! RetryInfo: 2s
//!
//! # What the client makes of them
//! HTTP 404: known, OrderNotFound: order 7 can be forgotten
//! gRPC 5:   known, OrderNotFound: order 7 can be forgotten
//! HTTP 503: unknown, provider_down: ask again in 2s, outcome not_applied
//! gRPC 14:  unknown, provider_down: ask again in 2s, outcome not_applied
//! gRPC 8:   unknown, warehouse_full: ask again in 30s, outcome not_applied
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{collections::BTreeMap, error::Error};

use axum::{
    Router,
    body::Body,
    http::Request,
    routing::{get, post},
};
use http_body_util::BodyExt;
use mainstay::errors::{
    Decoded, Fault, Json, Path, Problem, ProblemLayer, Registry, Retry, Violation, Violations,
};
use tonic::Status;
use tonic_types::StatusExt;
use tower::ServiceExt;

/// Every way in which an order can fail. What a caller needs to know is decided here, where the error is
/// declared, and not where it is handled. Server and client share it.
#[derive(Debug, thiserror::Error, Fault)]
#[fault(decode, domain = "orders.example.com")] // clients have it back; on gRPC, these codes are ours
enum OrderError {
    /// No order has this id. (A doc comment becomes the text of the code's own page.)
    #[error("order {id} not found")]
    #[fault(not_found, public)] // public: this text may be sent
    OrderNotFound {
        #[fault(ext = "order_id")] // sent as a member of the document
        id: u64,
    },
    /// The payment provider does not answer.
    #[error("provider 10.0.0.7 is down")] // not public: this text and the cause are logged, never sent
    #[fault(unavailable, retry_after = "2s", outcome = not_applied)]
    ProviderDown(#[source] std::io::Error),
    #[error(transparent)]
    #[fault(delegate)] // whatever the field is: here a 422 that names each wrong value
    Invalid(#[from] Violations),
}

#[derive(serde::Deserialize)]
struct NewOrder {
    item: String,
    amount: i64,
}

/// The derive makes the enum a response, so a handler returns it as it is.
async fn find(Path(id): Path<u64>) -> Result<&'static str, OrderError> {
    if id == 1 {
        Ok("an umbrella")
    } else {
        Err(OrderError::OrderNotFound { id })
    }
}

/// `Json` is mainstay's own extractor: it names every member that does not fit, not just the first.
async fn create(Json(order): Json<NewOrder>) -> Result<&'static str, OrderError> {
    // Rules of the domain are collected as well, so that a caller mends everything in one go.
    let mut wrong = Violations::new();
    if order.item.is_empty() {
        wrong.push(Violation::body("/item", "empty"));
    }
    if order.amount < 1 {
        wrong.push(Violation::body("/amount", "too_small").with_detail("must be at least 1"));
    }
    wrong.into_result()?;
    Err(OrderError::ProviderDown(std::io::Error::other(
        "password of the provider refused",
    )))
}

/// Asks the router in this process, prints what comes back, and reads it as a client would.
async fn show(
    app: &Router,
    method: &str,
    path: &str,
    body: &'static str,
) -> Result<Problem, Box<dyn Error>> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .header("x-request-id", "example-1") // taken over; without it the layer makes one
        .body(Body::from(body))?;
    let (head, body) = app.clone().oneshot(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    println!("{method} {path} -> {}", head.status);
    for name in ["content-type", "retry-after"] {
        if let Some(value) = head.headers.get(name) {
            println!("{name}: {}", value.to_str()?);
        }
    }
    println!("{}\n", String::from_utf8_lossy(&body));
    Ok(Problem::read(head.status.as_u16(), &head.headers, &body))
}

/// What gRPC clients of any language see of the same error.
fn show_status(status: &Status) {
    println!("{:?}: {}", status.code(), status.message());
    if let Some(info) = status.get_details_error_info() {
        println!("ErrorInfo: {} of {}", info.reason, info.domain);
        for (name, value) in BTreeMap::from_iter(info.metadata) {
            println!("  {name}: {value}");
        }
    }
    if let Some(wait) = status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay)
    {
        println!("RetryInfo: {wait:?}");
    }
    println!();
}

/// A client of this service: it matches on the enum, not on strings, and does not mind which wire it came by.
fn understand(problem: Problem) -> String {
    match problem.decode() {
        Decoded::Known(OrderError::OrderNotFound { id }) => {
            format!("known, OrderNotFound: order {id} can be forgotten")
        }
        Decoded::Known(other) => format!("known, {other:?}"),
        // A newer server, a proxy, or an error with a cause, which stays at home. What may be done is said all the same.
        Decoded::Unknown(problem) => {
            let advice = match problem.retry() {
                Retry::After(wait) => format!("ask again in {wait:?}"),
                other => format!("retry {}", other.as_str()),
            };
            let outcome = problem.outcome().as_str();
            format!("unknown, {}: {advice}, outcome {outcome}", problem.code())
        }
    }
}

/// An error of next year's service, which this client was not built with.
#[derive(Debug, thiserror::Error, Fault)]
#[fault(domain = "orders.example.com")]
#[error("the warehouse is full")]
#[fault(code = "warehouse_full", resource_exhausted, retry_after = "30s")]
struct WarehouseFull;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The registry knows every code; it serves the pages that `type` points at.
    let registry = Registry::new().with::<OrderError>();
    let app = Router::new()
        .route("/orders", post(create))
        .route("/orders/{id}", get(find))
        .merge(registry.pages("/problems"))
        .layer(ProblemLayer::new(&registry)); // outermost: whatever fails inside comes out as a document

    println!("# A domain error");
    let not_found = show(&app, "GET", "/orders/7", "").await?;

    println!("# Values that do not fit their types, all at once");
    show(&app, "POST", "/orders", r#"{"item": 5, "amount": "x"}"#).await?;

    println!("# Values that break the rules of the domain");
    show(&app, "POST", "/orders", r#"{"item": "", "amount": 0}"#).await?;

    println!("# A failure whose cause is nobody's business");
    let order = r#"{"item": "umbrella", "amount": 1}"#;
    let unavailable = show(&app, "POST", "/orders", order).await?;

    println!("# A path nobody serves: the framework's own 404");
    show(&app, "GET", "/invoices", "").await?;

    println!("# The same two errors over gRPC");
    let missing = Status::from(OrderError::OrderNotFound { id: 7 });
    show_status(&missing);
    let cause = std::io::Error::other("password of the provider refused");
    let down = Status::from(OrderError::ProviderDown(cause));
    show_status(&down);

    println!("# What the client makes of them");
    println!("HTTP 404: {}", understand(not_found));
    println!("gRPC 5:   {}", understand(Problem::from(missing)));
    println!("HTTP 503: {}", understand(unavailable));
    println!("gRPC 14:  {}", understand(Problem::from(down)));
    println!(
        "gRPC 8:   {}",
        understand(Problem::from(Status::from(WarehouseFull)))
    );
    Ok(())
}
