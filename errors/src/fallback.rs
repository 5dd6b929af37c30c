//! What a nested API answers to an address it does not have.

use crate::{Problem, http_codes};

/// A handler for [`Router::fallback`](axum::Router::fallback) of an API that is nested into something larger: 404
/// `not_found`.
///
/// A nested router without a fallback of its own takes that of the router around it. Where that one serves the start
/// page of a single-page application, an unknown `/api/…` is answered with 200 and HTML, which a client
/// then fails to read as JSON. A wrong *method* needs no handler: axum answers 405 with `Allow`, of which
/// [`ProblemLayer`](crate::ProblemLayer) makes a document.
///
/// The bare prefix with a slash (`/api/`) is not inside of what is nested at `/api`: where it matters, route it
/// here as well, `.route("/api/", any(api_fallback))`.
///
/// ```
/// use axum::{Router, response::Html, routing::get};
/// use mainstay_errors::{ProblemLayer, api_fallback};
///
/// let api = Router::new()
///     .route("/orders", get(|| async { "[]" }))
///     .fallback(api_fallback);
/// let app: Router = Router::new()
///     .nest("/api", api)
///     .fallback(|| async { Html("<!doctype html>") })
///     .layer(ProblemLayer::default());
/// ```
pub async fn api_fallback() -> Problem {
    http_codes::for_status(404).to_problem()
}
