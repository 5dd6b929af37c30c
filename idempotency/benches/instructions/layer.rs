//! What the layer adds to a request that it has nothing to do with.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use axum::body::Body;
use http::{Method, Request, Response};
use mainstay_idempotency::{IdempotencyLayer, IdempotencyService, Scope};
use sqlx::Sqlite;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use tower::{Layer, Service};

use crate::Operation;

pub const OPERATIONS: &[Operation] = &[
    // The lower bound: what remains without the layer.
    ("bare", |n| calls(Inner, &Method::POST, n)),
    ("no key", |n| with_layer(&Method::POST, n)),
    ("other method", |n| with_layer(&Method::GET, n)),
];

/// Ready at once, and too opaque to be optimised away.
#[derive(Clone, Copy)]
struct Inner;

impl Service<Request<Body>> for Inner {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[inline(never)]
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        ready(Ok(Response::new(black_box(request).into_body())))
    }
}

fn with_layer(method: &Method, iterations: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    // Nothing connects: a request without a key asks for no connection.
    let _entered = runtime.enter();
    let pool = SqlitePoolOptions::new().connect_lazy_with(SqliteConnectOptions::new());
    let service: IdempotencyService<Inner, Sqlite> = IdempotencyLayer::local(pool)
        .required(false)
        .scope(|_| Ok(Scope::new("t", "", "o")))
        .layer(Inner);
    calls(service, method, iterations);
}

/// So many calls. The body goes round, so that nothing is made anew for a request.
fn calls<S>(mut service: S, method: &Method, iterations: u64)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let mut cx = Context::from_waker(Waker::noop());
    let mut body = Some(Body::empty());
    for _ in 0..iterations {
        let mut request = Request::new(body.take().unwrap_or_default());
        request.method_mut().clone_from(method);
        body = Some(call(&mut service, request, &mut cx).into_body());
    }
}

/// `poll_ready`, `call` and one poll. Not inlined: with the layer and without it the request comes in memory and the
/// response goes there, so that what this program moves is not counted as the layer's.
#[inline(never)]
fn call<S>(service: &mut S, request: Request<Body>, cx: &mut Context<'_>) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let Poll::Ready(Ok(())) = service.poll_ready(cx) else {
        panic!("not ready");
    };
    match pin!(service.call(request)).poll(cx) {
        Poll::Ready(Ok(response)) => response,
        _ => panic!("not at once"),
    }
}
