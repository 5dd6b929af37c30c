use std::{
    convert::Infallible,
    future::ready,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use mainstay_retry::{
    AcceptDeadlineLayer, AttemptTimeoutLayer, Backoff, BoxError, Deadline, DeadlineLayer, Error,
    RetryLayer,
    deadline::{GRPC_TIMEOUT, HEADER},
};
use tokio::time::{Instant, advance};
use tower::{Layer, Service, ServiceBuilder, service_fn};

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
    let cases: [(&[&str], u64); 10] = [
        (&[], limit),
        (&["5000"], 5_000),
        (&[" 5000 "], 5_000),
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

#[tokio::test(start_paused = true)]
async fn a_call_that_is_first_polled_after_its_deadline_does_not_begin() {
    let begun = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&begun);
    let lazy = service_fn(move |_: Req| {
        let count = Arc::clone(&count);
        async move {
            count.fetch_add(1, Relaxed);
            Ok::<_, Infallible>(Res::default())
        }
    });
    let mut client = DeadlineLayer::total(secs(1)).layer(lazy);
    let call = client.call(get());
    advance(secs(1)).await;
    assert!(call.await.unwrap_err().is_deadline_exceeded());
    assert_eq!(begun.load(Relaxed), 0);
    assert!(client.call(get()).await.is_ok());
}

/// A client that answers with 503 and what `grpc-timeout` and our own header said, attempt by attempt.
fn told(
    log: &Arc<std::sync::Mutex<Vec<[Option<String>; 2]>>>,
) -> impl Service<Req, Response = Res, Error = Infallible, Future: Send> + Clone + use<> {
    let log = Arc::clone(log);
    service_fn(move |request: Req| {
        let header = |name| Some(request.headers().get(name)?.to_str().unwrap().to_owned());
        log.lock()
            .unwrap()
            .push([header(&GRPC_TIMEOUT), header(&HEADER)]);
        ready(Ok(http::Response::builder()
            .status(503)
            .body(Full::default())
            .unwrap()))
    })
}

#[tokio::test(start_paused = true)]
async fn a_grpc_server_is_told_in_its_own_header_and_a_shorter_wish_is_kept() {
    let log = Arc::default();
    let retry = || {
        RetryLayer::http()
            .max_attempts(2)
            .backoff(Backoff::constant(secs(1)))
    };
    for (propagate, callers, first, second) in [
        (true, None, Some("5000000u"), Some("4000000u")),
        (true, Some("10S"), Some("5000000u"), Some("4000000u")),
        (true, Some("3S"), Some("3000000u"), Some("2000000u")),
        (true, Some("soon"), Some("5000000u"), Some("4000000u")),
        (false, None, None, None),
        (false, Some("3S"), Some("3S"), Some("2000000u")),
        (false, Some("10S"), Some("10S"), Some("4000000u")),
    ] {
        let mut client = ServiceBuilder::new()
            .layer(DeadlineLayer::total(secs(5)).propagate(propagate))
            .layer(retry().non_idempotent(mainstay_retry::NonIdempotent::Always))
            .service(told(&log));
        let mut request = post("");
        request
            .headers_mut()
            .insert("content-type", "application/grpc+proto".parse().unwrap());
        if let Some(callers) = callers {
            request
                .headers_mut()
                .insert(GRPC_TIMEOUT, callers.parse().unwrap());
        }
        send(&mut client, request).await.unwrap();
        let expected = [first, second].map(|value| [value.map(str::to_owned), None]);
        assert_eq!(*log.lock().unwrap(), expected, "{propagate} {callers:?}");
        log.lock().unwrap().clear();
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_reads_both_headers_and_takes_the_sooner() {
    for (plain, grpc, left) in [
        (None, Some("5S"), secs(5)),
        (Some("4000"), Some("5S"), secs(4)),
        (Some("5000"), Some("4000m"), secs(4)),
        (None, Some("99999999H"), secs(30)),
        (None, Some("5s"), secs(30)),
        (Some("soon"), Some("1M"), secs(30)),
        (Some("soon"), Some("2000000u"), secs(2)),
    ] {
        let server = Server::statuses([]);
        let mut request = get();
        for (name, value) in [(HEADER, plain), (GRPC_TIMEOUT, grpc)] {
            if let Some(value) = value {
                request.headers_mut().insert(name, value.parse().unwrap());
            }
        }
        let mut service = AcceptDeadlineLayer::at_most(secs(30)).layer(server.clone());
        status(&mut service, request).await;
        assert_eq!(
            server.seen(|seen| seen.deadline),
            [Some(Deadline::within(left))],
            "{plain:?} {grpc:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn work_without_time_is_refused_and_the_handler_does_not_see_it() {
    let server = Server::statuses([]);
    let mut service = AcceptDeadlineLayer::at_most(secs(30)).layer(server.clone());
    let mut request = get();
    request.headers_mut().insert(HEADER, "0".parse().unwrap());
    let response = send(&mut service, request).await.unwrap();
    assert_eq!(response.status(), 504);
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let document = String::from_utf8(body.to_vec()).unwrap();
    for part in ["\"deadline_exceeded\"", "\"not_applied\""] {
        assert!(document.contains(part), "{part} in {document}");
    }

    let mut request = post("");
    let headers = request.headers_mut();
    headers.insert(GRPC_TIMEOUT, "0n".parse().unwrap());
    headers.insert("content-type", "application/grpc+proto".parse().unwrap());
    let response = send(&mut service, request).await.unwrap();
    assert_eq!(response.status(), 200, "gRPC has its own status");
    assert_eq!(response.headers()["grpc-status"], "4");
    assert_eq!(response.headers()["content-type"], "application/grpc+proto");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, Bytes::new());
    assert_eq!(server.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_waited_too_long_for_its_turn_is_refused() {
    let server = Server::new([Step::Slow(secs(3), 200)]);
    let service = ServiceBuilder::new()
        .layer(AcceptDeadlineLayer::at_most(secs(30)))
        // Buffers the request with its deadline, behind the one that is slow.
        .buffer(10)
        .concurrency_limit(1)
        .layer(AcceptDeadlineLayer::at_most(secs(30)))
        .service(server.clone());
    let asked = |millis: &str| {
        let mut request = get();
        request
            .headers_mut()
            .insert(HEADER, millis.parse().unwrap());
        let mut service = service.clone();
        async move { status(&mut service, request).await }
    };
    let (slow, late, patient) = tokio::join!(asked("20000"), asked("2000"), asked("10000"));
    assert_eq!((slow, late, patient), (200, 504, 200));
    assert_eq!(server.calls(), 2, "nobody worked for the one who had gone");
}

#[cfg(feature = "axum")]
#[tokio::test(start_paused = true)]
async fn a_handler_gets_the_deadline_as_an_argument() {
    use axum::{Router, body::Body, routing::get};
    let seen = |deadline: Deadline| async move {
        let now = Instant::now().into_std();
        deadline.statement_timeout(now).unwrap().to_string()
    };
    let maybe = |deadline: Option<Deadline>| async move { deadline.is_some().to_string() };
    let slowly = |_: Slow, _: Deadline| async { "too late" };
    let routes = Router::new()
        .route("/seen", get(seen))
        .route("/maybe", get(maybe))
        .route("/slowly", get(slowly));
    let inside = routes.clone().layer(AcceptDeadlineLayer::at_most(secs(30)));
    for (app, path, answer) in [
        (&inside, "/seen", (200, "1500ms")),
        (&inside, "/maybe", (200, "true")),
        (&routes, "/maybe", (200, "false")),
        (&routes, "/seen", (500, "\"internal\"")),
        (&inside, "/slowly", (504, "\"not_applied\"")),
    ] {
        let request = http::Request::get(path)
            .header(HEADER, "1500")
            .body(Body::empty())
            .unwrap();
        let response = app.clone().call(request).await.unwrap();
        assert_eq!(response.status(), answer.0, "{path}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.contains(answer.1), "{path}: {body}");
    }
}

/// An extractor that takes two seconds, as a body on a slow line does.
#[cfg(feature = "axum")]
struct Slow;

#[cfg(feature = "axum")]
impl<S: Sync> axum::extract::FromRequestParts<S> for Slow {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut http::request::Parts, _: &S) -> Result<Self, Infallible> {
        tokio::time::sleep(secs(2)).await;
        Ok(Self)
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_that_a_request_says_already_is_never_lengthened() {
    // Whoever passes requests on may have left the header of the one before it.
    for (said, told, refused) in [
        ("50", Some(50), false),
        ("9000", Some(5_000), false),
        ("soon", Some(5_000), false),
        ("0", None, true),
    ] {
        let server = Server::statuses([]).ready_at_once();
        let mut client = DeadlineLayer::total(secs(5)).layer(server.clone());
        let mut request = get();
        request
            .headers_mut()
            .insert("x-deadline-ms", said.parse().unwrap());
        let outcome = send(&mut client, request).await;
        assert_eq!(outcome.is_err(), refused, "{said}");
        let left = server.seen(|seen| (seen.time_left, seen.deadline));
        assert_eq!(left.first().and_then(|seen| seen.0), told, "{said}");
        for (millis, deadline) in left {
            let now = Instant::now().into_std();
            let deadline = deadline.unwrap().remaining(now);
            assert_eq!(
                Some(deadline.as_millis() as u64),
                millis,
                "{said}: both say the same"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_further_attempt_does_not_lengthen_what_the_caller_wrote() {
    for (said, told) in [("1000", ["1000", "1000"]), ("4800", ["4800", "4500"])] {
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let server = service_fn(move |request: Req| {
            log.lock().unwrap().push(request.headers()[HEADER].clone());
            ready(Err::<Res, BoxError>("reset".into()))
        });
        let mut client = ServiceBuilder::new()
            .layer(DeadlineLayer::total(secs(5)).propagate(false))
            .layer(
                RetryLayer::http()
                    .max_attempts(2)
                    .backoff(Backoff::constant(ms(500))),
            )
            .service(server);
        let mut request = get();
        request.headers_mut().insert(HEADER, said.parse().unwrap());
        assert!(send(&mut client, request).await.is_err());
        assert_eq!(*seen.lock().unwrap(), told);
    }
}
