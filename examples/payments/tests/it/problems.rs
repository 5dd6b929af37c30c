//! Bad input gets a problem document that says what was wrong, and never a 500.

use http::Method;
use serde_json::json;

use crate::service::{ACME, Service, order};

#[tokio::test]
async fn every_mistake_has_its_own_answer() {
    let service = Service::start();

    // Who is it?
    for token in [
        &[][..],
        &[("authorization", "Bearer nobody")],
        &[("authorization", "Basic dev-acme")],
    ] {
        let answer = service.send(Method::GET, "/v1/payments", token, "").await;
        answer.problem(401, "token_missing_or_unknown");
        assert!(
            answer
                .header("www-authenticate")
                .unwrap()
                .starts_with("Bearer")
        );
    }

    // The key.
    let json = ("content-type", "application/json");
    let who = ("authorization", ACME);
    service
        .send(Method::POST, "/v1/payments", &[who, json], order("a"))
        .await
        .problem(400, "idempotency_key_missing");
    let long = "k".repeat(256);
    for bad in ["", "\"open", &long, "a, b"] {
        service
            .pay(ACME, bad, order("a"))
            .await
            .problem(400, "idempotency_key_malformed");
    }
    let twice = [
        who,
        json,
        ("idempotency-key", "a"),
        ("idempotency-key", "b"),
    ];
    service
        .send(Method::POST, "/v1/payments", &twice, order("a"))
        .await
        .problem(400, "idempotency_key_malformed");

    // The body.
    for (n, bad) in ["", "{", "{\"amount\": 1,}", "nonsense"].iter().enumerate() {
        let answer = service
            .pay(ACME, &format!("syntax-{n}"), bad.to_string())
            .await;
        assert_eq!(answer.status, 400, "{bad}: {:?}", answer.body);
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json")
        );
    }
    let wrong = json!({ "amount": 0, "currency": "eur", "reference": "" }).to_string();
    let answer = service.pay(ACME, "fields", wrong).await;
    assert_eq!(answer.status, 422, "{:?}", answer.body);
    assert_eq!(answer.pointers(), ["/amount", "/currency", "/reference"]);
    for (n, (body, pointer)) in [
        (
            json!({ "amount": "much", "currency": "EUR", "reference": "a" }),
            "/amount",
        ),
        (json!({ "currency": "EUR", "reference": "a" }), "/amount"),
        (
            json!({ "amount": 1.5, "currency": "EUR", "reference": "a" }),
            "/amount",
        ),
        (
            json!({ "amount": 1, "currency": "EUR", "reference": "a".repeat(141) }),
            "/reference",
        ),
        (
            json!({ "amount": 1, "currency": "EUR", "reference": "a", "more": 1 }),
            "/more",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = service
            .pay(ACME, &format!("field-{n}"), body.to_string())
            .await;
        assert_eq!(answer.status, 422, "{body}: {:?}", answer.body);
        assert_eq!(answer.pointers(), [pointer], "{body}");
    }
    let plain = [
        who,
        ("idempotency-key", "type"),
        ("content-type", "text/plain"),
    ];
    let answer = service
        .send(Method::POST, "/v1/payments", &plain, order("a"))
        .await;
    assert_eq!(answer.status, 415, "{:?}", answer.body);
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    let answer = service.pay(ACME, "big", vec![b' '; 200_000]).await;
    assert_eq!(answer.status, 413, "{:?}", answer.body);
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );

    // The page.
    for (query, pointer) in [
        ("limit=0", "/limit"),
        ("limit=-1", "/limit"),
        ("limit=101", "/limit"),
        ("limit=ten", "/limit"),
        ("limit=", "/limit"),
        ("limit=99999999999999999999", "/limit"),
        ("after=garbage", "/after"),
        ("before=garbage", "/before"),
        ("after=", "/after"),
        ("limit=1&limit=2", "/limit"),
        ("currency=euro", "/currency"),
    ] {
        let answer = service.get(&format!("/v1/payments?{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {:?}", answer.body);
        assert_eq!(answer.pointers(), [pointer], "{query}: {:?}", answer.body);
    }

    // The rest of HTTP.
    let answer = service.get("/v1/payments/not-a-uuid").await;
    assert_eq!(answer.status, 400, "{:?}", answer.body);
    service
        .get("/v1/payments/00000000-0000-7000-8000-000000000000")
        .await
        .problem(404, "payment_not_found");
    let answer = service.get("/nowhere").await;
    assert_eq!(answer.status, 404, "{:?}", answer.body);
    assert!(answer.json()["code"].is_string());
    let answer = service
        .send(Method::DELETE, "/v1/payments", &[who], "")
        .await;
    assert_eq!(answer.status, 405, "{:?}", answer.body);
    let allow = answer.header("allow").unwrap();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");

    // Nothing of all this was stored, and all of it is written down.
    assert_eq!(service.get("/v1/payments").await.json()["items"], json!([]));
    let codes = service.assert_failures_are_documented().await;
    let told = [
        "filter_malformed",
        "idempotency_key_malformed",
        "idempotency_key_missing",
        "invalid_path",
        "malformed_json",
        "page_request_invalid",
        "payment_not_found",
        "request_body_too_large",
        "token_missing_or_unknown",
        "unsupported_media_type",
        "validation_failed",
    ];
    assert_eq!(Vec::from_iter(codes), told);
}

#[tokio::test]
async fn a_refusal_is_remembered_under_its_key_and_changes_nothing() {
    let service = Service::start();
    let wrong = json!({ "amount": 0, "currency": "EUR", "reference": "a" }).to_string();
    let first = service.pay(ACME, "k", wrong.clone()).await;
    let again = service.pay(ACME, "k", wrong).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (422, 422));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(service.get("/v1/payments").await.json()["items"], json!([]));
}

#[tokio::test]
async fn a_callers_request_id_is_kept_if_it_is_well_formed() {
    let service = Service::start();
    let sent = async |id: &str| {
        service
            .send(Method::GET, "/nowhere", &[("x-request-id", id)], "")
            .await
            .json()["request_id"]
            .clone()
    };
    assert_eq!(sent("trace-1.a_B").await, "trace-1.a_B");
    assert_ne!(sent("two words").await, "two words");
}

#[tokio::test]
async fn every_code_has_a_page() {
    let service = Service::start();
    for code in [
        "payment_not_found",
        "token_missing_or_unknown",
        "idempotency_key_reused",
        "idempotency_key_in_flight",
    ] {
        let page = service
            .send(
                Method::GET,
                &format!("/problems/{code}"),
                &[("accept", "text/html")],
                "",
            )
            .await;
        assert_eq!(page.status, 200, "{code}");
        assert!(
            page.header("content-type")
                .unwrap()
                .starts_with("text/html")
        );
    }
    let kind = service
        .get("/v1/payments/00000000-0000-7000-8000-000000000000")
        .await
        .json()["type"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(service.get(&kind).await.status, 200, "{kind} leads nowhere");
    assert_eq!(service.get("/problems/no_such_code").await.status, 404);
}
