//! Logs as JSON on standard error, metrics as Prometheus text.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    middleware::Next,
    response::Response,
};
use mainstay::errors::{Problem, RequestId};
use metrics::Label;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing::{Instrument, field::Empty};
use tracing_subscriber::{EnvFilter, fmt};

/// Starts logging. `RUST_LOG` chooses what is logged; the default is `info`.
pub fn start_logs() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

/// Starts collecting metrics, once per process.
///
/// # Errors
/// When a recorder is installed already.
pub fn start_metrics() -> Result<PrometheusHandle, metrics_exporter_prometheus::BuildError> {
    PrometheusBuilder::new()
        .set_buckets(&[
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
        ])?
        .install_recorder()
}

/// One span, one count and one duration for each request, under the route it matched and never its raw path.
///
/// It stands outside [`ProblemLayer`](mainstay::errors::ProblemLayer), which marks this span with the failure and
/// leaves the problem that it answered with in the response. The request's id is settled here, before anything is
/// logged, and goes on in its header: so the span, the answer and every line in between name the same one.
pub async fn observe(id: RequestId, mut request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let method = method_of(&request);
    let span = tracing::info_span!(
        "request",
        otel.kind = "server",
        otel.status_code = Empty,
        error.type = Empty,
        request_id = id.as_str(),
        method,
        route,
    );
    request.headers_mut().insert("x-request-id", id.to_header());
    #[expect(
        clippy::disallowed_methods,
        reason = "a duration for a histogram; no decision hangs on it"
    )]
    let began = Instant::now();
    let response = next.run(request).instrument(span.clone()).await;
    let elapsed = began.elapsed();
    let status = response.status().as_u16();
    span.in_scope(|| tracing::info!(status, elapsed_us = elapsed.as_micros(), "answered"));
    let mut labels = vec![
        Label::from_static_parts("method", method),
        Label::new("route", route),
        Label::new("status", status.to_string()),
    ];
    // The same code as in the document, the log line and the span. Of a success there is none.
    if let Some(problem) = response.extensions().get::<Problem>() {
        labels.push(Label::new("error.type", problem.code().to_owned()));
    }
    metrics::counter!("http_server_requests_total", labels.clone()).increment(1);
    metrics::histogram!("http_server_request_duration_seconds", labels)
        .record(elapsed.as_secs_f64());
    response
}

/// The method if HTTP knows it. A caller can make up others without end, and each would be a time series.
fn method_of(request: &Request) -> &'static str {
    const KNOWN: [&str; 9] = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT",
    ];
    let method = request.method().as_str();
    KNOWN
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("_OTHER")
}
