//! What a service may choose: waiting, routes, fingerprints, codecs, and layers that are not axum's.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use mainstay_errors::{Category, Problem};
use mainstay_idempotency::codec::{Aead, Codec, CodecError};
use mainstay_idempotency::{Covers, IdempotencyLayer, Scope, Wait};
use sqlx::Pool;
use tokio::time::Instant;
use tower::{ServiceBuilder, ServiceExt, service_fn};

use crate::app::{App, request};
use crate::db::{TestDb, on_each};

on_each!(
    a_duplicate_that_waits_gets_the_answer_in_one_process,
    a_duplicate_that_waits_gets_the_answer_across_processes,
    a_duplicate_that_waits_in_vain_is_a_409_in_time,
    a_duplicate_that_waits_takes_over_from_one_that_failed,
    a_duplicate_with_another_request_does_not_wait,
    a_storm_that_waits_runs_once,
    a_route_may_want_something_else,
    a_route_has_the_scope_it_was_given,
    a_route_that_is_given_again_has_its_last_settings,
    a_body_that_does_not_come_in_is_a_408_and_holds_no_key,
    a_key_of_one_route_is_no_key_of_a_route_that_covers_something_else,
    fingerprints_cover_what_they_are_told_to,
    answers_are_sealed_at_rest_and_replayed_after_a_rotation,
    an_answer_whose_key_is_lost_is_told_apart_from_one_that_never_was,
    an_answer_that_cannot_be_sealed_commits_nothing,
    any_tower_service_with_any_body_will_do
);

const LONG: Duration = Duration::from_secs(20);

fn patient<D: TestDb>(pool: Pool<D>, time: Duration) -> App<D> {
    App::with(pool, |layer| layer.wait(Wait::Up(time)))
}

/// Holds `k` in the handler of `holder`, and hands the answer to be.
async fn held<D: TestDb>(holder: &App<D>) -> tokio::task::JoinHandle<crate::app::Answer> {
    let holding = tokio::spawn({
        let holder = holder.clone();
        async move { holder.post("k", "wait").await }
    });
    holder.world.entered.notified().await;
    holding
}

async fn waits_and_replays<D: TestDb>(holder: &App<D>, other: &App<D>) {
    let first = held(holder).await;
    let second = tokio::spawn({
        let other = other.clone();
        async move { other.post("k", "wait").await }
    });
    tokio::task::yield_now().await;
    assert!(!second.is_finished());
    holder.world.gate.add_permits(1);
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!(first.status, StatusCode::CREATED);
    assert!(second.replayed(), "{} {:?}", second.status, second.body);
    assert_eq!(first.body, second.body);
    assert_eq!(
        (holder.runs(), holder.effects("wait").await),
        (1, 1),
        "nobody ran twice"
    );
}

async fn a_duplicate_that_waits_gets_the_answer_in_one_process<D: TestDb>(pool: Pool<D>) {
    let app = patient(pool, LONG);
    waits_and_replays(&app, &app).await;
}

async fn a_duplicate_that_waits_gets_the_answer_across_processes<D: TestDb>(pool: Pool<D>) {
    let [here, there] = [patient(pool.clone(), LONG), patient(pool, LONG)];
    waits_and_replays(&here, &there).await;
    assert_eq!(there.runs(), 0);
}

async fn a_duplicate_that_waits_in_vain_is_a_409_in_time<D: TestDb>(pool: Pool<D>) {
    let time = Duration::from_millis(150);
    let [here, there] = [patient(pool.clone(), time), patient(pool, time)];
    let first = held(&here).await;
    // SQLite cannot tell whose writer is in the way, and its own patience comes on top.
    let elsewhere = if D::NAME == "SQLite" {
        "idempotency_store_busy"
    } else {
        "idempotency_key_in_flight"
    };
    for (app, code) in [(&here, "idempotency_key_in_flight"), (&there, elsewhere)] {
        let asked = Instant::now();
        let answer = app.post("k", "wait").await;
        let waited = asked.elapsed();
        assert_eq!(answer.code(), code);
        assert_eq!(answer.headers["retry-after"], "1");
        assert!(waited >= time && waited < LONG, "{waited:?}");
    }
    here.world.gate.add_permits(1);
    assert_eq!(first.await.unwrap().status, StatusCode::CREATED);
    // The timeout of the wait is not that of what runs afterwards.
    assert_eq!(there.post("other", "ok").await.status, StatusCode::CREATED);
}

async fn a_duplicate_that_waits_takes_over_from_one_that_failed<D: TestDb>(pool: Pool<D>) {
    let brief = App::with(pool.clone(), |layer| {
        layer
            .wait(Wait::Up(LONG))
            .handler_time_max(Duration::from_millis(300))
    });
    for (key, other) in [("here", brief.clone()), ("there", patient(pool, LONG))] {
        let failing = tokio::spawn({
            let brief = brief.clone();
            async move { brief.post(key, "wait").await }
        });
        brief.world.entered.notified().await;
        let waiting = tokio::spawn({
            let other = other.clone();
            async move { other.post(key, "wait").await }
        });
        let failed = failing.await.unwrap();
        assert_eq!(failed.code(), "idempotency_handler_timeout");
        other.world.entered.notified().await;
        other.world.gate.add_permits(1);
        let ran = waiting.await.unwrap();
        assert_eq!((ran.status, ran.replayed()), (StatusCode::CREATED, false));
    }
    assert_eq!(brief.effects("wait").await, 2, "one for each key");
}

