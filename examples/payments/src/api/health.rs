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
    outbox::{Admin, Thresholds},
};
use tokio::time::timeout;

use crate::{app::Shared, store::Store};

/// How long the database may take to answer: three small statements.
const ANSWER_MAX: Duration = Duration::from_secs(2);

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

/// The service can do its work: the database answers, and with it tells how the outbox is.
///
/// An outbox that is behind is told and refuses nobody: payments are taken without it, and a load balancer that turned
/// callers away would only hide what is wrong. Who runs the service is to be alerted by `status` of `outbox`, or by the gauge
/// `mainstay_outbox_health`.
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    responses(
        (status = 200, description = "Ready, with the outbox's verdict"),
        AnyOf<(ReadyError, Problem)>,
    ),
)]
pub async fn readyz<D: Store>(
    State(app): State<Shared<D>>,
) -> Result<axum::Json<serde_json::Value>, ReadyError> {
    let admin = Admin::new(app.pool.clone());
    let asked = timeout(ANSWER_MAX, admin.health(&Thresholds::default())).await;
    match asked.map_err(Into::into) {
        Ok(Ok(outbox)) => Ok(axum::Json(
            serde_json::json!({ "status": "ready", "outbox": outbox }),
        )),
        Ok(Err(refused)) => Err(ReadyError::DatabaseUnreachable(refused.into())),
        Err(silent) => Err(ReadyError::DatabaseUnreachable(silent)),
    }
}

/// Metrics as Prometheus text. How the outbox is, a [`LagMonitor`](mainstay::outbox::LagMonitor) keeps fresh in them.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses((status = 200, description = "Prometheus text", content_type = "text/plain")))]
pub async fn metrics<D: Store>(State(app): State<Shared<D>>) -> Response {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        app.metrics.render(),
    )
        .into_response()
}
