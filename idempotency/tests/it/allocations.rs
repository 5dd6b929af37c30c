//! A request that has no key costs no allocation of the layer's.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use axum::body::Body;
use http::{Method, Request, Response};
use mainstay_idempotency::{IdempotencyLayer, Scope};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use tower::{Layer, Service};

#[derive(Clone, Copy)]
struct Echo;

impl Service<Request<Body>> for Echo {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        ready(Ok(Response::new(request.into_body())))
    }
}

fn allocations<S>(mut service: S, method: &Method) -> u64
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let mut cx = Context::from_waker(Waker::noop());
    let mut call = || {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method.clone();
        assert!(service.poll_ready(&mut cx).is_ready());
        assert!(pin!(service.call(request)).poll(&mut cx).is_ready());
    };
    call();
    allocation_counter::measure(|| (0..10).for_each(|_| call())).count_total
}

#[tokio::test]
async fn a_request_without_a_key_costs_no_allocation() {
    let pool = SqlitePoolOptions::new().connect_lazy_with(SqliteConnectOptions::new());
    let layer = IdempotencyLayer::<sqlx::Sqlite>::local(pool)
        .required(false)
        .scope(|_| Ok(Scope::new("t", "", "o")))
        .route("/elsewhere", |route| route.required(true));
    for method in [Method::POST, Method::PATCH, Method::GET] {
        let bare = allocations(Echo, &method);
        assert_eq!(allocations(layer.layer(Echo), &method), bare, "{method}");
    }
}