async fn a_duplicate_with_another_request_does_not_wait<D: TestDb>(pool: Pool<D>) {
    let app = patient(pool, LONG);
    let first = held(&app).await;
    let asked = Instant::now();
    assert_eq!(
        app.post("k", "other").await.code(),
        "idempotency_key_reused"
    );
    assert!(asked.elapsed() < LONG / 2);
    app.world.gate.add_permits(1);
    assert_eq!(first.await.unwrap().status, StatusCode::CREATED);
}

async fn a_storm_that_waits_runs_once<D: TestDb>(pool: Pool<D>) {
    let apps: Vec<_> = (0..2).map(|_| patient(pool.clone(), LONG)).collect();
    let answers = join_all((0..64).map(|n| {
        let app = apps[n % 2].clone();
        async move {
            tokio::spawn(async move { app.post("k", "ok").await })
                .await
                .unwrap()
        }
    }))
    .await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == StatusCode::CREATED)
    );
    let ran = answers.iter().filter(|answer| !answer.replayed()).count();
    assert_eq!((ran, apps[0].runs() + apps[1].runs()), (1, 1));
    assert_eq!(apps[0].effects("ok").await, 1);
}

async fn a_route_may_want_something_else<D: TestDb>(pool: Pool<D>) {
    let app = App::with(pool, |layer| {
        layer
            .required(false)
            .route("/bare", |route| route.required(true))
            .route("/no/such", |route| route.methods([]))
    });
    assert_eq!(
        app.send(request(None, "ok")).await.status,
        StatusCode::CREATED
    );
    let mut bare = request(None, "ok");
    *bare.uri_mut() = "/bare?x=1".parse().unwrap();
    assert_eq!(app.send(bare).await.code(), "idempotency_key_missing");
}

async fn a_route_has_the_scope_it_was_given<D: TestDb>(pool: Pool<D>) {
    let app = App::with(pool, |layer| {
        layer.route("/bare", |route| {
            route.scope(|_| Err(Problem::new(Category::Unauthenticated, "not_here")))
        })
    });
    assert_eq!(app.post("k", "ok").await.status, StatusCode::CREATED);
    let mut bare = request(Some("k"), "ok");
    *bare.uri_mut() = "/bare".parse().unwrap();
    assert_eq!(app.send(bare).await.code(), "not_here");
}

async fn a_route_that_is_given_again_has_its_last_settings<D: TestDb>(pool: Pool<D>) {
    let app = App::with(pool, |layer| {
        layer
            .route("/pay", |route| route.request_bytes_max(1).required(false))
            .route("/pay", |route| route.request_bytes_max(4))
    });
    assert_eq!(app.post("k", "ok").await.status, StatusCode::CREATED);
    assert_eq!(
        app.post("k", "too long").await.code(),
        "request_body_too_large"
    );
    let answer = app.send(request(None, "ok")).await;
    assert_eq!(
        answer.code(),
        "idempotency_key_missing",
        "nothing of the first"
    );
}

async fn a_body_that_does_not_come_in_is_a_408_and_holds_no_key<D: TestDb>(pool: Pool<D>) {
    let app = App::with(pool, |layer| {
        layer.request_time_max(Duration::from_millis(50))
    });
    let silent = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
    let slow = request(Some("k"), "").map(|_| Body::from_stream(silent));
    let answer = app.send(slow).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (StatusCode::REQUEST_TIMEOUT, "request_body_timeout")
    );
    assert_eq!(app.runs(), 0);
    assert_eq!(app.post("k", "ok").await.status, StatusCode::CREATED);
}

async fn a_key_of_one_route_is_no_key_of_a_route_that_covers_something_else<D: TestDb>(
    pool: Pool<D>,
) {
    let app = App::with(pool, |layer| {
        layer.route("/bare", |route| route.fingerprint(Covers::CanonicalJson))
    });
    assert_eq!(app.post("k", "ok").await.status, StatusCode::CREATED);
    let mut bare = request(Some("k"), "ok");
    *bare.uri_mut() = "/bare".parse().unwrap();
    assert_eq!(app.send(bare).await.code(), "idempotency_key_reused");
}

