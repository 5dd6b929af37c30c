//! Every layer of the crate together, under and over tower's own, and applied anew for each route as axum does.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
};

use mainstay_retry::{
    AcceptDeadlineLayer, AdaptiveThrottle, AttachIdempotencyKeyLayer, AttemptTimeoutLayer, Backoff,
    BoxError, CircuitBreaker, DeadlineLayer, HedgeDelay, HedgeLayer, RetryLayer, TokenBudget, Trip,
};
use tokio::time::{Instant, advance};
use tower::{Layer, Service, ServiceBuilder, util::BoxCloneService};

use crate::support::*;

struct Parts {
    budget: Arc<TokenBudget>,
    breaker: CircuitBreaker,
    throttle: AdaptiveThrottle,
}

impl Parts {
    fn new() -> Self {
        Self {
            budget: TokenBudget::success_credit(0.0)
                .capacity(5)
                .refill_per_second(0.0)
                .shared()
                .unwrap(),
            breaker: CircuitBreaker::builder("test")
                .trip(Trip::consecutive(3))
                .wait_in_open(Backoff::constant(secs(1)))
                .build()
                .unwrap(),
            throttle: AdaptiveThrottle::builder("test").seed(1).build().unwrap(),
        }
    }

    /// All layers of a client, over `inner`.
    fn client<S>(
        &self,
        inner: S,
    ) -> impl Service<Req, Response = Res, Error = mainstay_retry::Error, Future: Send>
    + Clone
    + Send
    + use<S>
    where
        S: Service<Req, Response = Res> + Clone + Send,
        S::Error: Into<BoxError> + Send + 'static,
        S::Future: Send,
    {
        ServiceBuilder::new()
            .layer(AttachIdempotencyKeyLayer::new())
            .layer(DeadlineLayer::total(secs(10)))
            .layer(
                RetryLayer::http()
                    .backoff(Backoff::constant(ms(10)))
                    .budget(self.budget.clone()),
            )
            .layer(
                HedgeLayer::http()
                    .delay(ms(200))
                    .budget(self.budget.clone()),
            )
            .layer(self.throttle.layer())
            .layer(self.breaker.layer())
            .layer(AttemptTimeoutLayer::new(secs(1)))
            .service(inner)
    }
}

fn script() -> [Step; 4] {
    [
        Step::Status(500),        // tried again
        Step::Slow(ms(900), 200), // hedged
        Step::Slow(ms(100), 200), // the hedge, which wins
        Step::Slow(ms(100), 200), // another call
    ]
}

