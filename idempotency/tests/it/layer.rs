//! What the layer does beyond the table: scopes, caps, policies, the loan of the transaction, readiness.

mod leased;

use std::task::Poll;
use std::time::Duration;

use http::{HeaderValue, Request, StatusCode};
use mainstay_errors::{Outcome, Retry};
use mainstay_idempotency::{IdempotencyLayer, Keep, Scope, StripeV1, SuccessOnly};
use sqlx::Pool;
use tower::{Layer, Service, ServiceExt};
use uuid::{NoContext, Timestamp, Uuid};

use crate::app::{App, request};
use crate::db::{TestDb, on_each};

on_each!(
    a_scope_that_cannot_be_resolved_refuses_before_the_key_is_looked_at,
    keys_that_look_alike_run_separately,
    a_handler_without_the_transaction_is_recorded_too,
    policies_decide_what_is_kept,
    an_old_uuidv7_is_refused_unless_its_record_is_there,
    a_key_from_a_fast_clock_is_not_reaped_before_it_is_refused,
    bodies_have_caps,
    an_answer_that_breaks_off_or_never_ends_commits_nothing,
    a_transaction_kept_past_the_answer_is_rolled_back,
    a_transaction_is_lent_once,
    a_transaction_ended_by_the_handler_is_not_recorded,
    a_statement_that_failed_unnoticed_commits_nothing,
    a_handler_that_takes_too_long_is_rolled_back,
    times_without_end_are_no_panic,
    requests_in_progress_have_a_cap,
    a_key_belongs_to_the_whole_path_in_a_nested_router_too,
    the_instance_that_was_ready_takes_the_call
);

async fn a_scope_that_cannot_be_resolved_refuses_before_the_key_is_looked_at<D: TestDb>(
    pool: Pool<D>,
) {
    let app = App::new(pool);
    for key in [None, Some("k"), Some("not, one")] {
        let mut anonymous = request(key, "ok");
        anonymous.headers_mut().remove("x-tenant");
        let answer = app.send(anonymous).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::UNAUTHORIZED, "who_are_you"),
            "{key:?}"
        );
    }
    assert_eq!(app.runs(), 0);
}

async fn keys_that_look_alike_run_separately<D: TestDb>(pool: Pool<D>) {
    let app = App::new(pool);
    let keys = ["abc", "ABC", "\"abc \"", "\" abc\"", "1", "01", "1.0"];
    for key in keys {
        assert!(!app.post(key, "ok").await.replayed(), "{key}");
    }
    assert_eq!(app.runs(), keys.len());
}

async fn a_handler_without_the_transaction_is_recorded_too<D: TestDb>(pool: Pool<D>) {
    let app = App::new(pool);
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

async fn policies_decide_what_is_kept<D: TestDb>(pool: Pool<D>) {
    let terminal = App::new(pool.clone());
    let success = App::with(pool.clone(), |layer| layer.policy(SuccessOnly));
    let stripe = App::with(pool.clone(), |layer| layer.policy(StripeV1));
    let all = App::with(pool, |layer| layer.policy(|_: u16| Keep::Commit));
    for (app, name, body, effects, kept) in [
        (&terminal, "terminal", "status 422", 0, true),
        (&terminal, "terminal", "status 429", 0, false),
        (&terminal, "terminal", "status 500", 0, false),
        (&success, "success", "status 422", 0, false),
        (&success, "success", "status 202", 1, true),
        (&stripe, "stripe", "status 500", 0, true),
        (&all, "all", "status 402", 1, true),
    ] {
        let key = format!("{name}-{}", body.replace(' ', "-"));
        let body = format!("{body} {name}");
        let (first, commits) = (app.post(&key, &body).await, app.commits());
        assert_eq!(app.effects(&body).await, effects, "{key}");
        assert_eq!(
            commits as i64,
            effects.max(commits as i64 - (1 - effects)),
            "{key}"
        );
        let again = app.post(&key, &body).await;
        assert_eq!(
            (again.status, again.replayed()),
            (first.status, kept),
            "{key}"
        );
        assert_eq!(app.effects(&body).await, effects, "{key}");
    }
}

async fn an_old_uuidv7_is_refused_unless_its_record_is_there<D: TestDb>(pool: Pool<D>) {
    let day = Duration::from_secs(24 * 3600);
    let forgetful = App::new(pool.clone());
    let app = App::with(pool, |layer| layer.retention(day));
    let at = |seconds: u64| Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, 0)).to_string();
    let now = Uuid::now_v7().get_timestamp().unwrap().to_unix().0;
    for fresh in [
        at(now),
        at(now - 23 * 3600),
        at(now + 60),
        Uuid::new_v4().to_string(),
    ] {
        assert_eq!(
            app.post(&fresh, "ok").await.status,
            StatusCode::CREATED,
            "{fresh}"
        );
    }
    let old = at(now - 25 * 3600);
    let answer = app.post(&old, "ok").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (StatusCode::PRECONDITION_FAILED, "idempotency_key_expired")
    );
    assert_eq!(
        (answer.problem().retry(), answer.problem().outcome()),
        (Retry::Never, Outcome::Unknown)
    );
    assert_eq!(
        app.post(&at(now + 3600), "ok").await.code(),
        "idempotency_key_malformed"
    );
    // What is still remembered is the truth, however old.
    assert_eq!(forgetful.post(&old, "ok").await.status, StatusCode::CREATED);
    assert!(app.post(&old, "ok").await.replayed());
    assert_eq!(app.runs(), 4);
}

