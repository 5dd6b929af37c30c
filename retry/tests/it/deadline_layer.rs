use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use mainstay_retry::{
    AcceptDeadlineLayer, AttemptTimeoutLayer, Backoff, Deadline, DeadlineLayer, Error, RetryLayer,
    deadline::HEADER,
};
use tokio::time::{Instant, advance};
use tower::{Layer, ServiceBuilder};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_ends_at_its_deadline() {
    let server = Server::new([Step::Hang]);
    let start = Instant::now();
    let error = send(
        &mut DeadlineLayer::total(secs(3)).layer(server.clone()),
        get(),
    )
    .await
    .unwrap_err();
    assert!(matches!(error, Error::DeadlineExceeded(late) if late.started()));
    assert_eq!(start.elapsed(), secs(3));
    assert_eq!(server.under_way(), 0, "the call inside was dropped");
}

#[tokio::test(start_paused = true)]
async fn the_sooner_deadline_holds_and_the_server_is_told() {
    for (callers, told) in [
        (None, 3_000),
        (Some(secs(2)), 2_000),
        (Some(secs(4)), 3_000),
    ] {
        let server = Server::statuses([]);
        let mut request = get();
        if let Some(callers) = callers {
            request.extensions_mut().insert(Deadline::within(callers));
        }
        status(
            &mut DeadlineLayer::total(secs(3)).layer(server.clone()),
            request,
        )
        .await;
        assert_eq!(server.seen(|seen| seen.time_left), [Some(told)]);
    }
    let server = Server::statuses([]);
    status(
        &mut DeadlineLayer::total(secs(3))
            .propagate(false)
            .layer(server.clone()),
        get(),
    )
    .await;
    assert_eq!(server.seen(|seen| seen.time_left), [None], "{HEADER}");
}

#[tokio::test(start_paused = true)]
async fn a_call_without_time_is_not_made() {
    let server = Server::statuses([]);
    let error = send(
        &mut DeadlineLayer::total(ms(0)).layer(server.clone()),
        get(),
    )
    .await
    .unwrap_err();
    assert!(matches!(error, Error::DeadlineExceeded(late) if !late.started()));
    let mut late = get();
    late.extensions_mut().insert(Deadline::within(ms(0)));
    send(
        &mut DeadlineLayer::total(secs(1)).layer(server.clone()),
        late,
    )
    .await
    .unwrap_err();
    assert_eq!(server.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn every_attempt_tells_the_time_that_is_left_then() {
    let server = Server::statuses([503, 503]);
    let mut client = ServiceBuilder::new()
        .layer(DeadlineLayer::total(secs(5)))
        .layer(RetryLayer::http().backoff(Backoff::linear(secs(1), secs(1), secs(9))))
        .service(server.clone());
    assert_eq!(status(&mut client, get()).await, 200);
    assert_eq!(
        server.seen(|seen| seen.time_left),
        [Some(5_000), Some(4_000), Some(2_000)]
    );
}

#[tokio::test(start_paused = true)]
async fn no_attempt_starts_after_the_deadline() {
    let server = Server::new([
        Step::Slow(ms(900), 503),
        Step::Slow(ms(900), 503),
        Step::Status(200),
    ]);
    let mut client = ServiceBuilder::new()
        .layer(DeadlineLayer::total(ms(2_000)))
        .layer(RetryLayer::http().backoff(Backoff::constant(ms(150))))
        .service(server.clone());
    let start = Instant::now();
    assert_eq!(
        status(&mut client, get()).await,
        503,
        "the last answer is worth more than a timeout"
    );
    assert_eq!(
        start.elapsed(),
        ms(1_950),
        "a wait until 2100 ms was refused at once"
    );
    assert_eq!(server.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn readiness_that_comes_after_the_deadline_starts_nothing() {
    let server = Server::statuses([503]);
    let mut client = ServiceBuilder::new()
        .layer(DeadlineLayer::total(secs(2)))
        .layer(RetryLayer::http().backoff(Backoff::constant(ms(10))))
        .service(server.clone());
    let mut call = pin!(send(&mut client, get()));
    let mut cx = Context::from_waker(Waker::noop());
    while server.calls() == 0 || server.under_way() > 0 {
        assert!(call.as_mut().poll(&mut cx).is_pending());
    }
    // The wait is over and the server is asked for readiness; it says so only when the time is up.
    advance(ms(20)).await;
    assert!(call.as_mut().poll(&mut cx).is_pending());
    advance(secs(2)).await;
    match call.as_mut().poll(&mut cx) {
        Poll::Ready(outcome) => assert!(outcome.unwrap_err().is_deadline_exceeded()),
        Poll::Pending => panic!("still at it after the deadline"),
    }
    assert_eq!(server.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_is_cut_off_and_tried_again() {
    let server = Server::new([Step::Hang, Step::Slow(ms(900), 200)]);
    let mut client = ServiceBuilder::new()
        .layer(RetryLayer::http().backoff(Backoff::constant(ms(0))))
        .layer(AttemptTimeoutLayer::new(secs(1)))
        .service(server.clone());
    let start = Instant::now();
    assert_eq!(status(&mut client, get()).await, 200);
    assert_eq!(start.elapsed(), ms(1_900));

    server.push([Step::Hang, Step::Hang, Step::Hang]);
    let error = send(&mut client, get()).await.unwrap_err();
    assert!(matches!(error, Error::AttemptTimedOut(late) if late.limit() == secs(1)));
}

#[tokio::test(start_paused = true)]
async fn a_server_takes_the_callers_deadline_up_to_its_own_limit() {
    let limit = 30_000;
    let cases: [(&[&str], u64); 11] = [
        (&[], limit),
        (&["5000"], 5_000),
        (&[" 5000 "], 5_000),
        (&["0"], 0),
        (&["30001"], limit),
        (&["99999999999999999999"], limit),
        (&["-1"], limit),
        (&["1e3"], limit),
        (&["5.5"], limit),
        (&["soon"], limit),
        (&["5000", "1"], limit),
    ];
    for (headers, left) in cases {
        let server = Server::statuses([]);
        let mut request = get();
        for header in headers {
            request
                .headers_mut()
                .append(HEADER, header.parse().unwrap());
        }
        let mut service = AcceptDeadlineLayer::at_most(ms(limit)).layer(server.clone());
        status(&mut service, request).await;
        assert_eq!(
            server.seen(|seen| seen.deadline),
            [Some(Deadline::within(ms(left)))],
            "{headers:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_servers_inner_limit_does_not_lengthen_the_outer_one() {
    let server = Server::statuses([]);
    let mut service = ServiceBuilder::new()
        .layer(AcceptDeadlineLayer::at_most(secs(1)))
        .layer(AcceptDeadlineLayer::at_most(secs(30)))
        .service(server.clone());
    status(&mut service, get()).await;
    assert_eq!(
        server.seen(|seen| seen.deadline),
        [Some(Deadline::within(secs(1)))]
    );
}
