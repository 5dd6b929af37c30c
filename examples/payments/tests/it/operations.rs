//! What those who run the service ask of it.

use http::Method;

use crate::service::{ACME, Service, order};

#[tokio::test]
async fn health_metrics_and_the_interface_are_open_to_all() {
    let service = Service::start();
    service.pay(ACME, "k", order("a")).await;
    for path in ["/livez", "/readyz", "/metrics", "/openapi.json"] {
        let answer = service.send(Method::GET, path, &[], "").await;
        assert_eq!(answer.status, 200, "{path}: {:?}", answer.body);
    }
    let metrics = String::from_utf8(service.get("/metrics").await.body.to_vec()).unwrap();
    for name in [
        "http_server_requests_total",
        "http_server_request_duration_seconds_bucket",
        "outbox_pending",
        "outbox_oldest_age_seconds",
    ] {
        assert!(metrics.contains(name), "{name} is missing in:\n{metrics}");
    }
    assert!(
        metrics.contains("route=\"/v1/payments\"") && metrics.contains("status=\"201\""),
        "{metrics}"
    );
    let interface = service.get("/openapi.json").await.json();
    for path in [
        "/v1/payments",
        "/v1/payments/{id}",
        "/v1/webhooks/provider",
        "/livez",
        "/readyz",
    ] {
        assert!(interface["paths"][path].is_object(), "{path} is missing");
    }
}

#[tokio::test]
async fn sigterm_ends_it_cleanly() {
    let service = Service::start();
    service.pay(ACME, "k", order("a")).await;
    assert!(service.terminate().success());
}
