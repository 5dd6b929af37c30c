//! The rows of the IETF draft's table, over HTTP and leases.

use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};
use uuid::{NoContext, Timestamp, Uuid};

use super::app::App;
use super::stores::{TestStore, on_each_store};
use crate::app::request;

on_each_store!(
    i1_no_key_where_one_is_required_is_a_400,
    i2_no_key_where_it_is_optional_runs_without_a_lease_and_records_nothing,
    i3_a_done_key_answers_the_same_again,
    i4_i6_while_a_key_runs_its_own_request_is_a_409_and_another_a_422,
    i5_a_done_key_with_another_request_is_a_422,
    i7_i8_i10_every_written_form_of_a_key_is_that_key,
    i9_what_is_not_one_key_is_a_400,
    i11_another_tenant_runs_independently,
    i12_other_methods_pass_through,
    i13_an_old_uuidv7_is_refused_unless_its_record_is_there
);

async fn i1_no_key_where_one_is_required_is_a_400<S: TestStore>(store: S) {
    let app = App::new(store);
    let answer = app.send(request(None, "ok")).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (StatusCode::BAD_REQUEST, "idempotency_key_missing")
    );
    assert_eq!(app.runs(), 0);
}

/// A handler that has to have a lease says that it needs the key; one that takes it if there is one goes without.
async fn i2_no_key_where_it_is_optional_runs_without_a_lease_and_records_nothing<S: TestStore>(
    store: S,
) {
    let app = App::with(store, |layer| layer.required(false));
    for run in 1..=2 {
        let mut bare = request(None, "ok");
        *bare.uri_mut() = "/bare".parse().unwrap();
        let answer = app.send(bare).await;
        assert_eq!(
            (answer.status, answer.replayed(), app.runs()),
            (StatusCode::CREATED, false, run)
        );
    }
    for (key, found) in [(None, "none"), (Some("k"), "a lease"), (None, "none")] {
        let mut maybe = request(key, "ok");
        *maybe.uri_mut() = "/maybe".parse().unwrap();
        assert_eq!(app.send(maybe).await.body, found);
    }
    let needed = app.send(request(None, "ok")).await;
    assert_eq!(
        (needed.status, needed.code().as_str()),
        (StatusCode::BAD_REQUEST, "idempotency_key_missing")
    );
}

async fn i3_a_done_key_answers_the_same_again<S: TestStore>(store: S) {
    let app = App::new(store);
    for body in [
        "ok",
        "status 200",
        "status 303",
        "status 404",
        "! status 422",
    ] {
        let key = body.replace([' ', '!'], "-");
        let first = app.post(&key, body).await;
        assert!(!first.replayed());
        let runs = app.runs();
        for _ in 0..3 {
            let again = app.post(&key, body).await;
            assert!(again.replayed(), "{body}");
            assert_eq!(
                (again.status, &again.body),
                (first.status, &first.body),
                "{body}"
            );
            for name in ["content-type", "location", "etag"] {
                assert_eq!(
                    again.headers.get(name),
                    first.headers.get(name),
                    "{body} {name}"
                );
            }
            for name in ["set-cookie", "x-request-cost", "x-run"] {
                assert_eq!(again.headers.get(name), None, "{body} {name}");
            }
        }
        assert_eq!(app.runs(), runs, "{body}");
        assert_eq!(
            app.effects(body).await,
            i64::from(!body.starts_with('!')),
            "{body}: a step that is done stays, whatever is answered"
        );
    }
}

async fn i4_i6_while_a_key_runs_its_own_request_is_a_409_and_another_a_422<S: TestStore>(store: S) {
    let here = App::new(store.clone());
    let there = here.beside(mainstay_idempotency::leased::Leases::new(store), |l| l);
    let first = tokio::spawn({
        let app = here.clone();
        async move { app.post("k", "wait").await }
    });
    here.world.entered.notified().await;
    for app in [&here, &there] {
        let same = app.post("k", "wait").await;
        assert_eq!(
            (same.status, same.code().as_str()),
            (StatusCode::CONFLICT, "idempotency_key_in_flight")
        );
        assert_eq!(same.headers["retry-after"], "1");
        let other = app.post("k", "ok").await;
        assert_eq!(
            (other.status, other.code().as_str()),
            (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused")
        );
    }
    here.world.gate.add_permits(1);
    assert_eq!(first.await.unwrap().status, StatusCode::CREATED);
    for app in [&here, &there] {
        assert!(app.post("k", "wait").await.replayed());
    }
    assert_eq!(
        (here.runs(), there.runs(), here.effects("wait").await),
        (1, 0, 1)
    );
}

async fn i5_a_done_key_with_another_request_is_a_422<S: TestStore>(store: S) {
    let app = App::new(store);
    assert_eq!(app.post("k", "ok").await.status, StatusCode::CREATED);
    let mut to_another_target = request(Some("k"), "ok");
    *to_another_target.uri_mut() = "/pay?fast".parse().unwrap();
    for other in [
        request(Some("k"), "ok "),
        request(Some("k"), ""),
        to_another_target,
    ] {
        let answer = app.send(other).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused")
        );
    }
    assert!(app.post("k", "ok").await.replayed());
    assert_eq!(app.runs(), 1);
}

