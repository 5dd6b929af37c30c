//! What becomes of an answer, and of a request that has none: nothing that is done is taken back, and nothing is guessed.

use std::time::Duration;

use http::StatusCode;
use mainstay_errors::{Outcome, Retry};
use mainstay_idempotency::codec::Aead;
use mainstay_idempotency::leased::Leases;
use mainstay_idempotency::{Keep, StripeV1, SuccessOnly};

use super::app::App;
use super::stores::{TestStore, on_each_store};
use crate::app::request;

on_each_store!(
    a_handler_without_the_lease_is_recorded_too,
    a_lease_is_lent_once,
    policies_decide_what_is_kept_and_steps_stay,
    a_request_that_failed_before_its_first_step_is_as_if_it_had_never_come,
    a_request_that_failed_after_a_step_goes_on_behind_it,
    what_cannot_be_kept_is_not_said_to_be_undone,
    a_remote_that_would_act_twice_is_not_asked_twice,
    a_lease_kept_past_the_answer_leaves_the_key_in_flight,
    every_step_that_commits_is_told,
    answers_are_sealed_at_rest
);

async fn a_handler_without_the_lease_is_recorded_too<S: TestStore>(store: S) {
    let app = App::new(store);
    for replayed in [false, true] {
        let mut bare = request(Some("k"), "ok");
        *bare.uri_mut() = "/bare".parse().unwrap();
        let answer = app.send(bare).await;
        assert_eq!(
            (answer.status, answer.replayed()),
            (StatusCode::CREATED, replayed)
        );
    }
    assert_eq!(app.runs(), 1);
}

async fn a_lease_is_lent_once<S: TestStore>(store: S) {
    let app = App::new(store);
    let mut twice = request(Some("k"), "ok");
    *twice.uri_mut() = "/twice".parse().unwrap();
    let answer = app.send(twice).await;
    assert_eq!(answer.code(), "idempotency_lease_missing");
}

async fn policies_decide_what_is_kept_and_steps_stay<S: TestStore>(store: S) {
    let terminal = App::new(store);
    let beside = |policy| {
        let leases = Leases::new(terminal.world.store.clone());
        match policy {
            "success" => terminal.beside(leases, |layer| layer.policy(SuccessOnly)),
            "stripe" => terminal.beside(leases, |layer| layer.policy(StripeV1)),
            _ => terminal.beside(leases, |layer| layer.policy(|_: u16| Keep::Commit)),
        }
    };
    let [success, stripe, all] = ["success", "stripe", "all"].map(beside);
    for (app, name, body, kept) in [
        (&terminal, "terminal", "status 422", true),
        (&terminal, "terminal", "status 429", false),
        (&terminal, "terminal", "status 500", false),
        (&success, "success", "status 422", false),
        (&success, "success", "status 202", true),
        (&stripe, "stripe", "status 500", true),
        (&all, "all", "status 402", true),
    ] {
        let key = format!("{name}-{}", body.replace(' ', "-"));
        let body = format!("{body} {name}");
        let first = app.post(&key, &body).await;
        let again = app.post(&key, &body).await;
        assert_eq!(
            (again.status, again.replayed()),
            (first.status, kept),
            "{key}"
        );
        assert_eq!(app.effects(&body).await, 1, "{key}: in both attempts");
    }
}

/// Another request may even take the key.
async fn a_request_that_failed_before_its_first_step_is_as_if_it_had_never_come<S: TestStore>(
    store: S,
) {
    let app = App::with(store, |layer| {
        layer
            .handler_time_max(Duration::from_millis(200))
            .response_bytes_max(32)
    });
    for (body, status, code) in [
        ("! status 503", Some(503), ""),
        ("! status 409", Some(409), ""),
        ("! panic", None, ""),
        ("! forever", Some(504), "idempotency_handler_timeout"),
        ("! bytes 33", Some(500), "idempotency_response_not_kept"),
        ("! endless", Some(500), "idempotency_response_not_kept"),
    ] {
        let key = body.replace([' ', '!'], "-");
        let answer = app.post_or_panic(&key, body).await;
        assert_eq!(
            answer.as_ref().map(|answer| answer.status.as_u16()),
            status,
            "{body}"
        );
        if let (Some(answer), false) = (answer, code.is_empty()) {
            let problem = answer.problem();
            assert_eq!(
                (problem.code(), problem.outcome()),
                (code, Outcome::NotApplied)
            );
        }
        let other = app.post(&key, "ok").await;
        assert_eq!(
            (other.status, other.replayed()),
            (StatusCode::CREATED, false),
            "{body}"
        );
    }
}

