//! What strangers send: bodies without end, and thousands at once.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderValue, Request, StatusCode};
use mainstay_idempotency::Wait;
use mainstay_idempotency::leased::Leases;
use tokio::time::Instant;

use super::app::App;
use super::stores::{TestStore, on_each_store};
use crate::app::request;

on_each_store!(
    an_unknown_caller_learns_nothing_about_keys,
    k3_keys_that_look_alike_are_two_keys,
    bodies_without_end_are_refused_and_hold_no_key,
    requests_in_progress_have_a_cap,
    k6_a_thousand_on_one_key_are_told_from_memory,
    sixty_four_at_once_have_one_effect_and_the_rest_replays_or_409s,
    sixty_four_that_wait_all_have_the_answer
);

async fn an_unknown_caller_learns_nothing_about_keys<S: TestStore>(store: S) {
    let app = App::new(store);
    for key in [None, Some("k"), Some("not, one")] {
        let mut anonymous = request(key, "ok");
        anonymous.headers_mut().remove("x-tenant");
        let answer = app.send(anonymous).await;
        assert_eq!(answer.code(), "who_are_you", "{key:?}");
    }
    assert_eq!(app.runs(), 0);
}

async fn k3_keys_that_look_alike_are_two_keys<S: TestStore>(store: S) {
    let app = App::new(store);
    let keys = [
        "\"abc\"", "\"ABC\"", "\"abc \"", "\" abc\"", "1", "01", "1.0", "ss", "SS",
    ];
    for (n, key) in keys.into_iter().enumerate() {
        assert_eq!(app.post(key, "ok").await.status, StatusCode::CREATED);
        assert_eq!(app.runs(), n + 1, "{key}");
    }
}

async fn bodies_without_end_are_refused_and_hold_no_key<S: TestStore>(store: S) {
    let app = App::new(store);
    let endless = futures_util::stream::repeat_with(|| {
        Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 16 * 1024]))
    });
    let endless = Request::post("/pay")
        .header("x-tenant", "acme")
        .header("idempotency-key", "k")
        .body(Body::from_stream(endless))
        .unwrap();
    assert_eq!(app.send(endless).await.code(), "request_body_too_large");
    let mut declared = request(Some("k"), "ok");
    declared
        .headers_mut()
        .insert("content-length", HeaderValue::from_static("99999999999999"));
    assert_eq!(app.send(declared).await.code(), "request_body_too_large");
    assert_eq!(app.runs(), 0);
    assert_eq!(app.post("k", "ok").await.status, StatusCode::CREATED);
}

async fn requests_in_progress_have_a_cap<S: TestStore>(store: S) {
    let app = App::with(store, |layer| layer.in_flight_max(1));
    let first = tokio::spawn({
        let app = app.clone();
        async move { app.post("k", "wait").await }
    });
    app.world.entered.notified().await;
    let answer = app.post("other", "ok").await;
    assert_eq!(answer.code(), "idempotency_overloaded");
    app.world.gate.add_permits(1);
    assert_eq!(first.await.unwrap().status, StatusCode::CREATED);
}

async fn k6_a_thousand_on_one_key_are_told_from_memory<S: TestStore>(store: S) {
    let app = App::new(store);
    let first = tokio::spawn({
        let app = app.clone();
        async move { app.post("k", "wait").await }
    });
    app.world.entered.notified().await;
    let asked = Instant::now();
    let answers = join_all((0..1000).map(|_| app.post("k", "wait"))).await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == StatusCode::CONFLICT)
    );
    assert!(asked.elapsed() < Duration::from_secs(20));
    // No connection is held meanwhile, not even by the one that runs.
    assert_eq!(app.post("other", "ok").await.status, StatusCode::CREATED);
    app.world.gate.add_permits(1);
    assert_eq!(first.await.unwrap().status, StatusCode::CREATED);
    assert_eq!((app.runs(), app.effects("wait").await), (2, 1));
}

/// By how many there were of each status, replays apart.
async fn storm<S: TestStore>(apps: &[App<S>]) -> HashMap<(u16, bool), usize> {
    let answers = join_all((0..64).map(|n| {
        let app = apps[n % apps.len()].clone();
        tokio::spawn(async move { app.post("k", "ok").await })
    }));
    let mut kinds: HashMap<_, usize> = HashMap::new();
    for answer in answers.await {
        let answer = answer.unwrap();
        let kind = (answer.status.as_u16(), answer.replayed());
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

async fn sixty_four_at_once_have_one_effect_and_the_rest_replays_or_409s<S: TestStore>(store: S) {
    let app = App::new(store.clone());
    let other = app.beside(Leases::new(store), |layer| layer);
    let mut kinds = storm(&[app.clone(), other.clone()]).await;
    assert_eq!(kinds.remove(&(201, false)), Some(1), "{kinds:?}");
    // SQLite's one writer may be in the way.
    for kind in [(201, true), (409, false), (503, false)] {
        kinds.remove(&kind);
    }
    assert_eq!(kinds, HashMap::new());
    assert_eq!((app.runs() + other.runs(), app.effects("ok").await), (1, 1));
    assert!(app.post("k", "ok").await.replayed());
}

async fn sixty_four_that_wait_all_have_the_answer<S: TestStore>(store: S) {
    let app = App::with(store, |layer| layer.wait(Wait::Up(Duration::from_secs(20))));
    let kinds = storm(std::slice::from_ref(&app)).await;
    assert_eq!(kinds, HashMap::from([((201, false), 1), ((201, true), 63)]));
    assert_eq!((app.runs(), app.effects("ok").await), (1, 1));
}
