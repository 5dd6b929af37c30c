//! The loop, closed in one process: one logical call through the client stack, the service, the relay and the consumer, while
//! answers are lost at each hand-over.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, extract::State, http::StatusCode, routing::post};
use mainstay::{
    errors::{Error, ProblemLayer, Registry},
    idempotency::{self, IdemTx, IdempotencyLayer, Inbox, Scope, Seen},
    outbox::{self, ChannelSink, Event, Outbox, OutboxConfig, Relay},
    retry::{AttachIdempotencyKeyLayer, Backoff, RetryLayer, TokenBudget},
};
use sqlx::{Sqlite, SqlitePool, sqlite::SqliteConnectOptions};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceBuilder, ServiceExt};

async fn order(
    State(outbox): State<Outbox<Sqlite>>,
    mut tx: IdemTx<Sqlite>,
    item: String,
) -> Result<StatusCode, Error> {
    sqlx::query("INSERT INTO orders (item) VALUES (?1)")
        .bind(&item)
        .execute(&mut **tx)
        .await
        .map_err(Error::internal)?;
    let event = Event::new("order.placed")
        .topic("orders")
        .key(&item)
        .json(&item)
        .map_err(Error::internal)?;
    outbox
        .enqueue(&mut tx, event)
        .await
        .map_err(Error::internal)?;
    Ok(StatusCode::CREATED)
}

async fn count(pool: &SqlitePool, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn two_lost_answers_and_a_lost_acknowledgement_are_still_one_order_and_one_effect() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("shop.db"))
        .create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    for table in [
        "CREATE TABLE orders (item TEXT NOT NULL)",
        "CREATE TABLE effects (item TEXT NOT NULL)",
    ] {
        sqlx::query(table).execute(&pool).await.unwrap();
    }
    idempotency::migrate(&pool).await.unwrap();
    outbox::migrate(&pool).await.unwrap();

    // The service.
    let outbox = Outbox::<Sqlite>::new(OutboxConfig::default().source("/shop"));
    let waker = outbox.waker();
    let layer = IdempotencyLayer::local(pool.clone())
        .scope(|parts| Ok(Scope::new(b"tenant", b"", parts.uri.path())))
        .on_commit(move || waker.notify_after_commit());
    let app = Router::new()
        .route("/orders", post(order).layer(layer))
        .with_state(outbox.clone())
        .layer(ProblemLayer::new(Registry::new()));

    // A transport that loses the first two answers after the service has done its work.
    let sent = Arc::new(AtomicU32::new(0));
    let transport = {
        let sent = Arc::clone(&sent);
        tower::service_fn(
            move |request: http::Request<http_body_util::Full<bytes::Bytes>>| {
                let (app, sent) = (app.clone(), Arc::clone(&sent));
                async move {
                    let answer = app
                        .oneshot(request.map(Body::new))
                        .await
                        .unwrap_or_else(|never: Infallible| match never {});
                    if sent.fetch_add(1, Ordering::Relaxed) < 2 {
                        Err("connection reset")
                    } else {
                        Ok(answer)
                    }
                }
            },
        )
    };
    let mut client = ServiceBuilder::new()
        .layer(AttachIdempotencyKeyLayer::new())
        .layer(
            RetryLayer::http()
                .max_attempts(3)
                .backoff(Backoff::constant(Duration::ZERO))
                .budget(
                    TokenBudget::success_credit(0.1)
                        .capacity(10)
                        .shared()
                        .unwrap(),
                ),
        )
        .service(transport);
    let request = http::Request::post("/orders")
        .body(http_body_util::Full::from("umbrella"))
        .unwrap();
    let answer = client.ready().await.unwrap().call(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(answer.headers()["idempotent-replayed"], "true");
    assert_eq!(sent.load(Ordering::Relaxed), 3);
    assert_eq!(count(&pool, "SELECT count(*) FROM orders").await, 1);

    // The consumer, whose first acknowledgement is lost.
    let (sink, mut deliveries) = ChannelSink::new(8);
    let relay = Relay::builder(pool.clone())
        .wake(outbox.waker())
        .retry(Backoff::constant(Duration::from_millis(1)))
        .sink("*", sink)
        .build()
        .await
        .unwrap()
        .spawn(CancellationToken::new());
    for seen in [Seen::First, Seen::Duplicate] {
        let delivery = deliveries.recv().await.unwrap();
        let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let found = Inbox::once(&mut *tx, "billing", delivery.message().id().to_string())
            .await
            .unwrap();
        assert_eq!(found, seen);
        if found == Seen::First {
            sqlx::query("INSERT INTO effects (item) VALUES (?1)")
                .bind("umbrella")
                .execute(&mut *tx)
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
        if seen == Seen::First {
            drop(delivery);
        } else {
            delivery.ack();
        }
    }
    relay.drain(Duration::from_secs(5)).await;
    assert_eq!(count(&pool, "SELECT count(*) FROM effects").await, 1);
    let lag = outbox::Admin::new(pool).lag().await.unwrap();
    assert_eq!((lag.pending, lag.dead), (0, 0));
}