async fn a_request_that_failed_after_a_step_goes_on_behind_it<S: TestStore>(store: S) {
    let app = App::with(store, |layer| {
        layer.handler_time_max(Duration::from_millis(500))
    });
    for (body, status) in [
        ("status 503", Some(503)),
        ("status 429", Some(429)),
        ("panic", None),
        ("forever", Some(503)),
    ] {
        let key = body.replace(' ', "-");
        for attempt in 1..=2 {
            let runs = app.runs();
            let answer = app.post_or_panic(&key, body).await;
            let answered = answer.as_ref().map(|answer| answer.status.as_u16());
            assert_eq!(answered, status, "{body}, attempt {attempt}");
            assert_eq!(app.runs(), runs + 1, "{body}: it runs, at once");
            if let ("forever", Some(answer)) = (body, answer) {
                let problem = answer.problem();
                assert_eq!(problem.code(), "idempotency_outcome_unknown");
                assert_eq!(
                    (problem.outcome(), problem.retry()),
                    (Outcome::Unknown, Retry::SameKeyOnly)
                );
            }
        }
        assert_eq!(app.effects(body).await, 1, "{body}: in both attempts");
        let other = app.post(&key, "ok").await;
        assert_eq!(other.code(), "idempotency_key_reused", "{body}");
    }
}

async fn what_cannot_be_kept_is_not_said_to_be_undone<S: TestStore>(store: S) {
    let app = App::with(store, |layer| layer.response_bytes_max(32));
    for body in ["bytes 33", "endless", "etag 17000"] {
        let answer = app.post(&body.replace(' ', "-"), body).await;
        let problem = answer.problem();
        assert_eq!(problem.code(), "idempotency_outcome_unknown", "{body}");
        assert_eq!(problem.outcome(), Outcome::Unknown);
        assert_eq!(app.effects(body).await, 1, "{body}");
    }
    // A service that is mended answers, and does nothing twice.
    let mended = app.beside(Leases::new(app.world.store.clone()), |layer| layer);
    assert_eq!(
        mended.post("bytes-33", "bytes 33").await.status,
        StatusCode::OK
    );
    assert!(app.post("bytes-33", "bytes 33").await.replayed());
    assert_eq!(app.effects("bytes 33").await, 1);
}

async fn a_remote_that_would_act_twice_is_not_asked_twice<S: TestStore>(store: S) {
    let app = App::new(store);
    let first = app.post("k", "mail").await;
    assert_eq!(first.code(), "no_answer", "the remote's, as it is");
    for _ in 0..2 {
        let problem = app.post("k", "mail").await.problem();
        assert_eq!(
            (problem.code(), problem.outcome()),
            ("idempotency_outcome_unknown", Outcome::Unknown)
        );
    }
    assert_eq!(app.world.elsewhere.effects("sent"), 1);
    assert_eq!(app.post("k", "ok").await.code(), "idempotency_key_reused");
}

async fn a_lease_kept_past_the_answer_leaves_the_key_in_flight<S: TestStore>(store: S) {
    let leases = Leases::new(store).lease_time(Duration::from_millis(300));
    let app = App::over(leases, &uuid::Uuid::new_v4().to_string(), |layer| layer);
    let answer = app.post("k", "leak").await;
    assert_eq!(answer.code(), "idempotency_outcome_unknown");
    let kept = app.world.leaked.lock().unwrap().take();
    assert_eq!(
        app.post("k", "leak").await.code(),
        "idempotency_key_in_flight",
        "whoever has the lease may be at work"
    );
    assert!(kept.is_some());
    drop(kept);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while app.runs() < 2 {
        _ = app.post("k", "leak").await;
        assert!(tokio::time::Instant::now() < deadline, "the lease is over");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(app.effects("leak").await, 1);
    drop(app.world.leaked.lock().unwrap().take());
}

/// Steps in transactions; a call commits nothing that a relay could want.
async fn every_step_that_commits_is_told<S: TestStore>(store: S) {
    let app = App::new(store);
    for _ in 0..2 {
        assert_eq!(
            app.post("k", "status 503").await.status,
            StatusCode::SERVICE_UNAVAILABLE
        );
    }
    let in_a_transaction = app.world.elsewhere.effects("status 503") == 0;
    assert_eq!(app.commits(), usize::from(in_a_transaction));
}

async fn answers_are_sealed_at_rest<S: TestStore>(store: S) {
    let app = App::with(store, |layer| layer.codec(Aead::new(1, &[7; 32])));
    let plain = app.beside(Leases::new(app.world.store.clone()), |layer| layer);
    let first = app.post("k", "ok").await;
    let again = app.post("k", "ok").await;
    assert!(again.replayed());
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!(
        plain.post("k", "ok").await.code(),
        "idempotency_record_unreadable"
    );
}
