//! A caller may leave at any await. Every test polls by hand and drops after each number of polls in turn.

use std::{
    pin::pin,
    task::{Context, Waker},
};

use mainstay_retry::{
    AttachIdempotencyKeyLayer, AttemptTimeoutLayer, Backoff, CircuitBreaker, DeadlineLayer, Error,
    HalfOpen, RetryLayer, TokenBudget, Trip, breaker::State,
};
use tokio::time::advance;
use tower::{Service, ServiceBuilder};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn leaving_at_any_await_charges_once_and_stops_everything() {
    let mut finished = false;
    for polls in 0.. {
        let server = Server::statuses([503, 503]);
        let budget = TokenBudget::success_credit(0.0)
            .capacity(5)
            .refill_per_second(0.0)
            .shared()
            .unwrap();
        let mut client = ServiceBuilder::new()
            .layer(AttachIdempotencyKeyLayer::new())
            .layer(DeadlineLayer::total(secs(60)))
            .layer(
                RetryLayer::http()
                    .backoff(Backoff::constant(secs(1)))
                    .budget(budget.clone()),
            )
            .layer(AttemptTimeoutLayer::new(secs(5)))
            .service(server.clone());
        {
            let mut call = pin!(send(&mut client, get()));
            for _ in 0..polls {
                let mut cx = Context::from_waker(Waker::noop());
                if call.as_mut().poll(&mut cx).is_ready() {
                    finished = true;
                    break;
                }
                advance(ms(500)).await;
            }
        }
        let (calls, spent) = (server.calls(), 5 - budget.tokens());
        // A retry is paid for when it is decided, which is before it is made.
        assert!(
            spent == calls.saturating_sub(1) as u64 || spent == calls as u64,
            "{polls}: {calls} calls, {spent} paid"
        );
        assert_eq!(server.under_way(), 0, "{polls}");
        advance(secs(100)).await;
        assert_eq!(
            server.calls(),
            calls,
            "{polls}: nothing goes on after the caller left"
        );
        if finished {
            assert_eq!((calls, spent), (3, 2));
            assert!(
                polls > 8,
                "{polls} polls are too few to have met every await"
            );
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn leaving_at_any_await_gives_the_probe_permit_back() {
    for polls in 0..6 {
        let server = Server::new([Step::Reset, Step::Slow(ms(700), 200)]);
        let breaker = CircuitBreaker::builder("test")
            .trip(Trip::consecutive(1))
            .wait_in_open(Backoff::constant(secs(1)))
            .half_open(HalfOpen::probes(1))
            .build()
            .unwrap();
        let mut client = ServiceBuilder::new()
            .layer(DeadlineLayer::total(secs(60)))
            .layer(
                RetryLayer::http()
                    .backoff(Backoff::constant(ms(0)))
                    .max_attempts(1),
            )
            .layer(breaker.layer())
            .layer(AttemptTimeoutLayer::new(secs(5)))
            .service(server.clone());
        send(&mut client, get()).await.unwrap_err();
        advance(secs(1)).await;
        let finished = {
            let mut call = pin!(send(&mut client, get()));
            let mut finished = false;
            for _ in 0..polls {
                let mut cx = Context::from_waker(Waker::noop());
                if !finished && call.as_mut().poll(&mut cx).is_ready() {
                    finished = true;
                }
                advance(ms(200)).await;
            }
            finished
        };
        let state = breaker.handle().state();
        assert!(
            if finished {
                state == State::Closed
            } else {
                state != State::Closed
            },
            "{polls}: {state:?}"
        );
        assert_eq!(
            status(&mut client, get()).await,
            200,
            "{polls}: there is room for another probe"
        );
        assert_eq!(breaker.handle().state(), State::Closed);
    }
}

#[test]
fn futures_and_services_go_where_their_parts_go() {
    fn sent<T: Send + 'static>(_: T) {}
    fn check<S>(mut service: S)
    where
        S: Service<Req, Error = Error> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        sent(service.clone());
        let _ = || sent(service.call(get()));
    }
    let breaker = CircuitBreaker::builder("test").build().unwrap();
    check(
        ServiceBuilder::new()
            .layer(DeadlineLayer::total(secs(1)))
            .layer(RetryLayer::http())
            .layer(breaker.layer())
            .layer(AttemptTimeoutLayer::new(secs(1)))
            .service(Server::statuses([])),
    );
    sent(breaker.handle());
}
