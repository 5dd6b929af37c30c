//! The contestants that are libraries, and the transaction alone.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use axum_idempotent::{IdempotentLayer, IdempotentOptions};
use http::{HeaderMap, Request, StatusCode};
use mainstay_idempotency::{IdemTx, IdempotencyLayer, Scope, Scoped, Wait};
use ruts::store::Ttl;
use ruts::store::moka::MokaStore;
use ruts::{CookieOptions, Session, SessionLayer};
use sqlx::{PgConnection, PgPool};
use tower::ServiceExt;
use tower_cookies::CookieManagerLayer;

use super::{ANSWER, App};

pub type Answer = (StatusCode, &'static [u8]);

pub const CREATED: Answer = (StatusCode::CREATED, &ANSWER);

pub fn key(headers: &HeaderMap) -> String {
    headers["idempotency-key"].to_str().unwrap().to_owned()
}

pub async fn effect(conn: &mut PgConnection, key: &str) {
    let query = sqlx::query("INSERT INTO payment (key) VALUES ($1)").bind(key);
    query.execute(conn).await.unwrap();
}

async fn pay(State(pool): State<PgPool>, headers: HeaderMap) -> Answer {
    let mut tx = pool.begin().await.unwrap();
    effect(&mut tx, &key(&headers)).await;
    tx.commit().await.unwrap();
    CREATED
}

/// What the effect costs by itself: it is there twice when the request is.
pub fn bare(pool: &PgPool) -> App {
    let router = Router::new()
        .route("/pay", post(pay))
        .with_state(pool.clone());
    App::new("bare transaction", router)
}

/// The Local protocol, with its defaults but for duplicates, which wait for the first.
pub fn mainstay(pool: &PgPool) -> App {
    of_ours("mainstay", pool, |layer| layer)
}

/// The same, with the claim in the statement that records.
pub fn mainstay_optimistic(pool: &PgPool) -> App {
    of_ours("mainstay, optimistic", pool, |layer| layer.optimistic())
}

type Layer = IdempotencyLayer<sqlx::Postgres, Scoped>;

fn of_ours(name: &'static str, pool: &PgPool, edit: impl FnOnce(Layer) -> Layer) -> App {
    async fn pay(headers: HeaderMap, mut tx: IdemTx<sqlx::Postgres>) -> Answer {
        effect(&mut tx, &key(&headers)).await;
        CREATED
    }
    let layer = IdempotencyLayer::<sqlx::Postgres>::local(pool.clone())
        .scope(|_| Ok(Scope::new("acme", "", "pay")))
        .wait(Wait::Up(std::time::Duration::from_secs(10)));
    App::new(
        name,
        Router::new().route("/pay", post(pay)).layer(edit(layer)),
    )
}

/// As its README has it: by header, in a session of moka's. Its records are in this process's memory.
pub async fn axum_idempotent(pool: &PgPool) -> App {
    let options = IdempotentOptions::default()
        .use_idempotency_key_header(Some("Idempotency-Key"), true)
        .expire_after(60 * 5);
    let sessions = SessionLayer::new(Arc::new(MokaStore::builder().build()));
    let login = post(|session: Session<MokaStore>| async move {
        let ttl = Ttl::new(3_600).unwrap();
        session
            .set("user", &"alice".to_owned(), ttl, None)
            .await
            .unwrap();
    });
    let router = Router::new()
        .route("/pay", post(pay))
        .with_state(pool.clone())
        .layer(IdempotentLayer::<MokaStore>::new(options))
        .route("/login", login)
        .layer(sessions.with_cookie_options(CookieOptions::build().name("session").path("/")))
        .layer(CookieManagerLayer::new());
    let request = Request::post("/login")
        .body(axum::body::Body::empty())
        .unwrap();
    let answer = router.clone().oneshot(request).await.unwrap();
    let cookie = answer.headers()["set-cookie"].clone();
    App {
        cookie: Some(cookie),
        ..App::new("axum-idempotent 0.6, in memory", router)
    }
}
