use std::{
    mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use mainstay_retry::{
    AttachIdempotencyKeyLayer, Attempt, Backoff, BoxError, CircuitBreaker, CircuitOpen, Classify,
    CloneReplay, Deadline, Error, EveryError, HttpClassify, HttpReplay, Kind, NonIdempotent,
    OnUnready, Replay, RetryLayer, TokenBudget, Trip, Verdict, retry::PerHost,
};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

use crate::support::*;

fn eager() -> RetryLayer<HttpClassify, HttpReplay> {
    RetryLayer::http().backoff(Backoff::constant(ms(10)))
}

#[tokio::test(start_paused = true)]
async fn a_failing_call_is_tried_again_until_it_succeeds() {
    let server = Server::new([Step::Status(503), Step::Reset]);
    let mut client = eager().layer(server.clone());
    let put = Request::put("http://localhost/")
        .body("hello".into())
        .unwrap();
    assert_eq!(status(&mut client, put).await, 200);
    assert_eq!(
        server.seen(|seen| seen.attempt.unwrap().to_string()),
        ["1 of 3", "2 of 3", "3 of 3"]
    );
    let bodies = server.seen(|seen| seen.body.clone().into_inner());
    assert!(bodies.iter().all(|body| body.as_deref() == Some(b"hello")));
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_waits() {
    let times = async |seed| {
        let server = Server::statuses([503; 8]);
        let retry = RetryLayer::http().max_attempts(9).without_budget();
        let start = Instant::now();
        status(&mut retry.seed(seed).layer(server.clone()), get()).await;
        server.seen(|seen| seen.at - start)
    };
    let once = times(7).await;
    assert_eq!(times(7).await, once);
    assert_ne!(times(8).await, once);
}

#[tokio::test(start_paused = true)]
async fn the_last_outcome_is_returned_as_it_is() {
    let server = Server::statuses([500, 502, 503, 200]);
    let mut client = eager().layer(server.clone());
    assert_eq!(status(&mut client, get()).await, 503);
    assert_eq!(server.calls(), 3);

    let server = Server::new([Step::Reset, Step::Reset, Step::Reset]);
    let error = send(&mut eager().layer(server), get()).await.unwrap_err();
    assert!(
        error.is::<std::io::Error>(),
        "the transport's own error, unwrapped"
    );
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_the_callers_own_doing_are_not_tried_again() {
    for answer in [200, 204, 301, 400, 401, 404, 409, 422, 501, 505] {
        let server = Server::statuses([answer]);
        assert_eq!(
            status(&mut eager().layer(server.clone()), get()).await,
            answer
        );
        assert_eq!(server.calls(), 1, "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_method_that_is_not_idempotent_needs_a_key() {
    use NonIdempotent::{Always, Never, RequireIdempotencyKey};
    let cases = [
        ("GET", None, RequireIdempotencyKey, 2),
        ("PUT", None, RequireIdempotencyKey, 2),
        ("DELETE", None, Never, 2),
        ("POST", None, RequireIdempotencyKey, 1),
        ("PATCH", None, RequireIdempotencyKey, 1),
        ("CONNECT", None, RequireIdempotencyKey, 1),
        ("PURCHASE", None, RequireIdempotencyKey, 1),
        ("POST", Some("k1"), RequireIdempotencyKey, 2),
        ("POST", Some(""), RequireIdempotencyKey, 1),
        ("POST", Some("\"\""), RequireIdempotencyKey, 1),
        ("POST", Some("k1"), Never, 1),
        ("POST", None, Always, 2),
    ];
    for (method, key, rule, attempts) in cases {
        let server = Server::statuses([503]);
        let mut request = Request::builder().method(method).uri("http://localhost/");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let mut client = eager().non_idempotent(rule).layer(server.clone());
        send(
            &mut client,
            request.body(http_body_util::Full::default()).unwrap(),
        )
        .await
        .unwrap();
        assert_eq!(server.calls(), attempts, "{method} {key:?} {rule:?}");
        let seen = server.seen(|seen| seen.attempt.unwrap());
        assert_eq!(
            seen[0].is_last(),
            attempts == 1,
            "a call that cannot be repeated knows it"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn one_key_is_made_for_all_attempts_and_the_callers_own_is_kept() {
    let server = Server::statuses([503, 503, 200, 503]);
    let mut client = ServiceBuilder::new()
        .layer(AttachIdempotencyKeyLayer::new())
        .layer(eager())
        .service(server.clone());
    assert_eq!(status(&mut client, post("a")).await, 200);
    let mut mine = post("b");
    mine.headers_mut()
        .insert("idempotency-key", "mine".parse().unwrap());
    assert_eq!(status(&mut client, mine).await, 200);
    assert_eq!(status(&mut client, post("c")).await, 200);
    assert_eq!(status(&mut client, get()).await, 200);

    let keys = server.seen(|seen| seen.key.clone());
    let made = keys[0].as_deref().unwrap();
    let uuid = made
        .strip_prefix('"')
        .and_then(|key| key.strip_suffix('"'))
        .unwrap();
    assert_eq!(uuid::Uuid::parse_str(uuid).unwrap().get_version_num(), 7);
    assert!(keys[..3].iter().all(|key| key.as_deref() == Some(made)));
    assert!(keys[3..5].iter().all(|key| key.as_deref() == Some("mine")));
    assert_ne!(keys[5], keys[0]);
    assert_eq!(keys[6], None, "a GET needs none");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_large_gets_one_attempt() {
    for (max_bytes, attempts) in [(5, 2), (4, 1), (0, 1)] {
        let server = Server::statuses([503]);
        let mut client = eager().max_replay_bytes(max_bytes).layer(server.clone());
        let put = Request::put("http://localhost/")
            .body("hello".into())
            .unwrap();
        send(&mut client, put).await.unwrap();
        assert_eq!(server.calls(), attempts, "{max_bytes}");
    }
}

/// Can be cloned, but nobody knows how much will come.
#[derive(Clone)]
struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"more")))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_of_unknown_size_gets_one_attempt() {
    let server = Server::statuses([503]);
    let full =
        |request: Request<Endless>| request.map(|_| http_body_util::Full::<Bytes>::default());
    let mut client = eager().layer(server.clone().map_request(full));
    let put = Request::put("http://localhost/").body(Endless).unwrap();
    assert_eq!(
        client
            .ready()
            .await
            .unwrap()
            .call(put)
            .await
            .unwrap()
            .status(),
        503
    );
    assert_eq!(server.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_servers_wish_for_a_wait_is_heeded_up_to_the_cap() {
    for (asked, waited) in [
        ("7", secs(7)),
        ("0", ms(0)),
        ("3600", secs(300)),
        ("-1", ms(0)),
        ("soon", ms(0)),
    ] {
        let server = Server::new([Step::RetryAfter(503, asked)]);
        let layer = RetryLayer::http()
            .backoff(Backoff::constant(ms(0)))
            .retry_after_cap(secs(300));
        let start = Instant::now();
        assert_eq!(status(&mut layer.layer(server), get()).await, 200);
        assert_eq!(
            start.elapsed(),
            waited,
            "{asked}: a wait of zero takes no timer tick either"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_first_attempt_is_still_running_there_comes_back_for_the_answer() {
    let server = Server::new([Step::Reset, Step::RetryAfter(409, "1")]);
    let mut request = post("pay");
    request
        .headers_mut()
        .insert("idempotency-key", "k1".parse().unwrap());
    assert_eq!(status(&mut eager().layer(server), request).await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_would_pass_the_deadline_is_refused_now_and_not_charged() {
    for (left, attempts) in [(secs(7), 1), (ms(7_011), 2)] {
        let server = Server::new([Step::RetryAfter(503, "7")]);
        let budget = TokenBudget::success_credit(0.0)
            .capacity(5)
            .shared()
            .unwrap();
        let mut client = eager().budget(budget.clone()).layer(server.clone());
        let mut request = get();
        request.extensions_mut().insert(Deadline::within(left));
        let start = Instant::now();
        send(&mut client, request).await.unwrap();
        assert_eq!(server.calls(), attempts, "{left:?}");
        assert_eq!(budget.tokens(), 6 - attempts as u64);
        assert!(attempts > 1 || start.elapsed().is_zero());
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_ends_the_retries_until_successes_fill_it() {
    let server = Server::statuses(std::iter::repeat_n(503, 100));
    let budget = TokenBudget::success_credit(0.5)
        .capacity(3)
        .refill_per_second(0.0)
        .shared()
        .unwrap();
    let layer = eager().budget(budget.clone());
    // Two services of one layer draw on one budget.
    let (mut one, mut two) = (layer.layer(server.clone()), layer.layer(server.clone()));
    assert_eq!(status(&mut one, get()).await, 503);
    assert_eq!(status(&mut two, get()).await, 503);
    assert_eq!(status(&mut one, get()).await, 503);
    assert_eq!(
        (server.calls(), budget.tokens()),
        (3 + 2 + 1, 0),
        "three calls, three retries"
    );

    let healthy = Server::statuses([]);
    let mut client = layer.layer(healthy);
    for _ in 0..2 {
        status(&mut client, get()).await;
    }
    assert_eq!(budget.tokens(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_is_neither_tried_again_nor_charged() {
    let server = Server::statuses([]);
    let breaker = CircuitBreaker::builder("test").build().unwrap();
    breaker.handle().force_open();
    let budget = TokenBudget::success_credit(0.0)
        .capacity(5)
        .shared()
        .unwrap();
    let mut client = ServiceBuilder::new()
        .layer(eager().budget(budget.clone()))
        .layer(breaker.layer())
        .service(server.clone());
    let error = send(&mut client, get()).await.unwrap_err();
    assert!(error.is_circuit_open());
    assert_eq!((server.calls(), budget.tokens()), (0, 5));
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_opens_between_attempts_is_told_as_attempted() {
    let server = Server::new([Step::Reset]);
    let breaker = CircuitBreaker::builder("test")
        .trip(Trip::consecutive(1))
        .build()
        .unwrap();
    let mut client = ServiceBuilder::new()
        .layer(eager())
        .layer(breaker.layer())
        .service(server.clone());
    for attempted in [true, false] {
        match send(&mut client, get()).await.unwrap_err() {
            Error::CircuitOpen(open) => assert_eq!(open.attempted(), attempted),
            other => panic!("{other}"),
        }
    }
    assert_eq!(server.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_gone_is_not_called_again() {
    let server = Server::statuses([503]).broken_after(1);
    let error = send(&mut eager().layer(server.clone()), get())
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "the server is gone");
    assert_eq!(server.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_concurrency_permit_is_held_through_a_wait() {
    let server = Server::statuses([503, 200, 200]);
    let service = ServiceBuilder::new()
        .layer(RetryLayer::http().backoff(Backoff::constant(secs(10))))
        .concurrency_limit(1)
        .service(server.clone());
    let (mut first, mut second) = (service.clone(), service);
    let start = Instant::now();
    let waiting = tokio::spawn(async move { status(&mut first, get()).await });
    while server.calls() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(status(&mut second, get()).await, 200);
    assert!(start.elapsed() < secs(1), "{:?}", start.elapsed());
    assert_eq!(waiting.await.unwrap(), 200);
    assert_eq!(start.elapsed(), secs(10));
}

#[tokio::test(start_paused = true)]
async fn it_works_over_buffer_and_load_shed() {
    let server = Server::statuses([503, 503]);
    let mut client = ServiceBuilder::new()
        .layer(eager())
        .buffer(4)
        .service(server.clone());
    assert_eq!(
        client
            .ready()
            .await
            .unwrap()
            .call(get())
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(server.calls(), 3);

    // The probe is pending when it is first asked, so the first attempt is shed and the second gets through.
    let server = Server::statuses([]);
    let mut client = ServiceBuilder::new()
        .layer(eager())
        .load_shed()
        .service(server.clone());
    assert_eq!(
        client
            .ready()
            .await
            .unwrap()
            .call(get())
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(server.seen(|seen| seen.attempt.unwrap().number), [2]);
}

#[tokio::test(start_paused = true)]
async fn any_request_and_error_will_do() {
    let failures = std::sync::atomic::AtomicU32::new(2);
    let service = tower::service_fn(|name: String| {
        let fail = failures
            .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
            .is_ok();
        async move {
            if fail {
                Err("no")
            } else {
                Ok(format!("hello {name}"))
            }
        }
    });
    let mut client = RetryLayer::new(EveryError, CloneReplay).layer(service);
    assert_eq!(
        client.ready().await.unwrap().call("you".into()).await,
        Ok("hello you".into())
    );
}

#[tokio::test(start_paused = true)]
async fn calls_that_fail_together_come_back_apart() {
    let server = Server::statuses(std::iter::repeat_n(503, 1_000));
    let layer = RetryLayer::http()
        .backoff(Backoff::full_jitter(secs(1), secs(20)))
        .without_budget()
        .max_attempts(2);
    let client = layer.layer(server.clone());
    let start = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..1_000 {
        let mut client = client.clone();
        calls.spawn(async move { status(&mut client, get()).await });
    }
    calls.join_all().await;
    let mut waits =
        server.seen(|seen| (seen.attempt.unwrap().number == 2).then(|| seen.at - start));
    waits.retain(Option::is_some);
    assert_eq!(waits.len(), 1_000);
    waits.dedup();
    // Timers have a grain of a millisecond, and there are a thousand of those in the second.
    assert!(waits.len() > 550, "{} distinct", waits.len());
}

/// Thinks that everything may pass.
#[derive(Clone)]
struct Hopeful;

impl<T> Classify<T, Error> for Hopeful {
    fn classify(&self, outcome: Result<&T, &Error>) -> Verdict {
        outcome.map_or(Verdict::Retryable(Kind::Transient, None), |_| {
            Verdict::Success
        })
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_is_final_whatever_a_classifier_says() {
    let server = Server::statuses([]);
    let breaker = CircuitBreaker::builder("test").build().unwrap();
    breaker.handle().force_open();
    let budget = TokenBudget::success_credit(0.0)
        .capacity(5)
        .shared()
        .unwrap();
    let mut client = ServiceBuilder::new()
        .layer(RetryLayer::new(Hopeful, HttpReplay::new()).budget(budget.clone()))
        .layer(breaker.layer())
        .service(server);
    let start = Instant::now();
    let error = send(&mut client, get()).await.unwrap_err();
    assert!(error.is_circuit_open());
    assert_eq!((start.elapsed(), budget.tokens()), (ms(0), 5));
}

/// Makes copies of the first attempt's request only.
#[derive(Clone, Default)]
struct OneCopy(Arc<AtomicBool>);

impl Replay<Req> for OneCopy {
    fn replay(&self, request: &Req) -> Option<Req> {
        (!self.0.swap(true, Relaxed)).then(|| request.clone())
    }

    fn stamp(&self, request: &mut Req, attempt: Attempt) {
        request.extensions_mut().insert(attempt);
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_cannot_be_copied_knows_that_it_is_the_last() {
    let server = Server::statuses([503, 503, 200]);
    let layer = RetryLayer::new(HttpClassify, OneCopy::default());
    assert_eq!(status(&mut layer.layer(server.clone()), get()).await, 503);
    assert_eq!(
        server.seen(|seen| seen.attempt.unwrap().is_last()),
        [false, true]
    );
}

#[tokio::test(start_paused = true)]
async fn every_attempt_knows_its_number_and_the_wait_before_it() {
    let server = Server::new([Step::RetryAfter(503, "7"), Step::Reset]);
    assert_eq!(status(&mut eager().layer(server.clone()), get()).await, 200);
    let waits = server.seen(|seen| seen.attempt.unwrap().prev_delay);
    assert_eq!(waits, [ms(0), ms(7_010), ms(10)]);
    let told = server.seen(|seen| seen.attempt_header.clone());
    assert_eq!(told, [None, Some("2".to_owned()), Some("3".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a_service_with_no_room_for_a_further_attempt_gives_the_last_outcome_back() {
    for (rule, expected) in [(OnUnready::Wait, None), (OnUnready::ReturnLast, Some(503))] {
        for wait in [ms(0), ms(10)] {
            let server = Server::statuses([503]);
            let mut client = RetryLayer::http()
                .backoff(Backoff::constant(wait))
                .on_unready(rule)
                .layer(server.clone());
            let ready = client.ready().await.unwrap();
            server.set_never_ready(true);
            let outcome = tokio::time::timeout(secs(60), ready.call(get())).await;
            let outcome = outcome
                .ok()
                .map(|outcome| outcome.unwrap().status().as_u16());
            assert_eq!(outcome, expected, "{rule:?} {wait:?}");
            assert_eq!(server.calls(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_ready_at_once_gets_its_further_attempts_under_either_rule() {
    let failures = std::sync::atomic::AtomicU32::new(2);
    let service = tower::service_fn(|(): ()| {
        let failed = failures.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        std::future::ready(if failed.is_ok() { Err("no") } else { Ok(()) })
    });
    let mut client = RetryLayer::new(EveryError, CloneReplay)
        .on_unready(OnUnready::ReturnLast)
        .layer(service);
    assert_eq!(client.ready().await.unwrap().call(()).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_calls_have_waits_of_their_own_even_from_whole_seconds() {
    // The layer is asked for its own decisions, finer than the millisecond of timers.
    let waits = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = Arc::clone(&waits);
    let service = tower::service_fn(move |request: Req| {
        let attempt = request.extensions().get::<Attempt>().copied().unwrap();
        if attempt.is_repeat() {
            let call: usize = *request.extensions().get().unwrap();
            log.lock().unwrap().push((call, attempt.prev_delay));
        }
        let status = if attempt.is_repeat() { 200 } else { 503 };
        let response = http::Response::builder().status(status).body(());
        std::future::ready(Ok::<_, BoxError>(response.unwrap()))
    });
    let client = RetryLayer::http()
        .backoff(Backoff::full_jitter(secs(1), secs(20)))
        .without_budget()
        .layer(service);
    let calls = (0..10_000_usize).map(|call| {
        let mut request = get();
        request.extensions_mut().insert(call);
        client.clone().oneshot(request)
    });
    let mut calls: Vec<_> = calls.map(Box::pin).collect();
    // All of them are under way at once.
    std::future::poll_fn(|cx| {
        calls.retain_mut(|call| call.as_mut().poll(cx).is_pending());
        if calls.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    let mut waits = mem::take(&mut *waits.lock().unwrap());
    // Each against the next call's: what one waits says nothing about its neighbour.
    waits.sort_unstable();
    let mut waits: Vec<_> = waits.into_iter().map(|(_, wait)| wait).collect();
    let mean = waits
        .iter()
        .map(std::time::Duration::as_secs_f64)
        .sum::<f64>()
        / 10_000.0;
    let off: Vec<f64> = waits.iter().map(|wait| wait.as_secs_f64() - mean).collect();
    let variance: f64 = off.iter().map(|x| x * x).sum();
    let covariance: f64 = off.iter().zip(&off[1..]).map(|(x, y)| x * y).sum();
    assert!(
        (covariance / variance).abs() < 0.05,
        "{}",
        covariance / variance
    );
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() >= 9_990, "{} distinct waits", waits.len());
}

fn to(host: &str) -> Req {
    let mut request = get();
    *request.uri_mut() = format!("http://{host}/").parse().unwrap();
    request
}

#[tokio::test(start_paused = true)]
async fn one_hosts_failures_do_not_spend_anothers_budget() {
    let server = Server::statuses(std::iter::repeat_n(503, 100));
    let budget = || {
        let budget = TokenBudget::success_credit(0.0).refill_per_second(0.0);
        budget.capacity(2).build().unwrap()
    };
    let layer = eager().per_key(PerHost, budget);
    // As a router does that applies a layer to each of its routes.
    let (mut one, mut two) = (layer.layer(server.clone()), layer.layer(server.clone()));
    for (host, calls) in [
        ("a", 3),
        ("a", 1),
        ("b", 3),
        ("a:81", 3),
        ("b", 1),
        ("a", 1),
    ] {
        let before = server.calls();
        status(&mut one, to(host)).await;
        assert_eq!(server.calls() - before, calls, "{host}");
        mem::swap(&mut one, &mut two);
    }
    assert_eq!(layer.keys(), 3);
}

#[tokio::test(start_paused = true)]
async fn any_number_of_hosts_takes_bounded_memory_and_keeps_those_in_use() {
    let server = Server::statuses([503, 503]);
    let budget = || {
        let budget = TokenBudget::success_credit(0.0).refill_per_second(0.0);
        budget.capacity(2).build().unwrap()
    };
    let layer = eager().per_key(PerHost, budget);
    let mut client = layer.layer(server.clone());
    status(&mut client, to("busy")).await;
    assert_eq!(server.calls(), 3, "its budget is spent");
    for n in 0..20_000 {
        status(&mut client, to(&format!("host{n}"))).await;
        if n % 100 == 0 {
            status(&mut client, to("busy")).await;
        }
        assert!(layer.keys() <= 1_024);
    }
    server.push([Step::Status(503)]);
    assert_eq!(
        status(&mut client, to("busy")).await,
        503,
        "and stays spent"
    );
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_has_ended_leaves_its_room_to_the_next_even_without_a_wait() {
    let server = Server::statuses([503, 503]).ready_at_once();
    let mut client = ServiceBuilder::new()
        .layer(
            eager()
                .backoff(Backoff::constant(ms(0)))
                .on_unready(OnUnready::ReturnLast),
        )
        .layer(tower::limit::ConcurrencyLimitLayer::new(1))
        .service(server.clone());
    // The limit's own future holds the permit until it is dropped, and there is one permit.
    assert_eq!(status(&mut client, get()).await, 200);
    assert_eq!(server.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_found_in_readiness_is_told_as_attempted_too() {
    let breaker = CircuitBreaker::builder("x")
        .trip(Trip::consecutive(1))
        .build()
        .unwrap();
    breaker.handle().force_open();
    let refusal = breaker.try_acquire().unwrap_err();

    /// Is ready once, fails once, and then is not ready for good.
    #[derive(Clone)]
    struct Once(CircuitOpen, bool);
    impl Service<()> for Once {
        type Response = ();
        type Error = Error;
        type Future = std::future::Ready<Result<(), Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
            let refusal = || Err(self.0.clone().into());
            Poll::Ready(if self.1 { refusal() } else { Ok(()) })
        }

        fn call(&mut self, (): ()) -> Self::Future {
            self.1 = true;
            std::future::ready(Err(Error::Inner("reset".into())))
        }
    }

    let mut client = RetryLayer::new(EveryError, CloneReplay)
        .backoff(Backoff::constant(ms(1)))
        .layer(Once(refusal, false));
    let error = client.ready().await.unwrap().call(()).await.unwrap_err();
    assert!(matches!(error, Error::CircuitOpen(open) if open.attempted()));
}
