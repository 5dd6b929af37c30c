//! The document says what the layer does.
#![allow(dead_code, reason = "of the operations only what they say is used")]

use std::time::Duration;

use mainstay_idempotency::{IdempotencyLayer, Scope};
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use utoipa::openapi::OpenApi;
use utoipa::{Modify, OpenApi as _};

#[utoipa::path(post, path = "/payments", responses(
    (status = 201, description = "Paid"),
    (status = 400, description = "Not a payment"),
    (status = 500, description = "Ours"),
))]
fn pay() {}

#[utoipa::path(get, path = "/payments", responses((status = 200, description = "All")))]
fn list() {}

#[utoipa::path(post, path = "/refunds", responses((status = 201, description = "Refunded")))]
fn refund() {}

#[utoipa::path(post, path = "/sessions", responses((status = 201, description = "Begun")))]
fn begin() {}

#[derive(utoipa::OpenApi)]
#[openapi(paths(pay, list, refund, begin))]
struct Document;

fn document() -> Value {
    let pool = SqlitePoolOptions::new().connect_lazy_with(SqliteConnectOptions::new());
    let layer = IdempotencyLayer::<sqlx::Sqlite>::local(pool)
        .scope(|_| Ok(Scope::new("t", "", "o")))
        .retention(Duration::from_hours(48))
        .route("/refunds", |route| route.required(false));
    let mut document: OpenApi = Document::openapi();
    let paths = ["/payments", "/refunds", "/no/such"];
    layer.openapi(paths).modify(&mut document);
    // Once more changes nothing.
    let once = serde_json::to_value(&document).unwrap();
    layer.openapi(paths).modify(&mut document);
    assert_eq!(serde_json::to_value(&document).unwrap(), once);
    once
}

#[tokio::test]
async fn keyed_operations_have_the_header_the_answers_and_the_retention() {
    let document = document();
    let post = &document["paths"]["/payments"]["post"];
    let header = &post["parameters"][0];
    assert_eq!(header["name"], "Idempotency-Key");
    assert_eq!(
        (&header["in"], &header["required"]),
        (&json!("header"), &json!(true))
    );
    assert!(header["description"].as_str().unwrap().contains("48 h"));
    assert_eq!(post["x-idempotency-retention-seconds"], 172_800);
    let answers = post["responses"].as_object().unwrap();
    for (status, code) in [
        ("400", "idempotency_key_missing"),
        ("400", "idempotency_key_malformed"),
        ("409", "idempotency_key_in_flight"),
        ("412", "idempotency_key_expired"),
        ("413", "request_body_too_large"),
        ("422", "idempotency_key_reused"),
        ("503", "idempotency_outcome_unknown"),
    ] {
        let content = &answers[status]["content"]["application/problem+json"];
        assert!(content["examples"][code].is_object(), "{status} {code}");
        let description = answers[status]["description"].as_str().unwrap();
        assert!(description.contains(code), "{status}: {description}");
    }
    let own = answers["400"]["description"].as_str().unwrap();
    assert!(own.starts_with("Not a payment\n"), "{own}");
    assert!(answers["409"]["headers"]["Retry-After"].is_object());
    for (status, may_be_replayed) in [("201", true), ("400", true), ("500", false)] {
        let headers = &answers[status]["headers"]["Idempotent-Replayed"];
        assert_eq!(headers.is_object(), may_be_replayed, "{status}");
    }
}

#[tokio::test]
async fn what_has_no_key_is_left_alone_and_a_route_says_its_own() {
    let document = document();
    let (paths, before) = (
        &document["paths"],
        serde_json::to_value(Document::openapi()).unwrap(),
    );
    for (path, method) in [("/payments", "get"), ("/sessions", "post")] {
        assert_eq!(paths[path][method], before["paths"][path][method], "{path}");
    }
    let refund = &paths["/refunds"]["post"];
    assert_eq!(refund["parameters"][0]["required"], false);
    let codes = &refund["responses"]["400"]["content"]["application/problem+json"]["examples"];
    assert!(codes["idempotency_key_malformed"].is_object());
    assert!(
        codes["idempotency_key_missing"].is_null(),
        "it is optional here"
    );
}
