//! What the layer costs a call that succeeds: nothing.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::task::{Context, Poll, Waker};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::Response;
use axum::routing::get;
use http::{HeaderValue, Request, StatusCode};
use mainstay_errors::{ProblemLayer, RequestId, RequestIds};
use tower::util::MapRequestLayer;
use tower::{Layer, Service, service_fn};

/// Allocations of one call, the request's own left out. The first call is not counted: it fills what is kept for the
/// next ones.
fn allocations<S>(mut service: S, request: impl Fn() -> Request<Body>) -> u64
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    let mut call = |request: Request<Body>| {
        let mut future = std::pin::pin!(service.call(request));
        match future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(Ok(response)) => assert_eq!(response.status().as_u16() / 100, 2),
            Poll::Pending => panic!("nothing here waits"),
        }
    };
    call(request());
    let request = request();
    allocation_counter::measure(|| call(request)).count_total
}

/// A request as hyper reads it: the header is a part of the bytes of the whole head.
fn with(headers: &[(&'static str, &str)]) -> Request<Body> {
    let mut request = Request::get("/").body(Body::empty()).unwrap();
    let host = HeaderValue::from_static("localhost");
    request.headers_mut().insert("host", host);
    for (name, value) in headers {
        let head = Bytes::from(format!("GET / HTTP/1.1\r\n{name}: {value}\r\n\r\n"));
        let at = "GET / HTTP/1.1\r\n".len() + name.len() + 2;
        let value = HeaderValue::from_maybe_shared(head.slice(at..at + value.len())).unwrap();
        // Another header shares the bytes, as there always is one.
        let agent = HeaderValue::from_maybe_shared(head.slice(0..3)).unwrap();
        request.headers_mut().insert("user-agent", agent);
        request.headers_mut().insert(*name, value);
    }
    request
}

const REQUESTS: [(&str, &[(&str, &str)]); 5] = [
    ("no id", &[]),
    ("an id", &[("x-request-id", "r-1")]),
    ("a malformed id", &[("x-request-id", "r 1")]),
    (
        "a trace",
        &[(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )],
    ),
    ("a language", &[("accept-language", "de")]),
];

async fn headers() -> ([(&'static str, &'static str); 2], &'static str) {
    ([("etag", "\"1\""), ("cache-control", "private")], "hello")
}

/// As `axum::serve` does: without it, each call puts the layers around the handler anew.
fn served(router: Router) -> Router {
    router.with_state(())
}

#[test]
fn a_success_of_a_router_is_not_allocated_for() {
    for (path, handler) in [
        ("headers", get(headers)),
        ("no headers", get(|| async { StatusCode::NO_CONTENT })),
        ("nothing", get(|| async {})),
    ] {
        let router = served(Router::new().route("/", handler));
        for (name, headers) in REQUESTS {
            let name = format!("{path}, {name}");
            let request = || with(headers);
            // axum itself allocates for whatever is layered inside of a router.
            let nothing = MapRequestLayer::new(|request: Request<Body>| request);
            let without = allocations(served(router.clone().layer(nothing)), request);
            let inside = allocations(
                served(router.clone().layer(ProblemLayer::default())),
                request,
            );
            assert_eq!(inside, without, "as a layer of the router: {name}");
            let without = allocations(router.clone(), request);
            let around = allocations(ProblemLayer::default().layer(router.clone()), request);
            assert_eq!(around, without, "around the router: {name}");
        }
    }
}

fn respond(fill: bool) -> Ready<Result<Response, Infallible>> {
    let mut response = Response::new(Body::empty());
    if fill {
        let etag = HeaderValue::from_static("\"1\"");
        response.headers_mut().insert("etag", etag);
    }
    ready(Ok(response))
}

/// Below a router there is nobody who adds a header anyway.
#[test]
fn only_a_given_id_in_headers_that_have_no_place_costs_that_place() {
    for fill in [true, false] {
        let service = service_fn(move |_: Request<Body>| respond(fill));
        let layered = ProblemLayer::default().layer(service);
        for (name, headers) in REQUESTS {
            let request = || with(headers);
            let cost = allocations(layered.clone(), request) - allocations(service, request);
            let place = u64::from(name == "an id" && !fill) * 2;
            assert_eq!(cost, place, "filled {fill}, {name}");
        }
    }
}

/// The figure that the documentation of `RequestIds::OnArrival` gives.
#[test]
fn an_id_that_is_made_on_arrival_is_allocated_for() {
    let service = service_fn(|_: Request<Body>| respond(true));
    let made = ProblemLayer::default().request_ids(RequestIds::OnArrival);
    let without = allocations(service, || with(&[]));
    assert_eq!(allocations(made.layer(service), || with(&[])) - without, 5);
}

#[test]
fn a_handler_that_asks_for_the_given_id_does_not_allocate_for_it() {
    let asks = Router::new().route("/", get(|_: RequestId| async {}));
    let does_not = Router::new().route("/", get(|_: http::Method| async {}));
    let cost = |router: Router| {
        let layered = router.layer(ProblemLayer::default());
        allocations(served(layered), || with(&[("x-request-id", "r-1")]))
    };
    assert_eq!(cost(asks), cost(does_not));
}