async fn fingerprints_cover_what_they_are_told_to<D: TestDb>(pool: Pool<D>) {
    let (one, spelt, more) = (
        r#"{"amount":1,"at":1}"#,
        r#"{ "at":1, "amount":1.0 }"#,
        r#"{"amount":1,"at":2}"#,
    );
    for (covers, replayed) in [
        (Covers::Body, [false, false]),
        (Covers::CanonicalJson, [true, false]),
        (Covers::Fields(&["/amount"]), [true, true]),
    ] {
        let app = App::with(pool.clone(), |layer| layer.fingerprint(covers));
        let key = format!("{covers:?}").replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        assert_eq!(app.post(&key, one).await.status, StatusCode::CREATED);
        for (body, replayed) in [spelt, more].into_iter().zip(replayed) {
            let answer = app.post(&key, body).await;
            assert_eq!(answer.replayed(), replayed, "{covers:?} {body}");
            if !replayed {
                assert_eq!(answer.code(), "idempotency_key_reused");
            }
        }
        assert_eq!(app.runs(), 1);
    }
}

const OLD: [u8; 32] = [1; 32];
const NEW: [u8; 32] = [2; 32];

async fn answers_are_sealed_at_rest_and_replayed_after_a_rotation<D: TestDb>(pool: Pool<D>) {
    let plain = App::new(pool.clone());
    let before = App::with(pool.clone(), |layer| layer.codec(Aead::new(1, &OLD)));
    let after = App::with(pool.clone(), |layer| {
        layer.codec(Aead::new(2, &NEW).and(1, &OLD))
    });
    let of_plain = plain.post("plain", "ok").await;
    let sealed = before.post("k", "ok").await;
    assert_eq!(sealed.status, StatusCode::CREATED);
    // A refusal takes another way into the table.
    let refused = before.post("r", "status 422").await;
    for app in [&before, &after] {
        for (key, body, first) in [
            ("plain", "ok", &of_plain),
            ("k", "ok", &sealed),
            ("r", "status 422", &refused),
        ] {
            let again = app.post(key, body).await;
            assert!(again.replayed(), "{key}");
            assert_eq!((again.status, &again.body), (first.status, &first.body));
            assert_eq!(again.headers.get("location"), first.headers.get("location"));
            assert!(!again.headers.contains_key("mainstay-sealed"));
        }
    }
    let scope = Scope::new("acme", "", "pay");
    for (key, readable) in [("plain", true), ("k", false), ("r", false)] {
        let key = mainstay_idempotency::Key::new(key).unwrap();
        let (_, stored) = D::lookup(&pool, &scope, &key).await.unwrap().unwrap();
        let found = stored.body.windows(4).any(|bytes| bytes == b"run ");
        assert_eq!(found, readable, "{key:?}");
        assert_eq!(stored.headers.contains_key("content-type"), readable);
    }
}

async fn an_answer_whose_key_is_lost_is_told_apart_from_one_that_never_was<D: TestDb>(
    pool: Pool<D>,
) {
    let sealed = App::with(pool.clone(), |layer| layer.codec(Aead::new(1, &OLD)));
    assert_eq!(sealed.post("k", "ok").await.status, StatusCode::CREATED);
    for app in [
        App::new(pool.clone()),
        App::with(pool.clone(), |layer| layer.codec(Aead::new(1, &NEW))),
        App::with(pool, |layer| layer.codec(Aead::new(2, &OLD))),
    ] {
        let answer = app.post("k", "ok").await;
        assert_eq!(
            (answer.status, answer.code().as_str(), app.runs()),
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                "idempotency_record_unreadable",
                0
            )
        );
    }
}

struct NoKey;

impl Codec for NoKey {
    fn key_id(&self) -> u32 {
        0
    }
    fn seal(&self, _: &[u8], _: &[u8]) -> Result<Vec<u8>, CodecError> {
        Err(CodecError)
    }
    fn open(&self, _: u32, _: &[u8], _: &[u8]) -> Result<Vec<u8>, CodecError> {
        Err(CodecError)
    }
}

async fn an_answer_that_cannot_be_sealed_commits_nothing<D: TestDb>(pool: Pool<D>) {
    let app = App::with(pool.clone(), |layer| layer.codec(NoKey));
    let answer = app.post("k", "ok").await;
    assert_eq!(answer.code(), "idempotency_response_not_kept");
    assert_eq!(app.effects("ok").await, 0);
    assert_eq!(
        App::new(pool).post("k", "ok").await.status,
        StatusCode::CREATED
    );
}

/// No axum: a request body of one type, a response body of another, an error of its own.
async fn any_tower_service_with_any_body_will_do<D: TestDb>(pool: Pool<D>) {
    let idempotency =
        IdempotencyLayer::<D>::local(pool).scope(|_| Ok(Scope::new("acme", "", "pay")));
    let service = ServiceBuilder::new().layer(idempotency).service(service_fn(
        async |request: Request<Body>| {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(format!(
                "heard {} bytes",
                body.len()
            )))))
        },
    ));
    for replayed in [false, true] {
        let request = Request::post("/")
            .header("idempotency-key", "k")
            .body(Full::new(Bytes::from_static(b"hello")))
            .unwrap();
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(
            response.headers().contains_key("idempotent-replayed"),
            replayed
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "heard 5 bytes");
    }
}