async fn i7_i8_i10_every_written_form_of_a_key_is_that_key<S: TestStore>(store: S) {
    let app = App::new(store);
    let uuid = "8e03978e-40d5-43e8-bc93-6894a57f9324";
    assert_eq!(
        app.post(&format!("\"{uuid}\""), "ok").await.status,
        StatusCode::CREATED
    );
    for form in [
        uuid.to_owned(),
        format!("\"{uuid}\";v=1"),
        format!("  {uuid}  "),
    ] {
        assert!(app.post(&form, "ok").await.replayed(), "{form}");
    }
    for (form, again) in [(r#""a\"b""#, r#""a\"b";x"#), (r#""a\\b""#, r#""a\\b" "#)] {
        assert_eq!(app.post(form, "ok").await.status, StatusCode::CREATED);
        assert!(app.post(again, "ok").await.replayed(), "{again}");
    }
}

async fn i9_what_is_not_one_key_is_a_400<S: TestStore>(store: S) {
    let app = App::new(store);
    let mut repeated = request(Some("k"), "ok");
    repeated
        .headers_mut()
        .append("idempotency-key", HeaderValue::from_static("k"));
    let over = "k".repeat(256);
    let mut requests = vec![repeated];
    requests.extend(
        ["", "\"\"", "\"a\", \"b\"", "a, b", "\"a", "a b", &over]
            .map(|key| request(Some(key), "ok")),
    );
    for bad in requests {
        let answer = app.send(bad).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::BAD_REQUEST, "idempotency_key_malformed")
        );
    }
    assert_eq!(app.runs(), 0);
}

async fn i11_another_tenant_runs_independently<S: TestStore>(store: S) {
    let app = App::new(store.clone());
    let first = app.post("k", "ok").await;
    let mut request = request(Some("k"), "ok");
    let globex = HeaderValue::from_str(&Uuid::new_v4().to_string()).unwrap();
    request.headers_mut().insert("x-tenant", globex);
    let second = app.send(request).await;
    assert_eq!(
        (second.status, second.replayed()),
        (StatusCode::CREATED, false)
    );
    assert_ne!(
        first.body, second.body,
        "no byte of one tenant's answer reaches the other"
    );
    assert_eq!((app.runs(), app.effects("ok").await), (2, 2));
}

async fn i12_other_methods_pass_through<S: TestStore>(store: S) {
    let app = App::new(store);
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let mut with_key = request(Some("k"), "ok");
        *with_key.method_mut() = method.clone();
        // The handler takes a lease, which only the layer's methods have: a mistake of the program, told as a 500.
        let answer = app.send(with_key).await;
        assert_eq!(answer.code(), "idempotency_lease_missing", "{method}");
    }
    let mut patch = request(Some("k"), "ok");
    *patch.method_mut() = Method::PATCH;
    assert_eq!(app.send(patch).await.status, StatusCode::CREATED);
}

async fn i13_an_old_uuidv7_is_refused_unless_its_record_is_there<S: TestStore>(store: S) {
    let day = Duration::from_hours(24);
    let app = App::with(store.clone(), |layer| layer.retention(day));
    let forgetful = app.beside(mainstay_idempotency::leased::Leases::new(store), |l| l);
    let at = |seconds: u64| Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, 0)).to_string();
    let now = Uuid::now_v7().get_timestamp().unwrap().to_unix().0;
    for fresh in [at(now), at(now - 23 * 3600), Uuid::new_v4().to_string()] {
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
        app.post(&at(now + 3600), "ok").await.code(),
        "idempotency_key_malformed"
    );
    assert_eq!(forgetful.post(&old, "ok").await.status, StatusCode::CREATED);
    assert!(app.post(&old, "ok").await.replayed());
}
