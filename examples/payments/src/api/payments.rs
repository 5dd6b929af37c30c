//! `/v1/payments`: ask for one, look at one, list them.

use std::time::Duration;

use axum::{
    Extension, Router,
    extract::{OriginalUri, State},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use mainstay::{
    errors::{
        Fault, Json, Path, Problem, Query, Violation, Violations,
        db::DbFault,
        openapi::{AnyOf, Codes, JsonRejections, PathRejections, QueryRejections},
    },
    idempotency::{IdemTx, IdempotencyError, IdempotencyLayer, Scope},
    outbox::{EncodeError, Event},
    pagination::{OnExceed, Page, PageError, PageLimits, PagePolicy, Paged, Preset, Probe},
};
use serde::Deserialize;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::{
    app::{self, BODY_BYTES_MAX, Shared},
    auth::{AuthError, Tenant},
    clock,
    payment::{LookupError, NewPayment, Payment, PaymentError, is_currency},
    store::{Listed, Store},
};

/// How long a key is remembered. A client that asks again later than this is told so, and nothing runs twice.
pub const KEY_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// The routes, with the idempotency layer around the one that writes.
pub fn routes<D: Store>(app: &Shared<D>, tracker: &TaskTracker) -> Router<Shared<D>> {
    let idempotency = IdempotencyLayer::local(app.pool.clone())
        .required(true)
        .scope(scope)
        .retention(KEY_RETENTION)
        .request_bytes_max(BODY_BYTES_MAX)
        .on_commit(app::wake(&app.outbox))
        .tracker(tracker.clone());
    Router::new()
        .route("/v1/payments", post(create::<D>).layer(idempotency))
        .route("/v1/payments", get(list::<D>))
        .route("/v1/payments/{id}", get(find::<D>))
}

/// A key belongs to one tenant and one operation; another tenant's equal key is another key.
fn scope(parts: &Parts) -> Result<Scope, Problem> {
    let Some(Tenant(tenant)) = parts.extensions.get::<Tenant>() else {
        return Err(AuthError::TenantUnresolved.to_problem());
    };
    Ok(Scope::new(tenant.as_bytes(), b"", "payments.create"))
}

/// Ask for a payment.
///
/// The payment, its event and this answer commit together, or nothing does.
#[utoipa::path(
    post, path = "/v1/payments", tag = "payments",
    params(("Idempotency-Key" = String, Header, description = "Names this call, so that asking again is safe. Kept for 7 days.")),
    request_body = NewPayment,
    responses(
        (status = 201, description = "Accepted. `Idempotent-Replayed: true` when this is the recorded answer of an earlier request.", body = Payment,
         headers(("Location" = String, description = "The payment"), ("Idempotent-Replayed" = String, description = "Only on replays"))),
        AnyOf<(AuthError, Codes<IdempotencyError>, JsonRejections, PaymentError, Problem)>,
    ),
    security(("bearer" = [])),
)]
pub async fn create<D: Store>(
    State(app): State<Shared<D>>,
    Extension(Tenant(tenant)): Extension<Tenant>,
    mut tx: IdemTx<D>,
    Json(asked): Json<NewPayment>,
) -> Result<Response, PaymentError> {
    let payment = asked.validate()?.accept(&tenant, clock::now().into());
    D::insert_payment(&mut tx, &payment)
        .await
        .map_err(DbFault::from)?;
    app.outbox
        .enqueue(&mut tx, event("payment.created", &payment)?)
        .await?;
    let location = HeaderValue::try_from(format!("/v1/payments/{}", payment.id)).ok();
    let mut response = (StatusCode::CREATED, axum::Json(payment)).into_response();
    if let Some(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Look at a payment.
#[utoipa::path(
    get, path = "/v1/payments/{id}", tag = "payments",
    params(("id" = Uuid, Path, description = "The payment")),
    responses(
        (status = 200, description = "The payment", body = Payment),
        AnyOf<(AuthError, PathRejections, LookupError, Problem)>,
    ),
    security(("bearer" = [])),
)]
pub async fn find<D: Store>(
    State(app): State<Shared<D>>,
    Extension(Tenant(tenant)): Extension<Tenant>,
    Path(id): Path<Uuid>,
) -> Result<axum::Json<Payment>, LookupError> {
    let payment = D::find_payment(&app.pool, &tenant, id)
        .await
        .map_err(DbFault::from)?;
    payment.map(axum::Json).ok_or(LookupError::PaymentNotFound)
}

/// What `?…` may say beside the page itself.
#[derive(Debug, Deserialize)]
pub struct Filter {
    currency: Option<String>,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error, Fault)]
#[fault(domain = "payments.example.com")]
pub enum ListError {
    /// A filter of a list is not in the form that it must have; `errors` names it.
    #[error("a filter of the list is malformed")]
    #[fault(invalid_argument, public)]
    FilterMalformed(#[fault(violations)] Violations),
    /// The page itself cannot be had.
    #[error(transparent)]
    #[fault(delegate)]
    Page(#[from] PageError),
}

/// List payments, newest first.
#[utoipa::path(
    get, path = "/v1/payments", tag = "payments",
    params(
        Paged<PaymentPages>,
        ("currency" = Option<String>, Query, description = "Only this currency", pattern = "^[A-Z]{3}$"),
    ),
    responses(
        (status = 200, description = "A page, with its neighbours in `Link`", body = Page<Payment>, headers(("Link" = String, description = "`first` and `last`, and `prev` and `next` where there are such pages"))),
        AnyOf<(AuthError, QueryRejections, ListError, Problem)>,
    ),
    security(("bearer" = [])),
)]
pub async fn list<D: Store>(
    State(app): State<Shared<D>>,
    Extension(Tenant(tenant)): Extension<Tenant>,
    OriginalUri(uri): OriginalUri,
    Query(filter): Query<Filter>,
    page: Paged<PaymentPages>,
) -> Result<Response, ListError> {
    let currency = filter.currency.as_deref();
    if currency.is_some_and(|currency| !is_currency(currency)) {
        let violation = Violation::query("currency", "malformed")
            .with_detail("must be the three capital letters of an ISO 4217 currency");
        return Err(ListError::FilterMalformed(violation.into()));
    }
    let rows = Payment::NEWEST
        .select::<D>(|query| D::select_payments(query, &tenant, currency))
        // A cursor is good for this list, this tenant and this filter only.
        .bind_to(("payments.list", &*tenant, currency))
        .previous(Probe::Exact)
        .fetch::<Listed<D>, _>(&app.pool, &page, &app.cursors)
        .await?
        .map(|Listed(payment, _)| payment);
    Ok(page.respond(rows, &uri))
}

/// `limit`, `after` and `before`: 20 payments on a page, 100 at the most; more is a mistake that is pointed out.
#[derive(Debug)]
pub struct PaymentPages;

impl PagePolicy for PaymentPages {
    const LIMITS: PageLimits = PageLimits::new(20, 100).on_exceed(OnExceed::Reject);
    const PRESET: Preset = Preset::Plain;
}

/// What happened to a payment. Its id is the key: events of one payment arrive in their order.
pub fn event(kind: &'static str, payment: &Payment) -> Result<Event, EncodeError> {
    Event::new(kind)
        .topic("payments")
        .key(payment.id.as_bytes())
        .subject(payment.id.to_string())
        .header("tenant", &payment.tenant)
        .json(payment)
}
