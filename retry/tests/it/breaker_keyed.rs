use mainstay_retry::{
    Backoff, CircuitBreaker, Error, Kind, Trip, Verdict, WhenOpen,
    breaker::{KeyedBreakers, State},
};
use tower::Layer;

use crate::support::*;

const FAILURE: Verdict = Verdict::Failure(Kind::Server);

fn breakers(keys_max: usize) -> KeyedBreakers {
    CircuitBreaker::builder("upstreams")
        .trip(Trip::consecutive(1))
        .wait_in_open(Backoff::constant(secs(1)))
        .keyed(keys_max)
        .unwrap()
}

fn to(host: &str) -> Req {
    let uri = format!("http://{host}/");
    http::Request::get(uri)
        .body(http_body_util::Full::default())
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn one_keys_failures_do_not_refuse_another() {
    let breakers = breakers(16);
    let server = Server::statuses([500]);
    let layer = breakers.layer(|request: &Req| request.uri().host().map(str::to_owned));
    let (mut one, mut two) = (layer.layer(server.clone()), layer.layer(server.clone()));
    assert_eq!(status(&mut one, to("sick")).await, 500);
    // Layered twice, the circuits are the same.
    let error = send(&mut two, to("sick")).await.unwrap_err();
    assert!(matches!(error, Error::CircuitOpen(open) if open.breaker() == "upstreams"));
    assert_eq!(status(&mut two, to("well")).await, 200);
    assert_eq!(
        breakers.handle(&Some("sick".to_owned())).state(),
        State::Open
    );
    assert_eq!(breakers.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_keys_stays_within_the_bound() {
    let breakers = breakers(1_000);
    for key in 0..100_000u32 {
        breakers.try_acquire(&key).unwrap().record(Verdict::Success);
        assert!(breakers.len() <= 1_000);
    }
    assert_eq!(breakers.len(), 1_000);
    assert_eq!(breakers.unguarded(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_is_never_forgotten_and_a_full_map_refuses_nobody_else() {
    let breakers = breakers(8);
    for key in 0..8u32 {
        breakers.try_acquire(&key).unwrap().record(FAILURE);
    }
    for key in 100..200u32 {
        let permit = breakers
            .try_acquire(&key)
            .expect("a new key is not refused");
        permit.record(FAILURE);
    }
    assert_eq!((breakers.len(), breakers.unguarded()), (8, 100));
    for key in 0..8u32 {
        assert!(breakers.try_acquire(&key).is_err(), "{key} was forgotten");
    }
}

#[tokio::test(start_paused = true)]
async fn a_circuit_with_a_call_under_way_or_a_handle_is_kept() {
    let breakers = breakers(2);
    let permit = breakers.try_acquire("busy").unwrap();
    let handle = breakers.handle("watched");
    for key in 0..50u32 {
        drop(breakers.try_acquire(&key));
    }
    handle.force_open();
    assert!(breakers.try_acquire("watched").is_err());
    permit.record(FAILURE);
    assert!(breakers.try_acquire("busy").is_err());
}

#[test]
fn what_cannot_work_is_refused_with_every_fault() {
    let builder = CircuitBreaker::builder("").when_open(WhenOpen::PendInReady);
    assert_eq!(builder.keyed(0).unwrap_err().faults().len(), 3);
    assert!(CircuitBreaker::builder("x").keyed(usize::MAX).is_err());
}

#[test]
fn threads_share_one_circuit_per_key() {
    let breakers = breakers(64);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for key in 0..2_000u32 {
                    let _ = breakers
                        .try_acquire(&(key % 200))
                        .map(|permit| permit.record(Verdict::Success));
                }
            });
        }
    });
    assert!(breakers.len() <= 64);
}

#[tokio::test(start_paused = true)]
async fn hosts_that_are_gone_for_good_do_not_keep_their_places() {
    let breakers = CircuitBreaker::builder("upstreams")
        .trip(Trip::consecutive(2))
        .wait_in_open(Backoff::constant(secs(3_600)))
        .keyed(3)
        .unwrap();
    let fail = |key: &str| {
        let permit = breakers.try_acquire(key).unwrap();
        permit.record(Verdict::Failure(Kind::Transient));
    };
    fail("failed once");
    fail("open");
    fail("open");
    breakers.handle("forced").force_open();
    assert_eq!(breakers.len(), 3);

    // Too soon.
    tokio::time::advance(secs(599)).await;
    let _ = breakers.try_acquire("new");
    assert_eq!(breakers.unguarded(), 1);

    // Ten minutes without a call: what failed once makes way, what is open and waits or was forced does not.
    tokio::time::advance(secs(1)).await;
    let _ = breakers.try_acquire("new");
    assert_eq!(breakers.unguarded(), 1);
    fail("new");
    let _ = breakers.try_acquire("newer");
    assert_eq!(breakers.unguarded(), 2);
    assert!(breakers.try_acquire("open").is_err());
    assert!(breakers.try_acquire("forced").is_err());

    // When its wait is over, and nobody has come for the probe for as long, it does.
    tokio::time::advance(secs(3_600)).await;
    let _ = breakers.try_acquire("newer");
    tokio::time::advance(secs(600)).await;
    for key in ["newer", "newest"] {
        let _ = breakers.try_acquire(key);
    }
    assert_eq!((breakers.unguarded(), breakers.len()), (2, 3));
    assert!(breakers.try_acquire("forced").is_err());
}
