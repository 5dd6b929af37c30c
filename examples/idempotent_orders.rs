//! Asking again is safe: the idempotency layer's Local protocol, in which key, order and answer commit together.
//!
//! Run it with `cargo run --example idempotent_orders`. The database is a file in a temporary folder.
//!
//! It prints:
//!
//! ```text
//! # the answer got lost, so the client asks again
//! key a, umbrella: 201 order 1: umbrella
//! key a, umbrella: 201 order 1: umbrella (idempotent-replayed: true)
//! orders: 1
//!
//! # a key stands for one request, and there is no request without one
//! key a, raincoat: 422 idempotency_key_reused, retry: never
//! key -, raincoat: 400 idempotency_key_missing, retry: never
//! orders: 1
//!
//! # asked again while the first is running, and after it
//! key b, piano: 409 idempotency_key_in_flight, retry: after (retry-after: 1)
//! key b, piano: 201 order 2: piano
//! key b, piano: 201 order 2: piano (idempotent-replayed: true)
//! orders: 2
//!
//! # a failure that may pass leaves nothing behind: the key runs again
//! key c, unicorn: 503 out_of_stock, retry: backoff
//! key c, unicorn: 201 order 3: unicorn
//! orders: 3
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    BoxError, Router,
    body::Body,
    extract::State,
    http::{Request, StatusCode},
    routing::post,
};
use http_body_util::BodyExt;
use mainstay::{
    errors::{Fault, Problem, ProblemLayer, Registry, db::DbFault},
    idempotency::{self, IdemTx, IdempotencyError, IdempotencyLayer, Scope},
};
use sqlx::{Sqlite, SqlitePool, sqlite::SqliteConnectOptions};
use tokio::sync::Notify;
use tower::ServiceExt;

/// Lets the example hold one order in the middle of its handler, and refuse another once.
#[derive(Default)]
struct Shop {
    started: Notify,
    go_on: Notify,
    has_unicorns: AtomicBool,
}

#[derive(Debug, thiserror::Error, Fault)]
enum OrderError {
    #[error("out of stock")]
    #[fault(unavailable, public, outcome = not_applied)]
    OutOfStock,
    #[error(transparent)]
    #[fault(delegate)]
    Database(#[from] DbFault),
}

impl From<sqlx::Error> for OrderError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// The handler writes in the request's own transaction. It neither begins nor commits: the layer does, by the status.
async fn order(
    State(shop): State<Arc<Shop>>,
    mut tx: IdemTx<Sqlite>,
    item: String,
) -> Result<(StatusCode, String), OrderError> {
    let id: i64 = sqlx::query_scalar("INSERT INTO orders (item) VALUES (?1) RETURNING id")
        .bind(&item)
        .fetch_one(&mut **tx)
        .await?;
    match item.as_str() {
        "piano" => {
            shop.started.notify_one();
            shop.go_on.notified().await;
        }
        "unicorn" if !shop.has_unicorns.swap(true, Ordering::Relaxed) => {
            return Err(OrderError::OutOfStock); // and the row above is rolled back
        }
        _ => {}
    }
    Ok((StatusCode::CREATED, format!("order {id}: {item}")))
}

const NO_KEY: &str = "-";

/// Sends an order and prints the answer in a line.
async fn send(app: Router, key: &str, item: &'static str) -> Result<(), BoxError> {
    let mut request = Request::post("/orders").header("content-type", "text/plain");
    if key != NO_KEY {
        request = request.header("idempotency-key", key);
    }
    let answer = app.oneshot(request.body(Body::from(item))?).await?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    print!("key {key}, {item}: {}", head.status.as_u16());
    if head.status.is_success() {
        print!(" {}", String::from_utf8_lossy(&body));
    } else {
        let problem = Problem::read(head.status.as_u16(), &head.headers, &body);
        print!(" {}, retry: {}", problem.code(), problem.retry().as_str());
    }
    for name in ["idempotent-replayed", "retry-after"] {
        if let Some(value) = head.headers.get(name) {
            print!(" ({name}: {})", value.to_str()?);
        }
    }
    println!();
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let folder = tempfile::tempdir()?;
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("orders.db"))
        .create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await?;
    sqlx::query("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT NOT NULL)")
        .execute(&pool)
        .await?;
    idempotency::migrate(&pool).await?;

    let shop = Arc::new(Shop::default());
    let layer = IdempotencyLayer::local(pool.clone())
        // Whose key is it? A service takes the tenant from whatever authenticated the request.
        .scope(|request| Ok(Scope::new("tenant-1", "", request.uri.path())));
    let registry = Registry::new()
        .with::<OrderError>()
        .with::<IdempotencyError>();
    let app = Router::new()
        .route("/orders", post(order).layer(layer))
        .with_state(shop.clone())
        .layer(ProblemLayer::new(&registry));
    // How often the effect has happened.
    let orders = async || {
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM orders")
            .fetch_one(&pool)
            .await
    };

    println!("# the answer got lost, so the client asks again");
    send(app.clone(), "a", "umbrella").await?;
    send(app.clone(), "a", "umbrella").await?;
    println!("orders: {}\n", orders().await?);

    println!("# a key stands for one request, and there is no request without one");
    send(app.clone(), "a", "raincoat").await?;
    send(app.clone(), NO_KEY, "raincoat").await?;
    println!("orders: {}\n", orders().await?);

    println!("# asked again while the first is running, and after it");
    let first = tokio::spawn(send(app.clone(), "b", "piano"));
    shop.started.notified().await;
    send(app.clone(), "b", "piano").await?;
    shop.go_on.notify_one();
    first.await??;
    send(app.clone(), "b", "piano").await?;
    println!("orders: {}\n", orders().await?);

    println!("# a failure that may pass leaves nothing behind: the key runs again");
    send(app.clone(), "c", "unicorn").await?;
    send(app.clone(), "c", "unicorn").await?;
    println!("orders: {}", orders().await?);
    pool.close().await;
    Ok(())
}