/// Its record is as old as the retention, but the key itself, made by a clock four minutes ahead, is not.
async fn a_key_from_a_fast_clock_is_not_reaped_before_it_is_refused<D: TestDb>(pool: Pool<D>) {
    let day = Duration::from_hours(24);
    let app = App::with(pool.clone(), |layer| layer.retention(day));
    let now = Uuid::now_v7().get_timestamp().unwrap().to_unix().0;
    let made = now - day.as_secs() + 4 * 60;
    let key = Uuid::new_v7(Timestamp::from_unix(NoContext, made, 0)).to_string();
    assert_eq!(app.post(&key, "ok").await.status, StatusCode::CREATED);
    let mut conn = pool.acquire().await.unwrap();
    let a_day_and_a_bit_ago = match D::NAME {
        "SQLite" => "update mainstay_key set created_at = created_at - 86405000",
        "MySQL" => "update mainstay_key set created_at = created_at - interval 86405 second",
        _ => "update mainstay_key set created_at = created_at - interval '86405 seconds'",
    };
    D::raw(&mut conn, a_day_and_a_bit_ago).await.unwrap();
    drop(conn);
    mainstay_idempotency::reap(&pool, day, 100).await.unwrap();
    assert!(app.post(&key, "ok").await.replayed());
    assert_eq!((app.runs(), app.effects("ok").await), (1, 1));
}

async fn bodies_have_caps<D: TestDb>(pool: Pool<D>) {
    let app = App::with(pool, |layer| {
        layer.request_bytes_max(64).response_bytes_max(32)
    });
    let long = "x".repeat(65);
    assert_eq!(
        app.post("k1", &long).await.status,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    let mut declared = request(Some("k2"), "ok");
    declared
        .headers_mut()
        .insert("content-length", HeaderValue::from_static("99999999999999"));
    assert_eq!(app.send(declared).await.code(), "request_body_too_large");
    assert_eq!(app.runs(), 0);
    assert_eq!(app.post("k3", "bytes 32").await.status, StatusCode::OK);
    let answer = app.post("k4", "bytes 33").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            "idempotency_response_not_kept"
        )
    );
    assert_eq!(answer.problem().outcome(), Outcome::NotApplied);
    assert_eq!(
        (app.effects("bytes 32").await, app.effects("bytes 33").await),
        (1, 0)
    );
    // Headers, too: it is the answer that is too large, not a statement that was refused.
    assert_eq!(app.post("k5", "etag 16000").await.status, StatusCode::OK);
    for (key, body) in [("k6", "etag 17000"), ("k7", "etag 70000")] {
        let answer = app.post(key, body).await;
        assert_eq!(answer.code(), "idempotency_response_not_kept");
        assert_eq!(app.effects(body).await, 0, "{body}");
    }
}

async fn an_answer_that_breaks_off_or_never_ends_commits_nothing<D: TestDb>(pool: Pool<D>) {
    let app = App::new(pool);
    for body in ["endless", "broken"] {
        let answer = app.post(body, body).await;
        assert_eq!(answer.code(), "idempotency_response_not_kept", "{body}");
        assert_eq!(app.effects(body).await, 0, "{body}");
    }
}

async fn a_transaction_kept_past_the_answer_is_rolled_back<D: TestDb>(pool: Pool<D>) {
    let app = App::with(pool, |layer| layer.required(false));
    for key in [Some("k"), None] {
        let answer = app.send(request(key, "leak")).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                "idempotency_transaction_lost"
            )
        );
        let late = app.world.leaked.lock().unwrap().take();
        assert!(late.is_some());
        drop(late);
    }
    assert_eq!((app.effects("leak").await, app.commits()), (0, 0));
    // The key is free again once the leaked transaction has gone.
    assert_eq!(app.post("k", "ok").await.status, StatusCode::CREATED);
}

