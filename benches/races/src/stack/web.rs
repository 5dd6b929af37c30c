//! For HTTP: one time over all attempts, and the statuses that mean a server is ill.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use mainstay_retry::{CircuitBreaker, DeadlineLayer, RetryLayer, TokenBudget, Trip};
use tower::retry::Retry;
use tower::timeout::Timeout;
use tower::{Layer, Service, ServiceBuilder};
use tower_resilience_circuitbreaker::{CircuitBreakerError, CircuitBreakerLayer};
use tower_resilience_retry::RetryBudgetBuilder;
use tower_resilience_timelimiter::TimeLimiterLayer;

use super::{ALONE, attempts};
use crate::by_hand::{self, Circuit, InARow, Tokens};
use crate::race::{Contestant, Prepared};
use crate::service::{Failed, Later, finish};
use crate::tower_policy::{TowerPolicy, exponential};

const FIVE_SECONDS: Duration = Duration::from_secs(5);

pub fn contestants(web: &Web) -> Vec<Contestant<'static>> {
    vec![
        service("hand-written", web, |web| {
            let circuit = Circuit::shared(InARow::new(5));
            let inner = by_hand::Breaker::new(web, circuit, is_ill);
            let failed = |outcome: &Result<Response<u64>, by_hand::Rejected<Failed>>| match outcome
            {
                Ok(response) => response.status().is_server_error(),
                outcome => by_hand::is_inner(outcome),
            };
            let inner = by_hand::Retry::new(inner, Tokens::shared(), failed);
            by_hand::Timeout::new(inner, FIVE_SECONDS)
        }),
        service(ALONE, web, |web| web),
        service("mainstay, and the server is told", web, |web| {
            mainstay(DeadlineLayer::total(FIVE_SECONDS), web)
        }),
        service("mainstay", web, |web| {
            mainstay(DeadlineLayer::total(FIVE_SECONDS).propagate(false), web)
        }),
        service("tower: timeout, retry, no breaker", web, |web| {
            let policy = TowerPolicy::new(0.2, exponential(), is_ill);
            Timeout::new(Retry::new(policy, web), FIVE_SECONDS)
        }),
        service("tower-resilience", web, |web| {
            let bucket = RetryBudgetBuilder::new().token_bucket().build().unwrap();
            let ill = |response: &Response<u64>| response.status().is_server_error();
            let retry = tower_resilience_retry::RetryLayer::<Request<String>, _, _>::builder()
                .max_attempts(3)
                .exponential_backoff(Duration::from_millis(100))
                .retry_on(|error: &CircuitBreakerError<Failed>| !error.is_circuit_open())
                .retry_on_response(ill)
                .budget(bucket);
            let breaker = CircuitBreakerLayer::builder()
                .consecutive_failures(5)
                .failure_classifier(is_ill);
            let limit = TimeLimiterLayer::builder().timeout_duration(FIVE_SECONDS);
            ServiceBuilder::new()
                .layer(limit.build())
                .layer(retry.build())
                .layer(breaker.build().unwrap())
                .service(web)
        }),
    ]
}

fn mainstay(
    deadline: DeadlineLayer,
    web: Web,
) -> impl Service<Request<String>, Response = Response<u64>> {
    let budget = TokenBudget::success_credit(0.1).shared().unwrap();
    let trip = Trip::consecutive(5);
    let breaker = CircuitBreaker::builder("race").trip(trip).build().unwrap();
    deadline.layer(
        RetryLayer::http()
            .budget(budget)
            .layer(breaker.layer().layer(web)),
    )
}

fn is_ill(outcome: &Result<Response<u64>, Failed>) -> bool {
    match outcome {
        Ok(response) => response.status().is_server_error(),
        Err(_) => true,
    }
}

fn service<W>(name: &str, web: &Web, wrap: impl FnOnce(Web) -> W + 'static) -> Contestant<'static>
where
    W: Service<Request<String>, Response = Response<u64>> + 'static,
{
    let web = web.clone();
    Contestant::new(name, || calls(wrap(web)))
}

// For each type of service once, as in `service`.
fn calls<W>(mut service: W) -> Prepared<'static>
where
    W: Service<Request<String>, Response = Response<u64>> + 'static,
{
    Prepared::new(move |_| {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))));
        let outcome = finish(service.call(Request::new(String::new())));
        outcome.map_or(0, |response| usize::from(response.status().as_u16()))
    })
}

/// Answers each request with this status, and counts them.
#[derive(Clone, Default)]
pub struct Web {
    // Zero is a 200.
    status: Arc<AtomicU16>,
    attempts: Arc<AtomicUsize>,
    pending: bool,
}

impl Web {
    /// Has the answer at the second poll.
    pub fn pending_once() -> Self {
        Self {
            pending: true,
            ..Self::default()
        }
    }
}

impl Service<Request<String>> for Web {
    type Response = Response<u64>;
    type Error = Failed;
    type Future = Later<Result<Response<u64>, Failed>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    #[inline(never)]
    fn call(&mut self, request: Request<String>) -> Self::Future {
        self.attempts.fetch_add(1, Relaxed);
        let mut response = Response::new(request.body().len() as u64);
        if let status @ 1.. = self.status.load(Relaxed) {
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
        }
        Later::new(Ok(response), self.pending)
    }
}

pub fn check() {
    let web = Web::default();
    for contestant in contestants(&web) {
        let name = contestant.name.clone();
        let mut contestant = contestant.prepare();
        web.status.store(200, Relaxed);
        assert_eq!(contestant.once(0), 200, "{name}");
        assert_eq!(web.attempts.swap(0, Relaxed), 1, "{name}");
        web.status.store(500, Relaxed);
        let made = [(); 3].map(|()| {
            let status = contestant.once(0);
            assert!(status == 500 || status == 0, "{name}: {status}");
            web.attempts.swap(0, Relaxed)
        });
        assert_eq!(made, attempts(&name), "{name}");
    }
}
