//! The rows of the IETF draft's table, over HTTP.

use http::{HeaderValue, Method, StatusCode};
use sqlx::Pool;

use crate::app::{App, request};
use crate::db::{TestDb, on_each};

on_each!(
    i1_no_key_where_one_is_required_is_a_400,
    i2_no_key_where_it_is_optional_runs_and_records_nothing,
    i3_a_done_key_answers_the_same_again,
    i4_i6_while_a_key_runs_its_own_request_is_a_409_and_another_a_422,
    i5_a_done_key_with_another_request_is_a_422,
    i7_i8_i10_every_written_form_of_a_key_is_that_key,
    i9_what_is_not_one_key_is_a_400,
    i11_another_tenant_runs_independently,
    i12_other_methods_pass_through
);

async fn i1_no_key_where_one_is_required_is_a_400<D: TestDb>(pool: Pool<D>) {
    let app = App::new(pool);
    let answer = app.send(request(None, "ok")).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (StatusCode::BAD_REQUEST, "idempotency_key_missing")
    );
    assert_eq!(app.runs(), 0);
}

async fn i2_no_key_where_it_is_optional_runs_and_records_nothing<D: TestDb>(pool: Pool<D>) {
    let app = App::with(pool, |layer| layer.required(false));
    for run in 1..=2 {
        let answer = app.send(request(None, "ok")).await;
        assert_eq!(
            (answer.status, answer.replayed()),
            (StatusCode::CREATED, false)
        );
        assert_eq!(
            (app.runs(), app.effects("ok").await, app.commits()),
            (run, run as i64, run)
        );
    }
    let refused = app.send(request(None, "status 422")).await;
    assert_eq!(
        (refused.status, app.effects("status 422").await),
        (StatusCode::UNPROCESSABLE_ENTITY, 0)
    );
}

async fn i3_a_done_key_answers_the_same_again<D: TestDb>(pool: Pool<D>) {
    let app = App::new(pool);
    for body in ["ok", "status 200", "status 303", "status 404", "status 422"] {
        let first = app.post(body.replace(' ', "-").as_str(), body).await;
        assert!(!first.replayed());
        let runs = app.runs();
        for _ in 0..3 {
            let again = app.post(body.replace(' ', "-").as_str(), body).await;
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
            i64::from(first.status.as_u16() < 400),
            "{body}"
        );
    }
}

async fn i4_i6_while_a_key_runs_its_own_request_is_a_409_and_another_a_422<D: TestDb>(
    pool: Pool<D>,
) {
    let app = App::new(pool.clone());
    let first = tokio::spawn({
        let app = app.clone();
        async move { app.post("k", "wait").await }
    });
    app.world.entered.notified().await;
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
    app.world.gate.add_permits(1);
    assert_eq!(first.await.unwrap().status, StatusCode::CREATED);
    assert!(app.post("k", "wait").await.replayed());
    assert_eq!((app.runs(), app.effects("wait").await), (1, 1));
}

async fn i5_a_done_key_with_another_request_is_a_422<D: TestDb>(pool: Pool<D>) {
    let app = App::new(pool);
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

async fn i7_i8_i10_every_written_form_of_a_key_is_that_key<D: TestDb>(pool: Pool<D>) {
    let app = App::new(pool);
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

async fn i9_what_is_not_one_key_is_a_400<D: TestDb>(pool: Pool<D>) {
    let app = App::new(pool);
    let mut repeated = request(Some("k"), "ok");
    repeated
        .headers_mut()
        .append("idempotency-key", HeaderValue::from_static("k"));
    let mut not_text = request(None, "ok");
    not_text.headers_mut().insert(
        "idempotency-key",
        HeaderValue::from_bytes(b"\xff\xfe").unwrap(),
    );
    let mut requests = vec![repeated, not_text];
    let (over, far_over) = ("k".repeat(256), "k".repeat(8 * 1024));
    requests.extend(
        [
            "",
            "\"\"",
            "\"a\", \"b\"",
            "a, b",
            "\"a",
            "a b",
            &over,
            &far_over,
        ]
        .map(|key| request(Some(key), "ok")),
    );
    for bad in requests {
        let key = bad.headers()["idempotency-key"].clone();
        let answer = app.send(bad).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::BAD_REQUEST, "idempotency_key_malformed"),
            "{key:?}"
        );
    }
    assert_eq!(app.runs(), 0);
}

async fn i11_another_tenant_runs_independently<D: TestDb>(pool: Pool<D>) {
    let app = App::new(pool);
    let first = app.post("k", "ok").await;
    let mut request = request(Some("k"), "ok");
    request
        .headers_mut()
        .insert("x-tenant", HeaderValue::from_static("globex"));
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

async fn i12_other_methods_pass_through<D: TestDb>(pool: Pool<D>) {
    let app = App::new(pool);
    for method in [
        Method::GET,
        Method::HEAD,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
    ] {
        let mut with_key = request(Some("k"), "ok");
        *with_key.method_mut() = method.clone();
        // The handler takes an IdemTx, which only the layer's methods have: a mistake of the program, told as a 500.
        assert_eq!(
            app.send(with_key).await.status,
            StatusCode::INTERNAL_SERVER_ERROR,
            "{method}"
        );
    }
    let mut patch = request(Some("k"), "ok");
    *patch.method_mut() = Method::PATCH;
    assert_eq!(app.send(patch).await.status, StatusCode::CREATED);
}
