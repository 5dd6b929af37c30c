//! The provider's notices: verified, then applied once.

use std::time::{Duration, SystemTime};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use http::Method;
use serde_json::json;

use crate::service::{ACME, Answer, Service, WEBHOOK_SECRET, order};

/// Signs as the Standard Webhooks specification says, spelt out.
#[allow(
    clippy::disallowed_methods,
    reason = "a sender stamps its messages with its own clock"
)]
async fn notify(service: &Service, id: &str, age: Duration, secret: &str, body: &str) -> Answer {
    let timestamp = (SystemTime::now() - age)
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
        .to_string();
    let key = STANDARD
        .decode(secret.strip_prefix("whsec_").unwrap())
        .unwrap();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    let headers = [
        ("webhook-id", id),
        ("webhook-timestamp", &*timestamp),
        ("webhook-signature", &*signature),
        ("content-type", "application/json"),
    ];
    service
        .send(
            Method::POST,
            "/v1/webhooks/provider",
            &headers,
            body.to_owned(),
        )
        .await
}

const FRESH: Duration = Duration::ZERO;

#[tokio::test]
async fn a_notice_settles_a_payment_once_however_often_it_is_delivered() {
    let service = Service::start();
    let payment = service.pay(ACME, "k", order("a")).await.json();
    let body =
        json!({ "type": "payment.settled", "data": { "payment_id": payment["id"] } }).to_string();
    for _ in 0..3 {
        let answer = notify(&service, "msg_1", FRESH, WEBHOOK_SECRET, &body).await;
        assert!(answer.status.is_success(), "{:?}", answer.body);
    }
    // The same news under another id changes nothing either.
    assert!(
        notify(&service, "msg_2", FRESH, WEBHOOK_SECRET, &body)
            .await
            .status
            .is_success()
    );
    let path = format!("/v1/payments/{}", payment["id"].as_str().unwrap());
    assert_eq!(service.get(&path).await.json()["status"], "settled");
}

#[tokio::test]
async fn a_notice_that_cannot_be_trusted_is_refused() {
    let service = Service::start();
    let payment = service.pay(ACME, "k", order("a")).await.json();
    let body =
        json!({ "type": "payment.settled", "data": { "payment_id": payment["id"] } }).to_string();
    let other = "whsec_b3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3RoZXI=";
    assert_eq!(
        notify(&service, "msg_1", FRESH, other, &body).await.status,
        401
    );
    assert_eq!(
        notify(
            &service,
            "msg_1",
            Duration::from_secs(3600),
            WEBHOOK_SECRET,
            &body
        )
        .await
        .status,
        401
    );
    let unsigned = service
        .send(Method::POST, "/v1/webhooks/provider", &[], body)
        .await;
    assert_eq!(unsigned.status, 401);
    assert_eq!(
        unsigned.header("content-type"),
        Some("application/problem+json")
    );
    let path = format!("/v1/payments/{}", payment["id"].as_str().unwrap());
    assert_eq!(service.get(&path).await.json()["status"], "pending");
    let codes = service.assert_failures_are_documented().await;
    let told = [
        "webhook_headers_invalid",
        "webhook_signature_invalid",
        "webhook_timestamp_out_of_tolerance",
    ];
    assert_eq!(Vec::from_iter(codes), told);
}

#[tokio::test]
async fn a_notice_that_makes_no_sense_is_the_senders_mistake() {
    let service = Service::start();
    let unknown = json!({ "type": "payment.settled", "data": { "payment_id": "00000000-0000-7000-8000-000000000000" } }).to_string();
    notify(&service, "msg_1", FRESH, WEBHOOK_SECRET, &unknown)
        .await
        .problem(404, "payment_not_found");
    for (n, body) in ["{", "[]", "{\"type\":\"payment.settled\",\"data\":{}}"]
        .iter()
        .enumerate()
    {
        let answer = notify(
            &service,
            &format!("msg_bad_{n}"),
            FRESH,
            WEBHOOK_SECRET,
            body,
        )
        .await;
        assert!(
            matches!(answer.status.as_u16(), 400 | 422),
            "{body}: {} {:?}",
            answer.status,
            answer.body
        );
    }
    let codes = service.assert_failures_are_documented().await;
    let told = ["malformed_json", "payment_not_found", "validation_failed"];
    assert_eq!(Vec::from_iter(codes), told);
    let other = json!({ "type": "payout.created", "data": { "whatever": 1 } }).to_string();
    assert!(
        notify(&service, "msg_other", FRESH, WEBHOOK_SECRET, &other)
            .await
            .status
            .is_success()
    );
}
