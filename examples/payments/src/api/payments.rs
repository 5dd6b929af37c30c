//! `/v1/payments`: ask for one, look at one, list them.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{OriginalUri, State},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use mainstay::{
    errors::{Category, Json, Path, Problem, Query, db::DbFault},
    idempotency::{IdemTx, IdempotencyLayer, Scope},
    outbox::Event,
    pagination::{KeysetDef, PageLimits, Paged, Probe},
};
use serde::Deserialize;
use time::OffsetDateTime;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::{
    app::{self, BODY_BYTES_MAX, Shared},
    auth::Tenant,
    payment::{NewPayment, Payment, PaymentError},
    store::Store,
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
        return Err(Problem::new(Category::Internal, "tenant_unresolved"));
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
        (status = 400, description = "No key, a malformed key, or JSON that is not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No known token", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The same key is being worked on; ask again after Retry-After", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Fields that are wrong, or a key that was used with another body", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not now; `outcome` says whether anything happened", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = [])),
)]
pub async fn create<D: Store>(
    State(app): State<Shared<D>>,
    Extension(Tenant(tenant)): Extension<Tenant>,
    mut tx: IdemTx<D>,
    Json(asked): Json<NewPayment>,
) -> Result<Response, PaymentError> {
    let payment = asked.validate()?.accept(&tenant, now());
    D::insert(&mut tx, &payment).await.map_err(DbFault::from)?;
    app.outbox.enqueue(&mut tx, event("payment.created", &payment)?).await?;
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
        (status = 404, description = "No payment of yours has this id", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = [])),
)]
pub async fn find<D: Store>(
    State(app): State<Shared<D>>,
    Extension(Tenant(tenant)): Extension<Tenant>,
    Path(id): Path<Uuid>,
) -> Result<axum::Json<Payment>, PaymentError> {
    let payment = D::find(&app.pool, &tenant, id).await.map_err(DbFault::from)?;
    payment.map(axum::Json).ok_or(PaymentError::PaymentNotFound)
}

/// The order of the list. Newest first; the id decides between payments of one microsecond.
static NEWEST: KeysetDef = KeysetDef::new("payments.newest").desc("created_at").timestamp_micros().desc("id").uuid().unique();

/// What `?…` may say beside the page itself.
#[derive(Debug, Deserialize)]
pub struct Filter {
    currency: Option<String>,
}

/// List payments, newest first.
#[utoipa::path(
    get, path = "/v1/payments", tag = "payments",
    params(
        ("limit" = Option<u32>, Query, description = "Payments on a page, from 1 to 100; 20 when absent", minimum = 1, maximum = 100),
        ("after" = Option<String>, Query, description = "Continue after this cursor"),
        ("before" = Option<String>, Query, description = "The page before this cursor"),
        ("currency" = Option<String>, Query, description = "Only this currency", pattern = "^[A-Z]{3}$"),
    ),
    responses(
        (status = 200, description = "A page, with its neighbours in `Link`", body = PaymentPage),
        (status = 400, description = "A limit or a cursor that cannot be used; `errors` names the parameter", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = [])),
)]
pub async fn list<D: Store>(
    State(app): State<Shared<D>>,
    Extension(Tenant(tenant)): Extension<Tenant>,
    OriginalUri(uri): OriginalUri,
    Query(filter): Query<Filter>,
    Paged(page): Paged<Limits>,
) -> Result<Response, Problem> {
    let currency = filter.currency.as_deref();
    if currency.is_some_and(|currency| !is_currency(currency)) {
        let violation = Violation::query("currency", "malformed", "must be the three capital letters of an ISO 4217 currency");
        return Err(Problem::new(Category::InvalidArgument, "currency_malformed").with_violation(violation));
    }
    let page = NEWEST
        .select::<D>(|query| D::select(query, &tenant, currency))
        // A cursor is good for this list, this tenant and this filter only.
        .bind_to(("payments.list", &*tenant, currency))
        .previous(Probe::Exact)
        .fetch::<Payment, _>(&app.pool, &page, &app.cursors)
        .await?;
    let link = page.link_header(&uri);
    let mut response = axum::Json(page).into_response();
    response.headers_mut().extend(link.map(|link| (header::LINK, link)));
    Ok(response)
}

/// Pages of payments.
#[derive(Debug)]
pub struct Limits;

impl mainstay::pagination::Limits for Limits {
    const LIMITS: PageLimits = PageLimits::new(20, 100);
}

/// A page of payments, for the documentation.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described, never built")]
pub struct PaymentPage {
    items: Vec<Payment>,
    page: mainstay::pagination::PageInfo,
}

fn event(kind: &'static str, payment: &Payment) -> Result<Event, Problem> {
    Event::new(kind).topic("payments").key(payment.id.as_bytes()).subject(payment.id.to_string()).header("tenant", &payment.tenant).json(payment)
}
