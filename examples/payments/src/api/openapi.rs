//! `/openapi.json`. What it says of failures is derived from the enums that make them: nothing here repeats a code.

use axum::{Json, Router, routing::get};
use mainstay::errors::Registry;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use super::{health, payments, webhooks};
use crate::{app::Shared, payment, store::Store};

#[derive(OpenApi)]
#[openapi(
    info(title = "payments", description = "A payment service built on mainstay", license(name = "MIT OR Apache-2.0")),
    paths(
        payments::create,
        payments::find,
        payments::list,
        webhooks::provider,
        health::livez,
        health::readyz,
        health::metrics,
    ),
    components(schemas(payment::Payment, payment::NewPayment)),
    modifiers(&Bearer),
)]
struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme =
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("bearer", scheme);
    }
}

/// The document, made to agree with the registry: its schemas, its `type` base.
pub fn document(registry: &Registry) -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    registry.modify(&mut document);
    document
}

/// The routes.
pub fn routes<D: Store>(registry: &Registry) -> Router<Shared<D>> {
    let document = document(registry);
    Router::new().route("/openapi.json", get(|| async move { Json(document) }))
}
