//! The HTTP interface, a file per resource.

pub mod health;
pub mod openapi;
pub mod payments;
pub mod webhooks;

use mainstay::{
    errors::Registry,
    idempotency::{self, IdempotencyError, webhook::WebhookError},
};

use self::{health::ReadyError, payments::ListError};
use crate::{
    auth::AuthError,
    payment::{LookupError, PaymentError},
};

/// Every code that this service answers with: one list for the layer, the pages, OpenAPI and `codes.json`.
pub fn registry() -> Registry {
    Registry::new()
        .domain("payments.example.com") // of the codes that mainstay's own parts bring
        .with::<AuthError>()
        .with::<PaymentError>()
        .with::<LookupError>()
        .with::<ListError>()
        .with::<IdempotencyError>()
        .with::<WebhookError>()
        .with::<idempotency::Error>()
        .with::<ReadyError>()
}
