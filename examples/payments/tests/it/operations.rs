//! What those who run the service ask of it.

use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use crate::service::{ACME, Service, order};

#[tokio::test]
async fn health_metrics_and_the_interface_are_open_to_all() {
    let service = Service::start();
    service.pay(ACME, "k", order("a")).await;
    for path in ["/livez", "/readyz", "/metrics", "/openapi.json"] {
        let answer = service.send(Method::GET, path, &[], "").await;
        assert_eq!(answer.status, 200, "{path}: {:?}", answer.body);
    }
    let ready = service.get("/readyz").await.json();
    assert_eq!(ready["status"], "ready");
    assert_eq!(ready["outbox"]["status"], "ok", "{ready}");
    // The event is delivered and the gauges are read beside the answer.
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut metrics = String::new();
    while !metrics.contains("mainstay_outbox_delivery_duration")
        || !metrics.contains("mainstay_outbox_health")
    {
        assert!(Instant::now() < deadline, "of the outbox in:\n{metrics}");
        metrics = String::from_utf8(service.get("/metrics").await.body.to_vec()).unwrap();
    }
    for name in [
        "http_server_requests_total",
        "http_server_request_duration_seconds_bucket",
        "mainstay_outbox_pending",
        "mainstay_outbox_oldest_age",
        "mainstay_outbox_lanes{verdict=\"idle\"}",
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
async fn a_failure_has_one_name_in_the_answer_the_log_and_the_metrics() {
    let service = Service::start();
    let id = [("x-request-id", "trace-1")];
    let answer = service.send(Method::GET, "/v1/payments", &id, "").await;
    answer.problem(401, "token_missing_or_unknown");
    let metrics = String::from_utf8(service.get("/metrics").await.body.to_vec()).unwrap();
    let count = metrics
        .lines()
        .find(|line| line.starts_with("http_server_requests_total") && line.contains("401"))
        .unwrap();
    assert!(
        count.contains("error_type=\"token_missing_or_unknown\""),
        "{count}"
    );
    // The span was marked before the line was written that tells of the answer.
    let log = service.log();
    let line = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .find(|line| line["message"] == "answered" && line["status"] == 401)
        .unwrap();
    assert_eq!(line["span"]["error.type"], "token_missing_or_unknown");
    assert_eq!(line["span"]["request_id"], "trace-1");
}

#[tokio::test]
async fn a_method_that_nobody_knows_is_no_metric_of_its_own() {
    let service = Service::start();
    for method in ["FORGED-1", "FORGED-2"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let answer = service.send(method, "/livez", &[], "").await;
        answer.problem(405, "method_not_allowed");
    }
    let metrics = String::from_utf8(service.get("/metrics").await.body.to_vec()).unwrap();
    assert!(metrics.contains("method=\"_OTHER\"") && !metrics.contains("FORGED"));
}

#[tokio::test]
async fn sigterm_ends_it_cleanly() {
    let service = Service::start();
    service.pay(ACME, "k", order("a")).await;
    assert!(service.terminate().success());
}
