//! A breaker that is not ready while its circuit is open, as balancers want it.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
};

use mainstay_retry::{
    Backoff, BreakerHandle, CircuitBreaker, HalfOpen, Kind, Trip, Verdict, WhenOpen, breaker::State,
};
use tokio::time::{advance, timeout};
use tower::{Layer, Service, ServiceExt};

use crate::support::*;

fn opened(probes: u32) -> (CircuitBreaker, BreakerHandle) {
    let breaker = CircuitBreaker::builder("payments")
        .trip(Trip::consecutive(1))
        .wait_in_open(Backoff::constant(secs(1)))
        .half_open(HalfOpen::probes(probes).max_wait(secs(10)))
        .when_open(WhenOpen::PendInReady)
        .build()
        .unwrap();
    let permit = breaker.try_acquire().unwrap();
    permit.record(Verdict::Failure(Kind::Server));
    let handle = breaker.handle();
    assert_eq!(handle.state(), State::Open);
    (breaker, handle)
}

/// Counts how often it was woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_ready_when_the_wait_is_over_and_the_call_is_the_probe() {
    let (breaker, handle) = opened(1);
    let server = Server::statuses([]);
    let mut client = breaker.layer().layer(server.clone());
    let start = tokio::time::Instant::now();
    client.ready().await.unwrap();
    assert_eq!(start.elapsed(), secs(1));
    assert_eq!(handle.state(), State::HalfOpen);
    assert_eq!(client.call(get()).await.unwrap().status(), 200);
    assert_eq!(handle.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn it_is_ready_as_soon_as_somebody_closes_the_circuit() {
    let orders = [
        BreakerHandle::reset as fn(&_),
        BreakerHandle::force_close,
        BreakerHandle::disable,
        BreakerHandle::metrics_only,
    ];
    for order in orders {
        let (breaker, handle) = opened(1);
        handle.force_open();
        let mut client = breaker.layer().layer(Server::statuses([]));
        let waiting = tokio::spawn(async move { client.ready().await.is_ok() });
        advance(secs(100_000)).await;
        assert!(!waiting.is_finished(), "a forced state has no end");
        order(&handle);
        assert!(waiting.await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn it_does_not_spin_while_it_waits() {
    let (breaker, handle) = opened(1);
    let mut client = breaker.layer().layer(Server::statuses([]));
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut cx = Context::from_waker(&waker);
    let woken = || wakes.0.load(Ordering::SeqCst);
    handle.force_open();
    for _ in 0..3 {
        assert!(Service::<Req>::poll_ready(&mut client, &mut cx).is_pending());
    }
    tokio::task::yield_now().await;
    assert_eq!(woken(), 0);
    handle.reset();
    assert_eq!(woken(), 1, "one change, one wake-up");
}

#[tokio::test(start_paused = true)]
async fn the_service_inside_is_not_asked_while_the_circuit_is_open() {
    let (breaker, _handle) = opened(1);
    let server = Server::statuses([]).broken_after(0);
    let mut client = breaker.layer().layer(server);
    let early = timeout(ms(900), client.ready()).await;
    assert!(early.is_err(), "the readiness error inside was not met");
    assert!(client.ready().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_reserved_is_given_back_when_the_service_is_dropped() {
    let (breaker, handle) = opened(1);
    let server = Server::statuses([]);
    let mut one = breaker.layer().layer(server.clone());
    let mut two = one.clone();
    one.ready().await.unwrap();
    assert_eq!(handle.snapshot().probes_in_flight, 1);
    {
        let mut waiting = pin!(two.ready());
        assert!(timeout(secs(1), waiting.as_mut()).await.is_err());
        drop(one);
        timeout(ms(1), waiting)
            .await
            .expect("woken by the drop")
            .unwrap();
    }
    assert_eq!(two.call(get()).await.unwrap().status(), 200);
    assert_eq!(handle.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_ready_stays_so_and_holds_one_probe() {
    let (breaker, handle) = opened(2);
    let mut client = breaker.layer().layer(Server::statuses([]));
    for _ in 0..5 {
        client.ready().await.unwrap();
    }
    assert_eq!(handle.snapshot().probes_in_flight, 1);
    drop(client.clone());
    assert_eq!(handle.snapshot().probes_in_flight, 1, "a clone holds none");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_nobody_uses_does_not_keep_the_others_out_for_ever() {
    let (breaker, handle) = opened(1);
    let server = Server::statuses([]);
    let mut idle = breaker.layer().layer(server.clone());
    let mut client = idle.clone();
    idle.ready().await.unwrap();
    let start = tokio::time::Instant::now();
    // Ten seconds of half-open, one of open.
    client.ready().await.unwrap();
    assert_eq!(start.elapsed(), secs(11));
    assert_eq!(client.call(get()).await.unwrap().status(), 200);
    assert_eq!(handle.state(), State::Closed);
    // What the idle one holds is of another time; its call is a call like others.
    assert_eq!(idle.call(get()).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn all_who_wait_get_through_after_one_probe_has_succeeded() {
    let (breaker, _handle) = opened(1);
    let client = breaker.layer().layer(Server::statuses([]));
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { status(&mut client, get()).await })
        })
        .collect();
    for call in calls {
        assert_eq!(timeout(secs(2), call).await.unwrap().unwrap(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_opens_after_readiness_refuses_in_the_call() {
    let (breaker, handle) = opened(1);
    handle.reset();
    let server = Server::statuses([]);
    let mut client = breaker.layer().layer(server.clone());
    let ready = client.ready().await.unwrap();
    handle.force_open();
    assert!(ready.call(get()).await.unwrap_err().is_circuit_open());
    assert_eq!(server.calls(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_miss_no_change() {
    let (breaker, handle) = opened(1);
    let client = breaker.layer().layer(Server::statuses([]));
    for _ in 0..200 {
        handle.force_open();
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                let mut client = client.clone();
                tokio::spawn(async move { client.ready().await.is_ok() })
            })
            .collect();
        handle.reset();
        for waiting in waiting {
            let woken = timeout(secs(20), waiting).await;
            assert!(woken.expect("a missed change").unwrap());
        }
    }
}

#[allow(dead_code, reason = "the bounds are the test")]
fn futures_are_send(breaker: &CircuitBreaker) -> impl Future + Send {
    let mut client = breaker.layer().layer(Server::statuses([]));
    async move { client.ready().await.is_ok() }
}
