use std::{panic::AssertUnwindSafe, time::Duration};

use mainstay_retry::{
    AttemptTimeoutLayer, Backoff, BoxError, BreakerHandle, CircuitBreaker, DeadlineLayer, Error,
    EveryError, HalfOpen, Kind, Trip, Verdict,
    breaker::{State, Window},
};
use tokio::time::advance;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

use crate::support::*;

fn breaker(failures: u32) -> CircuitBreaker {
    CircuitBreaker::builder("payments")
        .trip(Trip::consecutive(failures))
        .wait_in_open(Backoff::exponential(secs(1), secs(60)))
        .half_open(HalfOpen::probes(1).max_wait(secs(10)))
        .build()
        .unwrap()
}

fn refusal(error: Error) -> Duration {
    match error {
        Error::CircuitOpen(open) => {
            assert_eq!(open.breaker(), "payments");
            open.retry_after()
        }
        other => panic!("{other}"),
    }
}

/// A breaker that has just opened, and the service behind it.
async fn opened(
    server: &Server,
) -> (
    impl Service<Req, Response = Res, Error = Error> + Clone,
    BreakerHandle,
) {
    let breaker = breaker(1);
    let mut client = breaker.layer().layer(server.clone());
    server.push([Step::Reset]);
    send(&mut client, get()).await.unwrap_err();
    assert_eq!(breaker.handle().state(), State::Open);
    (client, breaker.handle())
}