#[tokio::test(start_paused = true)]
async fn the_whole_stack_stands_on_towers_layers() {
    type Boxed = BoxCloneService<Req, Res, BoxError>;
    type Under = fn(Server) -> Boxed;
    let limit = |server: Server| -> Boxed {
        let service = ServiceBuilder::new().concurrency_limit(2).service(server);
        BoxCloneService::new(service)
    };
    let buffer = |server: Server| -> Boxed {
        let service = ServiceBuilder::new().buffer(8).service(server);
        BoxCloneService::new(service)
    };
    let shed = |server: Server| -> Boxed {
        let service = ServiceBuilder::new()
            .load_shed()
            .concurrency_limit(2)
            .service(server);
        BoxCloneService::new(service)
    };
    let under: [(&str, Under); 3] = [("limit", limit), ("buffer", buffer), ("shed", shed)];
    for (name, under) in under {
        let server = Server::new(script()).ready_at_once();
        let parts = Parts::new();
        let mut client = parts.client(under(server.clone()));
        let start = Instant::now();
        assert_eq!(status(&mut client, post("a")).await, 200, "{name}");
        assert!((ms(310)..ms(330)).contains(&start.elapsed()), "{name}");
        assert_eq!(server.calls(), 3, "{name}");
        assert_eq!(parts.budget.tokens(), 3, "{name}: a retry and a hedge");
        assert_eq!(status(&mut client, get()).await, 200, "{name}");
        let keys = server.seen(|seen| seen.key.clone());
        assert!(
            keys[0].is_some() && keys[..3].iter().all(|key| *key == keys[0]),
            "{name}"
        );
        tokio::task::yield_now().await;
        assert_eq!(server.under_way(), 0, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_whole_stack_stands_under_towers_layers() {
    let server = Server::new(script()).ready_at_once();
    let parts = Parts::new();
    let mut client = ServiceBuilder::new()
        .buffer(8)
        .load_shed()
        .concurrency_limit(1)
        .service(parts.client(server.clone()));
    for _ in 0..2 {
        assert_eq!(send(&mut client, post("a")).await.unwrap().status(), 200);
    }
    assert_eq!((server.calls(), parts.budget.tokens()), (4, 3));
}

#[tokio::test(start_paused = true)]
async fn each_layer_calls_only_what_is_ready() {
    // The probe fails the test when an instance is called that was not polled ready, and is pending once.
    let server = Server::new([Step::Status(500), Step::Reset]);
    let mut client = Parts::new().client(server.clone());
    for _ in 0..3 {
        assert_eq!(status(&mut client.clone(), get()).await, 200);
        assert_eq!(status(&mut client, get()).await, 200);
    }
    assert_eq!(server.calls(), 8);
}

#[tokio::test(start_paused = true)]
async fn leaving_the_whole_stack_at_any_await_returns_everything() {
    for polls in 0.. {
        let server = Server::new(script()).ready_at_once();
        let parts = Parts::new();
        let limited = ServiceBuilder::new()
            .concurrency_limit(2)
            .service(server.clone());
        let mut client = parts.client(limited);
        let finished = {
            let mut call = pin!(send(&mut client, post("a")));
            let mut cx = Context::from_waker(Waker::noop());
            let mut finished = false;
            for _ in 0..polls {
                finished = call.as_mut().poll(&mut cx).is_ready();
                if finished {
                    break;
                }
                advance(ms(20)).await;
            }
            finished
        };
        let (calls, spent) = (server.calls(), 5 - parts.budget.tokens() as usize);
        assert_eq!(server.under_way(), 0, "{polls}");
        assert!(
            spent == calls.saturating_sub(1) || spent == calls,
            "{polls}: {calls} calls, {spent} paid"
        );
        advance(secs(20)).await;
        assert_eq!(server.calls(), calls, "{polls}: nothing goes on");
        server.push([Step::Status(200), Step::Status(200)]);
        let (mut one, mut other) = (client.clone(), client);
        let both = tokio::join!(send(&mut one, get()), send(&mut other, get()));
        assert!(
            both.0.is_ok() && both.1.is_ok(),
            "{polls}: both permits are back"
        );
        if finished || polls > 100 {
            assert!(finished && polls > 10, "{polls}");
            return;
        }
    }
}

/// Two services from one layer, applied twice, as axum does for two routes: one call on each in turn.
async fn on_two_routes<S: Service<Req, Response = Res>>(
    mut routes: [S; 2],
    calls: usize,
) -> Vec<Result<u16, S::Error>> {
    let mut outcomes = Vec::new();
    for n in 0..calls {
        let outcome = send(&mut routes[n % 2], get()).await;
        outcomes.push(outcome.map(|response| response.status().as_u16()));
    }
    outcomes
}

#[tokio::test(start_paused = true)]
async fn the_state_of_each_layer_is_shared_by_all_routes() {
    let failing = || Server::new((0..50).map(|_| Step::Status(500))).ready_at_once();
    let parts = Parts::new();

    let server = failing();
    let layer = RetryLayer::http()
        .backoff(Backoff::constant(ms(0)))
        .budget(parts.budget.clone());
    on_two_routes([0, 1].map(|_| layer.layer(server.clone())), 10).await;
    assert_eq!(server.calls(), 15, "ten calls and the budget's five");

    let server = failing();
    let layer = parts.breaker.layer();
    let outcomes = on_two_routes([0, 1].map(|_| layer.layer(server.clone())), 10).await;
    assert_eq!(server.calls(), 3, "the third failure opened it for both");
    assert!(outcomes[3..].iter().all(Result::is_err));

    let busy = Server::new((0..200).map(|_| Step::Status(503))).ready_at_once();
    let layer = parts.throttle.layer();
    on_two_routes([0, 1].map(|_| layer.layer(busy.clone())), 100).await;
    assert!(busy.calls() < 60, "{} sent", busy.calls());

    let slow = || (0..10).map(|_| Step::Slow(ms(500), 200));
    let server = Server::new(slow()).ready_at_once();
    let budget = Parts::new().budget;
    let layer = HedgeLayer::http().delay(ms(100)).budget(budget.clone());
    on_two_routes([0, 1].map(|_| layer.layer(server.clone())), 8).await;
    assert_eq!((server.calls(), budget.tokens()), (13, 0));

    let server = Server::new((0..140).map(|n| Step::Slow(ms(if n < 128 { 40 } else { 900 }), 200)));
    let server = server.ready_at_once();
    let delay = HedgeDelay::percentile(0.9).build().unwrap();
    let layer = HedgeLayer::http().delay(delay);
    on_two_routes([0, 1].map(|_| layer.layer(server.clone())), 129).await;
    assert_eq!(server.calls(), 130, "each learned from the other's calls");
}

#[tokio::test(start_paused = true)]
async fn axum_routes_share_a_breaker_and_have_their_deadlines() {
    use axum::{Router, body::Body, routing::get};
    use http::{Request, StatusCode};
    use http_body_util::Full;

    // A gateway: its routes call one dependency through one client, each route's copy layered anew.
    let server = Server::new((0..50).map(|_| Step::Status(500))).ready_at_once();
    let parts = Parts::new();
    let proxy = |server: Server| {
        let client = parts.breaker.layer().layer(server);
        get(move || {
            let mut client = client.clone();
            async move {
                let request = Request::get("http://localhost/")
                    .body(Full::default())
                    .unwrap();
                match send(&mut client, request).await {
                    Ok(response) => response.status(),
                    Err(_) => StatusCode::SERVICE_UNAVAILABLE,
                }
            }
        })
    };
    let app: Router = Router::new()
        .route("/a", proxy(server.clone()))
        .route("/b", proxy(server.clone()))
        .layer(AcceptDeadlineLayer::at_most(secs(30)));
    let mut statuses = Vec::new();
    for path in ["/a", "/b", "/a", "/b", "/a"] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = app.clone().call(request).await.unwrap();
        statuses.push(response.status().as_u16());
    }
    assert_eq!(statuses, [500, 500, 500, 503, 503]);
    assert_eq!(server.calls(), 3);
    let late = Request::get("/a")
        .header(mainstay_retry::deadline::HEADER, "0")
        .body(Body::empty())
        .unwrap();
    assert_eq!(app.clone().call(late).await.unwrap().status(), 504);
}
