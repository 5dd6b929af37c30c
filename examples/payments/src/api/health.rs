//! `/livez`, `/readyz`, `/metrics`: for those who run the service.

use std::time::Duration;

use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use mainstay::{
    errors::{Fault, Problem, openapi::AnyOf},
    outbox::Admin,
};
use tokio::time::timeout;

use crate::{app::Shared, store::Store};

/// How long the database may take to say that it is there.
const PING_MAX: Duration = Duration::from_secs(2);

/// The routes.
pub fn routes<D: Store>() -> Router<Shared<D>> {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz::<D>))
        .route("/metrics", get(metrics::<D>))
}

/// The process runs. Deliberately asks nobody else: a restart cures no database.
#[utoipa::path(get, path = "/livez", tag = "operations", responses((status = 200, description = "The process runs")))]
pub async fn livez() -> axum::Json<serde_json::Value> {
    axum::Json(serde_json::json!({ "status": "ok" }))
}

/// Why the service cannot do its work.
#[derive(Debug, thiserror::Error, Fault)]
#[fault(domain = "payments.example.com")]
pub enum ReadyError {
    /// The database does not answer, or not in time.
    #[error("the database does not answer")] // this may be sent; the cause behind it is logged
    #[fault(unavailable, public, outcome = not_applied)]
    DatabaseUnreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The service can do its work: the database answers.
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    responses(
        (status = 200, description = "Ready"),
        AnyOf<(ReadyError, Problem)>,
    ),
)]
pub async fn readyz<D: Store>(
    State(app): State<Shared<D>>,
) -> Result<axum::Json<serde_json::Value>, ReadyError> {
    let answered = timeout(PING_MAX, D::ping(&app.pool)).await;
    match answered.map_err(Into::into) {
        Ok(Ok(())) => Ok(axum::Json(serde_json::json!({ "status": "ready" }))),
        Ok(Err(refused)) => Err(ReadyError::DatabaseUnreachable(refused.into())),
        Err(silent) => Err(ReadyError::DatabaseUnreachable(silent)),
    }
}

/// Metrics as Prometheus text. The outbox's state is read at this moment.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses((status = 200, description = "Prometheus text", content_type = "text/plain")))]
pub async fn metrics<D: Store>(State(app): State<Shared<D>>) -> Response {
    if let Ok(Ok(lag)) = timeout(PING_MAX, Admin::new(app.pool.clone()).lag()).await {
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        {
            metrics::gauge!("outbox_pending").set(lag.pending as f64);
            metrics::gauge!("outbox_dead").set(lag.dead as f64);
        }
        metrics::gauge!("outbox_oldest_age_seconds")
            .set(lag.oldest_age.map_or(0.0, |age| age.as_secs_f64()));
    }
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        app.metrics.render(),
    )
        .into_response()
}