#[tokio::test(start_paused = true)]
async fn it_opens_refuses_probes_and_closes() {
    let server = Server::new([Step::Status(500), Step::Reset, Step::Status(503)]);
    let breaker = breaker(3);
    let handle = breaker.handle();
    let mut client = breaker.layer().layer(server.clone());
    for _ in 0..3 {
        let _ = send(&mut client, get()).await;
    }
    assert_eq!(handle.state(), State::Open);

    for _ in 0..5 {
        assert_eq!(
            refusal(send(&mut client, get()).await.unwrap_err()),
            secs(1)
        );
    }
    assert_eq!(server.calls(), 3, "the service was left alone");

    advance(secs(1)).await;
    server.push([Step::Status(500)]);
    assert_eq!(status(&mut client, get()).await, 500);
    assert_eq!(
        refusal(send(&mut client, get()).await.unwrap_err()),
        secs(2)
    );

    advance(secs(2)).await;
    assert_eq!(status(&mut client, get()).await, 200);
    assert_eq!(handle.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn what_callers_do_wrong_does_not_open_it() {
    let answers = [400, 401, 404, 408, 409, 422, 429, 429, 501];
    let server = Server::statuses(answers);
    let breaker = breaker(1);
    let mut client = breaker.layer().layer(server);
    for answer in answers {
        assert_eq!(status(&mut client, get()).await, answer);
    }
    assert_eq!(breaker.handle().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_callers_short_deadline_does_not_open_it_and_a_slow_attempt_does() {
    let server = Server::new([Step::Hang, Step::Hang]);
    let breaker = breaker(1);
    let client = ServiceBuilder::new()
        .layer(breaker.layer())
        .layer(AttemptTimeoutLayer::new(secs(1)))
        .service(server);
    let hasty = &mut DeadlineLayer::total(ms(10)).layer(client.clone());
    assert!(send(hasty, get()).await.unwrap_err().is_deadline_exceeded());
    assert_eq!(breaker.handle().state(), State::Closed);
    let mut patient = client;
    send(&mut patient, get()).await.unwrap_err();
    assert_eq!(breaker.handle().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn services_of_one_breaker_share_the_circuit_however_often_they_are_layered() {
    let server = Server::new([Step::Reset, Step::Reset]);
    let layer = breaker(2).layer();
    let (mut one, mut two, mut three) = (
        layer.layer(server.clone()),
        layer.layer(server.clone()),
        layer.clone().layer(server.clone()),
    );
    send(&mut one, get()).await.unwrap_err();
    send(&mut two, get()).await.unwrap_err();
    refusal(send(&mut three, get()).await.unwrap_err());
    assert_eq!(server.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_does_not_wait_for_the_service_inside() {
    let server = Server::statuses([]);
    let (mut client, _handle) = opened(&server).await;
    server.set_never_ready(true);
    refusal(send(&mut client, get()).await.unwrap_err());
}

#[tokio::test(start_paused = true)]
async fn a_service_that_was_not_asked_for_readiness_is_not_called_when_the_wait_ends_in_between() {
    let server = Server::statuses([]);
    let (mut client, handle) = opened(&server).await;
    let ready = client.ready().await.unwrap();
    advance(secs(1)).await;
    assert_eq!(refusal(ready.call(get()).await.unwrap_err()), secs(1));
    assert_eq!(handle.state(), State::Open);
    assert_eq!(status(&mut client, get()).await, 200);
    assert_eq!(handle.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_dropped_makes_room_for_another() {
    let server = Server::statuses([]);
    let (mut client, handle) = opened(&server).await;
    advance(secs(1)).await;
    server.push([Step::Hang]);
    let mut other = client.clone();
    let probe = client.ready().await.unwrap().call(get());
    assert_eq!(handle.state(), State::HalfOpen);
    assert_eq!(
        refusal(send(&mut other, get()).await.unwrap_err()),
        ms(0),
        "one probe at a time"
    );
    drop(probe);
    assert_eq!(status(&mut other, get()).await, 200);
    assert_eq!(handle.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_makes_room_for_another() {
    let server = Server::statuses([]);
    let (client, handle) = opened(&server).await;
    advance(secs(1)).await;
    server.push([Step::Panic]);
    let mut panicking = client.clone();
    let mut probe = Box::pin(async move { send(&mut panicking, get()).await.is_ok() });
    let poll = || std::panic::catch_unwind(AssertUnwindSafe(|| futures_poll(&mut probe)));
    let mut poll = poll;
    let panicked = (0..4).any(|_| poll().is_err());
    assert!(panicked);
    drop(probe);
    assert_eq!(status(&mut client.clone(), get()).await, 200);
    assert_eq!(handle.state(), State::Closed);
}

fn futures_poll<F: Future + Unpin>(future: &mut F) -> bool {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    std::pin::Pin::new(future).poll(&mut cx).is_ready()
}

#[tokio::test(start_paused = true)]
async fn orders_from_outside_hold_until_reset() {
    let server = Server::statuses([500, 500, 500]);
    let breaker = breaker(1);
    let handle = breaker.handle();
    let mut client = breaker.layer().layer(server.clone());

    handle.force_open();
    advance(secs(100_000)).await;
    refusal(send(&mut client, get()).await.unwrap_err());
    for (order, state) in [
        (BreakerHandle::force_close as fn(&_), State::ForcedClosed),
        (BreakerHandle::disable, State::Disabled),
    ] {
        order(&handle);
        assert_eq!(status(&mut client, get()).await, 500);
        assert_eq!(handle.state(), state);
    }
    handle.reset();
    assert_eq!(status(&mut client, get()).await, 500);
    assert_eq!(handle.state(), State::Open);
}

#[test]
fn a_breaker_that_could_not_work_is_refused_with_every_fault() {
    let error = CircuitBreaker::builder("")
        .trip(Trip::consecutive(0))
        .half_open(HalfOpen::probes(0).max_wait(ms(0)))
        .wait_in_open(Backoff::constant(ms(0)))
        .build()
        .unwrap_err();
    assert_eq!(error.faults().len(), 5, "{error}");
    assert!(
        CircuitBreaker::builder("x")
            .trip(Trip::consecutive(u32::MAX))
            .build()
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn a_permit_counts_once() {
    let breaker = CircuitBreaker::builder("payments")
        .trip(Trip::consecutive(1))
        .wait_in_open(Backoff::constant(secs(1)))
        .half_open(HalfOpen::probes(2))
        .build()
        .unwrap();
    breaker
        .try_acquire()
        .unwrap()
        .record(Verdict::Failure(Kind::Server));
    advance(secs(1)).await;
    let (one, two) = (
        breaker.try_acquire().unwrap(),
        breaker.try_acquire().unwrap(),
    );
    one.record(Verdict::Success);
    assert!(
        breaker.try_acquire().is_err(),
        "one has succeeded and one is out"
    );
    two.record(Verdict::Success);
    assert_eq!(breaker.handle().state(), State::Closed);
}

#[test]
fn an_open_state_that_would_be_over_at_once_is_refused() {
    let zero = Backoff::exponential(ms(0), secs(60));
    let error = CircuitBreaker::builder("x")
        .wait_in_open(zero)
        .build()
        .unwrap_err();
    assert_eq!(error.faults(), ["open would not last"]);
}

/// A listener that fails at the first thing it hears.
struct Panics;

impl tracing::Subscriber for Panics {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        panic!("scripted panic");
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_panics_does_not_keep_the_probe_permit() {
    let breaker = breaker(1);
    let failure = Verdict::Failure(Kind::Server);
    breaker.try_acquire().unwrap().record(failure);
    advance(secs(1)).await;
    let probe = || tracing::subscriber::with_default(Panics, || breaker.try_acquire().is_ok());
    std::panic::catch_unwind(AssertUnwindSafe(probe)).unwrap_err();
    assert_eq!(breaker.handle().state(), State::HalfOpen);
    breaker.try_acquire().unwrap().record(Verdict::Success);
    assert_eq!(breaker.handle().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_does_not_make_later_callers_wait_for_the_service_inside() {
    let server = Server::statuses([]);
    let (client, handle) = opened(&server).await;
    advance(secs(1)).await;
    server.push([Step::Hang]);
    let mut probing = client.clone();
    let probe = probing.ready().await.unwrap().call(get());
    assert_eq!(handle.state(), State::HalfOpen);
    // The probe has the last place inside, and the time for probes is over.
    server.set_never_ready(true);
    advance(secs(10)).await;
    let mut late = client.clone();
    let mut call = Box::pin(async move { refusal(send(&mut late, get()).await.unwrap_err()) });
    assert!(futures_poll(&mut call), "still waiting");
    assert_eq!(handle.state(), State::Open);
    drop(probe);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_hears_every_change_once_and_a_late_one_only_what_comes() {
    let server = Server::statuses([500]);
    let breaker = breaker(1);
    let handle = breaker.handle();
    let mut events = handle.subscribe();
    let mut client = breaker.layer().layer(server);
    status(&mut client, get()).await;
    let mut late = handle.subscribe();
    advance(secs(1)).await;
    status(&mut client, get()).await;
    handle.reset();
    let heard: Vec<_> = std::iter::from_fn(|| events.try_next()).collect();
    let states: Vec<_> = heard.iter().map(|event| (event.from, event.to)).collect();
    assert_eq!(
        states,
        [
            (State::Closed, State::Open),
            (State::Open, State::HalfOpen),
            (State::HalfOpen, State::Closed),
        ]
    );
    assert!(heard.is_sorted_by(|one, two| one.generation < two.generation));
    assert_eq!(late.next().await.unwrap().to, State::HalfOpen);
    drop((breaker, handle, client));
    assert_eq!(late.next().await.unwrap().to, State::Closed);
    assert_eq!(late.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_misses_the_oldest_and_holds_nobody_up() {
    let breaker = breaker(1);
    let handle = breaker.handle();
    let mut events = handle.subscribe();
    for _ in 0..100 {
        handle.force_open();
        handle.reset();
    }
    let heard = std::iter::from_fn(|| events.try_next()).count() as u64;
    assert_eq!((heard, events.missed()), (64, 136));
}

#[tokio::test(start_paused = true)]
async fn calls_that_hang_open_the_circuit_for_the_next() {
    let server = Server::new(std::iter::repeat_n(Step::Hang, 20));
    let breaker = CircuitBreaker::builder("payments")
        .trip(Trip::slow_calls(0.5, secs(2)))
        .build()
        .unwrap();
    let client = breaker.layer().layer(server);
    let hanging: Vec<_> = (0..20)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { send(&mut client, get()).await.is_ok() })
        })
        .collect();
    tokio::task::yield_now().await;
    advance(ms(2_300)).await;
    refusal(send(&mut client.clone(), get()).await.unwrap_err());
    assert!(hanging.iter().all(|call| !call.is_finished()));
}

#[tokio::test(start_paused = true)]
async fn metrics_only_counts_and_refuses_nobody() {
    let server = Server::statuses([500; 5]);
    let breaker = breaker(2);
    let handle = breaker.handle();
    handle.metrics_only();
    let mut events = handle.subscribe();
    let mut client = breaker.layer().layer(server);
    for _ in 0..5 {
        assert_eq!(status(&mut client, get()).await, 500);
    }
    assert!(events.try_next().unwrap().would_open());
    assert_eq!(events.try_next(), None);
}

#[test]
fn rules_that_could_not_work_are_refused_with_every_fault() {
    let time = |length| Trip::failure_rate(0.5).window(Window::time(length));
    let count = |calls| Trip::failure_rate(0.5).window(Window::count(calls));
    let four = (0..3).fold(Trip::consecutive(1), |trip, _| {
        trip.or(Trip::consecutive(2))
    });
    let cases = [
        (Trip::failure_rate(0.0), 1),
        (Trip::failure_rate(1.1), 1),
        (Trip::failure_rate(f64::NAN), 1),
        (count(0), 2),
        (count(65_536), 1),
        (count(10).min_calls(11), 1),
        (count(10).min_calls(0), 1),
        (time(ms(9)), 1),
        (time(secs(86_401)), 1),
        (time(Duration::MAX), 1),
        (Trip::failure_rate(1.0).window(Window::ewma(10)), 1),
        (Trip::slow_calls(0.5, ms(0)), 1),
        (Trip::slow_calls(2.0, Duration::MAX), 2),
        (Trip::consecutive(1).min_calls(3), 1),
        (
            Trip::consecutive(1).or(count(5)).window(Window::count(3)),
            1,
        ),
        (four.or(Trip::consecutive(2)), 1),
        (four, 0),
        (count(65_535), 0),
    ];
    for (trip, faults) in cases {
        let built = CircuitBreaker::builder("x").trip(trip).build();
        let found = built.err().map_or(0, |error| error.faults().len());
        assert_eq!(found, faults, "{trip:?}");
    }
}

#[test]
fn neither_a_healthy_call_nor_a_refusal_allocates() {
    let time = Window::time(secs(10));
    let trips = [
        Trip::consecutive(5),
        Trip::failure_rate(0.5),
        Trip::failure_rate(0.5).window(time),
        Trip::failure_rate(0.5).window(Window::ewma(10)),
        Trip::slow_calls(0.5, secs(1)).or(Trip::consecutive(5)),
    ];
    for trip in trips {
        let breaker = CircuitBreaker::builder("payments")
            .trip(trip)
            .build()
            .unwrap();
        let inner = tower::service_fn(|n: u64| std::future::ready(Ok::<_, BoxError>(n)));
        let mut client = breaker.layer_with(EveryError).layer(inner);
        let mut calls = || {
            for n in 0..100 {
                let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                assert!(client.poll_ready(&mut cx).is_ready());
                let mut call = std::pin::pin!(client.call(n));
                assert!(call.as_mut().poll(&mut cx).is_ready());
            }
        };
        let healthy = allocation_counter::measure(&mut calls);
        breaker.handle().force_open();
        let refused = allocation_counter::measure(&mut calls);
        assert_eq!(
            (healthy.count_total, refused.count_total),
            (0, 0),
            "{trip:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn plain_code_calls_through_the_breaker_and_keeps_its_own_error() {
    let breaker = breaker(2);
    let handle = breaker.handle();
    for _ in 0..2 {
        let outcome = breaker.call(&EveryError, async { Err::<(), _>(7) }).await;
        assert_eq!(outcome, Ok(Err(7)));
    }
    assert_eq!(handle.state(), State::Open);

    let begun = std::cell::Cell::new(false);
    let call = async {
        begun.set(true);
        Ok::<_, u8>("late")
    };
    let open = breaker.call(&EveryError, call).await.unwrap_err();
    assert_eq!((open.retry_after(), begun.get()), (secs(1), false));

    advance(secs(1)).await;
    // A probe whose caller leaves makes room for another.
    let mut left = Box::pin(breaker.call(&EveryError, std::future::pending::<Result<(), u8>>()));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(left.as_mut().poll(&mut cx).is_pending());
    assert_eq!(handle.snapshot().probes_in_flight, 1);
    assert!(
        breaker
            .call(&EveryError, async { Ok::<_, u8>(()) })
            .await
            .is_err()
    );
    drop(left);
    let probe = breaker.call(&EveryError, async { Ok::<_, u8>("back") });
    assert_eq!(probe.await, Ok(Ok("back")));
    assert_eq!(handle.state(), State::Closed);
}
