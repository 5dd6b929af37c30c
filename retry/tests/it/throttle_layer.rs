use std::{
    convert::Infallible,
    future::{Future, ready},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Waker},
};

use http_body_util::Full;
use mainstay_retry::{
    AdaptiveThrottle, Backoff, CircuitBreaker, Error, Kind, RetryLayer, TokenBudget, Trip, Verdict,
};
use tokio::time::advance;
use tower::{Layer, Service, ServiceBuilder, service_fn};

use crate::support::*;

fn throttle() -> AdaptiveThrottle {
    AdaptiveThrottle::builder("search").seed(1).build().unwrap()
}

/// Refuses everything, at once, and counts.
fn overloaded(
    calls: &Arc<AtomicUsize>,
) -> impl Service<Req, Response = Res, Error = Infallible, Future: Send> + Clone + Send + use<> {
    let calls = Arc::clone(calls);
    service_fn(move |_: Req| {
        calls.fetch_add(1, Relaxed);
        ready(Ok(http::Response::builder()
            .status(503)
            .body(Full::default())
            .unwrap()))
    })
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_everything_gets_a_tenth() {
    let calls = Arc::default();
    let mut client = throttle().layer().layer(overloaded(&calls));
    let mut held = 0;
    for _ in 0..1_000 {
        match send(&mut client, get()).await {
            Ok(response) => assert_eq!(response.status(), 503),
            Err(Error::SelfThrottled(refusal)) => {
                assert_eq!(refusal.throttle(), "search");
                assert!(!refusal.attempted());
                held += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    let calls = calls.load(Relaxed);
    assert_eq!(calls + held, 1_000);
    assert!((100..200).contains(&calls), "{calls}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_accepts_half_gets_everything() {
    let server = Server::statuses((0..400).map(|n| if n % 2 == 0 { 200 } else { 503 }));
    let throttle = throttle();
    let mut client = throttle.layer().layer(server.clone());
    for _ in 0..400 {
        send(&mut client, get()).await.unwrap();
    }
    assert_eq!(server.calls(), 400);
    assert!(throttle.rejection() < 0.01);
}

#[tokio::test(start_paused = true)]
async fn silence_and_the_servers_own_failures_hold_nothing_back() {
    let server = Server::new((0..300).map(|n| match n % 3 {
        0 => Step::Reset,
        1 => Step::Status(500),
        _ => Step::Status(404),
    }));
    let mut client = throttle().layer().layer(server.clone());
    for _ in 0..300 {
        let _ = send(&mut client, get()).await;
    }
    assert_eq!(server.calls(), 300);
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_is_forgotten_with_the_window() {
    let calls = Arc::default();
    let throttle = throttle();
    let mut client = throttle.layer().layer(overloaded(&calls));
    for _ in 0..100 {
        let _ = send(&mut client, get()).await;
    }
    assert!(throttle.rejection() > 0.8);
    advance(secs(120)).await;
    assert_eq!(throttle.rejection(), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_tried_again_nor_charged() {
    let calls = Arc::default();
    let throttle = throttle();
    while throttle.rejection() < 0.89 {
        if throttle.admit().is_ok() {
            throttle.record(Verdict::Retryable(Kind::Throttled, None));
        }
    }
    let budget = TokenBudget::success_credit(0.0)
        .capacity(100)
        .refill_per_second(0.0)
        .shared()
        .unwrap();
    let mut client = ServiceBuilder::new()
        .layer(
            RetryLayer::http()
                .backoff(Backoff::constant(ms(1)))
                .budget(budget.clone()),
        )
        .layer(throttle.layer())
        .service(overloaded(&calls));
    let (mut held, mut held_later) = (0, 0);
    for _ in 0..20 {
        let before = calls.load(Relaxed);
        match send(&mut client, get()).await {
            Err(Error::SelfThrottled(refusal)) if refusal.attempted() => {
                held_later += 1;
                assert!(calls.load(Relaxed) > before);
            }
            Err(Error::SelfThrottled(_)) => {
                held += 1;
                assert_eq!(calls.load(Relaxed), before);
            }
            other => assert_eq!(other.unwrap().status(), 503),
        }
    }
    assert!(held > 10 && held_later > 0, "{held} {held_later}");
    let spent = 100 - budget.tokens() as usize;
    let sent = calls.load(Relaxed);
    assert!(
        spent <= sent,
        "only attempts that were sent and failed are followed by another: {spent} paid, {sent} sent"
    );
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_below_is_not_counted() {
    let breaker = CircuitBreaker::builder("search")
        .trip(Trip::consecutive(1))
        .build()
        .unwrap();
    breaker.handle().force_open();
    let throttle = throttle();
    let mut client = ServiceBuilder::new()
        .layer(throttle.layer())
        .layer(breaker.layer())
        .service(Server::statuses([]));
    for _ in 0..100 {
        assert!(
            send(&mut client, get())
                .await
                .unwrap_err()
                .is_circuit_open()
        );
    }
    assert_eq!(throttle.rejection(), 0.0);
}

#[tokio::test(start_paused = true)]
async fn services_of_one_throttle_share_its_counts() {
    let calls = Arc::default();
    let throttle = throttle();
    let layer = throttle.layer();
    let (mut one, mut other) = (
        layer.layer(overloaded(&calls)),
        layer.clone().layer(overloaded(&calls)),
    );
    for _ in 0..10 {
        send(&mut one, get()).await.unwrap();
        send(&mut other.clone(), get()).await.unwrap();
    }
    assert!(throttle.rejection() > 0.8);
    for client in [&mut one, &mut other] {
        let mut held = 0;
        for _ in 0..50 {
            held += usize::from(send(client, get()).await.is_err());
        }
        assert!(held > 25, "{held}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_is_not_counted() {
    let server = Server::new((0..100).map(|_| Step::Slow(secs(1), 503)));
    let throttle = throttle();
    let mut client = throttle.layer().layer(server.clone());
    for _ in 0..100 {
        let mut call = pin!(send(&mut client, get()));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..4 {
            assert!(call.as_mut().poll(&mut cx).is_pending());
        }
    }
    assert_eq!((server.calls(), server.under_way()), (100, 0));
    assert_eq!(throttle.rejection(), 0.0);
    send(&mut client, get()).await.unwrap();
}