async fn a_transaction_is_lent_once<D: TestDb>(pool: Pool<D>) {
    let app = App::new(pool);
    let mut twice = request(Some("k"), "ok");
    *twice.uri_mut() = "/twice".parse().unwrap();
    let answer = app.send(twice).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            "idempotency_transaction_missing"
        )
    );
}

async fn a_transaction_ended_by_the_handler_is_not_recorded<D: TestDb>(pool: Pool<D>) {
    let app = App::with(pool, |layer| layer.required(false));
    for key in [Some("k"), None] {
        let answer = app.send(request(key, "raw-rollback")).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                "idempotency_store_failed"
            ),
            "{key:?}"
        );
    }
    assert_eq!((app.effects("raw-rollback").await, app.commits()), (0, 0));
    assert_eq!(app.post("k", "ok").await.status, StatusCode::CREATED);
}

/// Postgres aborts the transaction and would answer COMMIT with a rollback; the others undo only the statement.
async fn a_statement_that_failed_unnoticed_commits_nothing<D: TestDb>(pool: Pool<D>) {
    let app = App::with(pool, |layer| layer.required(false));
    for key in [Some("k"), None] {
        let answer = app.send(request(key, "swallow")).await;
        let effects = app.effects("swallow").await;
        if D::NAME != "PostgreSQL" {
            assert_eq!(answer.status, StatusCode::CREATED);
        } else {
            assert_eq!(
                (answer.status, effects),
                (StatusCode::INTERNAL_SERVER_ERROR, 0),
                "{key:?}"
            );
        }
    }
}

async fn a_handler_that_takes_too_long_is_rolled_back<D: TestDb>(pool: Pool<D>) {
    let app = App::with(pool, |layer| {
        layer.handler_time_max(Duration::from_millis(50))
    });
    let answer = app.post("k", "forever").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (StatusCode::GATEWAY_TIMEOUT, "idempotency_handler_timeout")
    );
    assert_eq!(
        (answer.problem().outcome(), app.effects("forever").await),
        (Outcome::NotApplied, 0)
    );
    assert_eq!(app.post("k", "ok").await.status, StatusCode::CREATED);
}

async fn times_without_end_are_no_panic<D: TestDb>(pool: Pool<D>) {
    let app = App::with(pool, |layer| {
        layer
            .handler_time_max(Duration::MAX)
            .resolve_time_max(Duration::MAX)
            .retention(Duration::MAX)
    });
    assert_eq!(app.post("k", "ok").await.status, StatusCode::CREATED);
    assert!(app.post("k", "ok").await.replayed());
}

async fn requests_in_progress_have_a_cap<D: TestDb>(pool: Pool<D>) {
    let app = App::with(pool, |layer| layer.in_flight_max(1));
    let first = tokio::spawn({
        let app = app.clone();
        async move { app.post("k", "wait").await }
    });
    app.world.entered.notified().await;
    let answer = app.post("other", "ok").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "idempotency_overloaded")
    );
    app.world.gate.add_permits(1);
    assert_eq!(first.await.unwrap().status, StatusCode::CREATED);
    assert_eq!(app.post("other", "ok").await.status, StatusCode::CREATED);
}

/// `nest` hands its routes a URI without the prefix, and the prefix may name whose account is charged.
async fn a_key_belongs_to_the_whole_path_in_a_nested_router_too<D: TestDb>(pool: Pool<D>) {
    let idempotency =
        IdempotencyLayer::<D>::local(pool).scope(|_| Ok(Scope::new("acme", "", "pay")));
    let pay = axum::Router::new()
        .route("/pay", axum::routing::post(|| async { "paid" }))
        .layer(idempotency);
    let router = axum::Router::new().nest("/accounts/{account}", pay);
    for (account, status) in [(1, 200), (2, 422), (1, 200)] {
        let mut request = request(Some("k"), "ok");
        *request.uri_mut() = format!("/accounts/{account}/pay").parse().unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "account {account}");
    }
}

/// A service that may be called only after it was polled ready, and whose clones were not.
#[derive(Default)]
struct Probe {
    ready: bool,
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Service<Request<axum::body::Body>> for Probe {
    type Response = axum::response::Response;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<axum::body::Body>) -> Self::Future {
        assert!(
            std::mem::take(&mut self.ready),
            "called without being ready"
        );
        std::future::ready(Ok(axum::response::Response::default()))
    }
}

async fn the_instance_that_was_ready_takes_the_call<D: TestDb>(pool: Pool<D>) {
    let layer = IdempotencyLayer::<D>::local(pool)
        .required(false)
        .scope(|_| Ok(Scope::new("t", "", "o")));
    let mut service = layer.layer(Probe::default());
    for key in [Some("k1"), None, Some("k2"), None] {
        let response = ServiceExt::<Request<axum::body::Body>>::ready(&mut service)
            .await
            .unwrap()
            .call(request(key, ""))
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
}
