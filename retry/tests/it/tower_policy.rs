//! The rules under tower's own retry layer.

use mainstay_retry::{
    Backoff, CircuitBreaker, Deadline, HttpClassify, HttpReplay, RetryPolicy, TokenBudget,
    TowerPolicy, Trip,
};
use tokio::time::Instant;
use tower::{ServiceBuilder, retry::RetryLayer};

use crate::support::*;

fn layer(
    budget: &std::sync::Arc<TokenBudget>,
) -> RetryLayer<TowerPolicy<HttpClassify, HttpReplay>> {
    let policy = RetryPolicy::new(HttpClassify)
        .backoff(Backoff::constant(ms(10)))
        .budget(budget.clone());
    RetryLayer::new(TowerPolicy::new(policy, HttpReplay::new()))
}

fn budget() -> std::sync::Arc<TokenBudget> {
    let budget = TokenBudget::success_credit(0.0).refill_per_second(0.0);
    budget.capacity(5).shared().unwrap()
}

#[tokio::test(start_paused = true)]
async fn verdicts_budget_and_waits_are_the_same() {
    let (server, budget) = (
        Server::new([Step::RetryAfter(503, "7"), Step::Reset]),
        budget(),
    );
    let mut client = ServiceBuilder::new()
        .layer(layer(&budget))
        .service(server.clone());
    let start = Instant::now();
    assert_eq!(status(&mut client, get()).await, 200);
    assert_eq!(start.elapsed(), ms(7_020));
    assert_eq!((server.calls(), budget.tokens()), (3, 3));
    let numbers = server.seen(|seen| seen.attempt.map(|attempt| attempt.number));
    assert_eq!(numbers, [None, Some(2), Some(3)]);

    server.push(std::iter::repeat_n(Step::Status(500), 9));
    assert_eq!(status(&mut client, get()).await, 500);
    assert_eq!(
        (server.calls(), budget.tokens()),
        (6, 1),
        "three attempts a call"
    );
    assert_eq!(status(&mut client, get()).await, 500);
    assert_eq!(status(&mut client, get()).await, 500);
    assert_eq!(
        (server.calls(), budget.tokens()),
        (9, 0),
        "then the budget ends them"
    );
    assert_eq!(status(&mut client, post("a")).await, 500);
    assert_eq!(server.calls(), 10, "not safe to repeat");
}

#[tokio::test(start_paused = true)]
async fn a_wait_past_the_deadline_and_an_open_circuit_end_it() {
    let (server, budget) = (Server::new([Step::RetryAfter(503, "7")]), budget());
    let mut client = ServiceBuilder::new()
        .layer(layer(&budget))
        .service(server.clone());
    let mut request = get();
    request.extensions_mut().insert(Deadline::within(secs(7)));
    assert_eq!(status(&mut client, request).await, 503);
    assert_eq!((server.calls(), budget.tokens()), (1, 5));

    let breaker = CircuitBreaker::builder("test")
        .trip(Trip::consecutive(1))
        .build()
        .unwrap();
    let mut client = ServiceBuilder::new()
        .layer(layer(&budget))
        .layer(breaker.layer())
        .service(Server::new([Step::Reset]));
    match send(&mut client, get()).await.unwrap_err() {
        mainstay_retry::Error::CircuitOpen(open) => assert!(open.attempted()),
        other => panic!("{other}"),
    }
}
