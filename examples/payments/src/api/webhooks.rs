//! `/v1/webhooks/provider`: the payment provider tells us that money has moved.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use mainstay::{
    errors::{
        Error, Json, Problem,
        db::DbFault,
        openapi::{AnyOf, Codes, JsonRejections},
    },
    idempotency::{
        self, IdemTx,
        webhook::{Delivery, Received, WebhookError},
    },
};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::payments::event;
use crate::{
    app::{App, Shared},
    clock,
    payment::{LookupError, PaymentError},
    store::Store,
};

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
    /// To what; read only when `type` is one that means something.
    #[schema(value_type = NoticeData)]
    data: Box<RawValue>,
}

/// What a notice is about.
#[derive(Debug, Deserialize, ToSchema)]
pub struct NoticeData {
    payment_id: Uuid,
}

/// Take a notice of the provider.
///
/// The notice is verified first and read second. Its mark in the inbox, the settlement and the event commit together.
#[utoipa::path(
    post, path = "/v1/webhooks/provider", tag = "webhooks",
    params(
        ("webhook-id" = String, Header, description = "The same on every attempt"),
        ("webhook-timestamp" = String, Header, description = "Seconds since 1970 of this attempt; at most 5 minutes off"),
        ("webhook-signature" = String, Header, description = "`v1,` and base64 of the HMAC-SHA256, as in Standard Webhooks"),
    ),
    request_body = Notice,
    responses(
        (status = 204, description = "Applied, now or by an earlier delivery"),
        AnyOf<(Codes<WebhookError>, Codes<idempotency::Error>, JsonRejections, LookupError, PaymentError, Problem)>,
    ),
)]
pub async fn provider<D: Store>(
    State(app): State<Shared<D>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Error> {
    let effect = {
        let app = Arc::clone(&app);
        move |mut tx: IdemTx<D>, delivery: Delivery| async move {
            let Some(payment_id) = settled(&delivery.body)? else {
                return Ok::<_, Error>(());
            };
            settle(&app, &mut tx, payment_id).await?;
            Ok(())
        }
    };
    match app
        .webhooks
        .receive(
            &app.provider,
            "provider",
            &headers,
            body,
            clock::now(),
            effect,
        )
        .await?
    {
        Received::First(()) | Received::Duplicate => Ok(StatusCode::NO_CONTENT),
    }
}

/// Settles a payment and tells the world, once: a payment that is settled already stays as it is.
async fn settle<D: Store>(app: &App<D>, tx: &mut IdemTx<D>, payment_id: Uuid) -> Result<(), Error> {
    if let Some(payment) = D::settle_payment(tx, payment_id)
        .await
        .map_err(DbFault::from)?
    {
        let event = event("payment.settled", &payment).map_err(PaymentError::from)?;
        app.outbox
            .enqueue(tx, event)
            .await
            .map_err(PaymentError::from)?;
        return Ok(());
    }
    let exists = D::payment_exists(tx, payment_id)
        .await
        .map_err(DbFault::from)?;
    if exists {
        Ok(())
    } else {
        Err(LookupError::PaymentNotFound.into())
    }
}

/// The payment that a notice settles; `None` for news of other kinds.
fn settled(body: &[u8]) -> Result<Option<Uuid>, Problem> {
    let Json(notice) = Json::<Notice>::from_bytes(body)?;
    if notice.kind != "payment.settled" {
        return Ok(None);
    }
    let Json(data) = Json::<NoticeData>::from_bytes(notice.data.get().as_bytes())?;
    Ok(Some(data.payment_id))
}
