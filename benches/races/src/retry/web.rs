//! Retry of reqwest's own requests, answered at the bottom without a network.

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Extensions;
use mainstay_retry::{RetryLayer, TokenBudget};
use reqwest::{Method, Request, Response, Url};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use reqwest_retry::{RetryTransientMiddleware, policies::ExponentialBackoff};
use tower::retry::Retry;
use tower::{Layer, Service};

use super::tries_once;
use crate::by_hand::{self, Tokens};
use crate::race::{Contestant, is_counted, prepared, run};
use crate::service::{Failed, finish};
use crate::tower_policy::{TowerPolicy, exponential};

pub fn race() {
    if !is_counted() {
        check();
    }
    run("a GET of reqwest's", contestants(&Canned::default()));
}

fn contestants(canned: &Canned) -> Vec<Contestant<'static>> {
    vec![
        service("hand-written", canned, |canned| {
            by_hand::Retry::new(canned, Tokens::shared(), is_ill)
        }),
        service(super::ALONE, canned, |canned| canned),
        service("mainstay, token budget", canned, |canned| {
            let budget = TokenBudget::success_credit(0.1).shared().unwrap();
            RetryLayer::http().budget(budget).layer(canned)
        }),
        service("tower, TpsBudget, backoff", canned, |canned| {
            Retry::new(TowerPolicy::new(0.2, exponential(), is_ill), canned)
        }),
        client(UNDER_MIDDLEWARE, canned, |client| client),
        client("reqwest-retry, no budget", canned, |client| {
            let (min, max) = (Duration::from_millis(100), Duration::from_secs(20));
            let policy = ExponentialBackoff::builder()
                .retry_bounds(min, max)
                .build_with_max_retries(2);
            client.with(RetryTransientMiddleware::new_with_policy(policy))
        }),
    ]
}

/// What reqwest-retry is a part of, without it.
const UNDER_MIDDLEWARE: &str = "reqwest-middleware around it";

fn is_ill(outcome: &Result<Response, Failed>) -> bool {
    outcome
        .as_ref()
        .is_ok_and(|response| response.status().is_server_error())
}

fn get(url: &Url) -> Request {
    Request::new(Method::GET, url.clone())
}

fn status(outcome: Option<Response>) -> usize {
    outcome.map_or(0, |response| usize::from(response.status().as_u16()))
}

fn service<W>(
    name: &str,
    canned: &Canned,
    wrap: impl FnOnce(Canned) -> W + 'static,
) -> Contestant<'static>
where
    W: Service<Request, Response = Response> + 'static,
{
    let canned = canned.clone();
    prepared(name, || {
        let mut service = wrap(canned);
        let url = url();
        move |_| {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))));
            status(finish(service.call(get(&url))).ok())
        }
    })
}

fn client(
    name: &str,
    canned: &Canned,
    wrap: impl FnOnce(ClientBuilder) -> ClientBuilder + 'static,
) -> Contestant<'static> {
    let canned = canned.clone();
    prepared(name, || {
        let client: ClientWithMiddleware = wrap(ClientBuilder::new(reqwest::Client::new()))
            .with(canned)
            .build();
        let url = url();
        move |_| status(finish(client.execute(get(&url))).ok())
    })
}

fn url() -> Url {
    Url::parse("http://localhost:8080/v1/orders/7").unwrap()
}

/// Answers each request with this status and no body, and counts them.
#[derive(Clone, Default)]
struct Canned {
    // Zero is a 200.
    status: Arc<AtomicU16>,
    attempts: Arc<AtomicUsize>,
}

impl Canned {
    fn answer(&self) -> Response {
        self.attempts.fetch_add(1, Relaxed);
        let mut response = http::Response::new("");
        if let status @ 1.. = self.status.load(Relaxed) {
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        }
        response.into()
    }
}

impl Service<Request> for Canned {
    type Response = Response;
    type Error = Failed;
    type Future = Ready<Result<Response, Failed>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request) -> Self::Future {
        ready(Ok(self.answer()))
    }
}

/// In the place of the client's own way to the network.
impl Middleware for Canned {
    fn handle<'a, 'b, 'c, 'd>(
        &'a self,
        _request: Request,
        _extensions: &'b mut Extensions,
        _next: Next<'c>,
    ) -> Pin<Box<dyn Future<Output = reqwest_middleware::Result<Response>> + Send + 'd>>
    where
        'a: 'd,
        'b: 'd,
        'c: 'd,
        Self: 'd,
    {
        Box::pin(async { Ok(self.answer()) })
    }
}

/// All make three attempts of a request that a server refuses, and one of another.
fn check() {
    let canned = Canned::default();
    for contestant in contestants(&canned) {
        let name = contestant.name.clone();
        let mut contestant = contestant.prepare();
        canned.status.store(200, Relaxed);
        assert_eq!(contestant.once(0), 200, "{name}");
        assert_eq!(canned.attempts.swap(0, Relaxed), 1, "{name}");
        let once = tries_once(&name) || name == UNDER_MIDDLEWARE;
        canned.status.store(500, Relaxed);
        assert_eq!(contestant.once(0), 500, "{name}");
        let attempts = if once { 1 } else { 3 };
        assert_eq!(canned.attempts.swap(0, Relaxed), attempts, "{name}");
    }
}
