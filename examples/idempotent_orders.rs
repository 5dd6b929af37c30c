//! Asking again is safe: the idempotency layer's Local protocol, in which key, order and answer commit together.
//!
//! Run it with `cargo run --example idempotent_orders`. The database is a file in a temporary folder.
//!
//! @@OUTPUT@@
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{error::Error, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{Request, StatusCode},
    routing::post,
};
use http_body_util::BodyExt;
use mainstay::{
    errors::{self, Fault, ProblemLayer, Registry},
    idempotency::{self, IdemTx, IdempotencyError, IdempotencyLayer, Scope},
};
use sqlx::{Sqlite, SqlitePool, sqlite::SqliteConnectOptions};
use tokio::sync::Notify;
use tower::ServiceExt;

/// Lets the example hold one order in the middle of its handler.
#[derive(Default)]
struct Counter {
    started: Notify,
    go_on: Notify,
}

#[derive(Debug, thiserror::Error, Fault)]
enum OrderError {
    #[error("out of stock")]
    #[fault(unavailable, public, outcome = not_applied)]
    OutOfStock,
    #[error(transparent)]
    #[fault(delegate)]
    Database(#[from] errors::db::DbFault),
}

impl From<sqlx::Error> for OrderError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// The handler writes in the request's own transaction. It neither begins nor commits: the layer does, by the status.
async fn order(
    State(counter): State<Arc<Counter>>,
    mut tx: IdemTx<Sqlite>,
    item: String,
) -> Result<(StatusCode, String), OrderError> {
    let id: i64 = sqlx::query_scalar("INSERT INTO orders (item) VALUES (?1) RETURNING id")
        .bind(&item)
        .fetch_one(&mut **tx)
        .await?;
    match item.as_str() {
        "piano" => {
            counter.started.notify_one();
            counter.go_on.notified().await;
        }
        "unicorn" => return Err(OrderError::OutOfStock), // and the row above is rolled back
        _ => {}
    }
    Ok((StatusCode::CREATED, format!("order {id}: {item}")))
}

/// Sends an order and describes the answer in a line.
async fn send(
    app: Router,
    key: Option<&str>,
    item: &'static str,
) -> Result<String, Box<dyn Error + Send + Sync>> {
    let mut request = Request::post("/orders").header("content-type", "text/plain");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let answer = app.oneshot(request.body(Body::from(item))?).await?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    let mut line = format!("{}", head.status.as_u16());
    if head.status.is_success() {
        line += &format!(" {}", String::from_utf8_lossy(&body));
    } else {
        // What went wrong, as a client reads it.
        let problem = errors::Problem::read(head.status.as_u16(), &head.headers, &body);
        line += &format!(" {}, retry: {}", problem.code(), problem.retry().as_str());
    }
    for name in ["idempotent-replayed", "retry-after"] {
        if let Some(value) = head.headers.get(name) {
            line += &format!(" ({name}: {})", value.to_str()?);
        }
    }
    Ok(line)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let folder = tempfile::tempdir()?;
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("orders.db"))
        .create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await?;
    sqlx::query("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT NOT NULL)")
        .execute(&pool)
        .await?;
    idempotency::migrate(&pool).await?;

    let counter = Arc::new(Counter::default());
    let layer = IdempotencyLayer::local(pool.clone())
        // Whose key is it? A service takes the tenant from whatever authenticated the request.
        .scope(|request| Ok(Scope::new("tenant-1", "", request.uri.path())));
    let registry = Registry::new()
        .with::<OrderError>()
        .with::<IdempotencyError>();
    let app = Router::new()
        .route("/orders", post(order).layer(layer))
        .with_state(counter.clone())
        .layer(ProblemLayer::new(&registry));
    let orders = async || {
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM orders")
            .fetch_one(&pool)
            .await
    };

    println!("# the answer got lost, so the client asks again");
    println!(
        "key a, umbrella: {}",
        send(app.clone(), Some("a"), "umbrella").await?
    );
    println!(
        "key a, umbrella: {}",
        send(app.clone(), Some("a"), "umbrella").await?
    );
    println!("orders: {}\n", orders().await?);

    println!("# a key stands for one request");
    println!(
        "key a, raincoat: {}",
        send(app.clone(), Some("a"), "raincoat").await?
    );
    println!(
        "no key:          {}",
        send(app.clone(), None, "raincoat").await?
    );
    println!("orders: {}\n", orders().await?);

    println!("# asked again while the first is still running");
    let first = tokio::spawn(send(app.clone(), Some("b"), "piano"));
    counter.started.notified().await;
    println!(
        "key b, piano:    {}",
        send(app.clone(), Some("b"), "piano").await?
    );
    counter.go_on.notify_one();
    println!("the first one:   {}", first.await??);
    println!(
        "key b, piano:    {}",
        send(app.clone(), Some("b"), "piano").await?
    );
    println!("orders: {}\n", orders().await?);

    println!("# a failure that may pass leaves nothing behind: the key runs again");
    println!(
        "key c, unicorn:  {}",
        send(app.clone(), Some("c"), "unicorn").await?
    );
    println!(
        "key c, teapot:   {}",
        send(app.clone(), Some("c"), "teapot").await?
    );
    println!("orders: {}", orders().await?);
    pool.close().await;
    Ok(())
}
