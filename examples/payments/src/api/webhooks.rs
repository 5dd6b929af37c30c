//! `/v1/webhooks/provider`: the payment provider tells us that money has moved.

use std::time::SystemTime;

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use mainstay::{errors::Problem, idempotency::webhook::Received};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{app::Shared, payment::PaymentError, store::Store};

/// The routes.
pub fn routes<D: Store>() -> Router<Shared<D>> {
    Router::new().route("/v1/webhooks/provider", post(provider::<D>))
}

/// A notice of the payment provider.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Notice {
    /// What happened; only `payment.settled` means something here, the rest is acknowledged and ignored.
    #[serde(rename = "type")]
    #[schema(example = "payment.settled")]
    kind: String,
    /// To which payment.
    data: NoticeData,
}

/// What a notice is about.
#[derive(Debug, Deserialize, ToSchema)]
pub struct NoticeData {
    payment_id: Uuid,
}
