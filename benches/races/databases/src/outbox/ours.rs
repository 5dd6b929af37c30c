//! mainstay's relay, with the number of lanes it comes with.

use std::future::pending;

use mainstay_outbox::{
    Event, LaneRef, Message, Outbox, OutboxConfig, Outcome, Outcomes, Relay, Sink, SinkDown,
    migrate,
};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::{Arrived, Drain, payload};
use crate::servers::Postgres;

/// In order per key, 64 lanes.
pub const BATCH_1000: Drain = Drain {
    name: "mainstay, batch 1000",
    messages: 100_000,
    fill: |database, messages| Box::pin(fill(pool(database), messages)),
    run: |database, arrived| Box::pin(relay(pool(database), 1_000, arrived)),
};

/// The default.
pub const BATCH_100: Drain = Drain {
    name: "mainstay, batch 100",
    run: |database, arrived| Box::pin(relay(pool(database), 100, arrived)),
    ..BATCH_1000
};

fn pool(database: &Postgres) -> impl Future<Output = PgPool> + Send + use<> {
    let options = sqlx::postgres::PgPoolOptions::new()
        .max_connections(4)
        .test_before_acquire(false);
    let target = database.options.clone();
    async move { options.connect_with(target).await.unwrap() }
}

pub fn outbox() -> Outbox<sqlx::Postgres> {
    Outbox::new(OutboxConfig::default().source("/race"))
}

/// A thousand keys, so that each has its order.
pub fn event(number: u64) -> Event {
    let key = format!("order-{}", number % 1_000);
    let event = Event::new("order.placed").topic("orders").key(&key);
    event.json(&payload(number)).unwrap()
}

async fn fill(pool: impl Future<Output = PgPool>, messages: u64) {
    let pool = pool.await;
    migrate(&pool).await.unwrap();
    let outbox = outbox();
    let mut number = 0;
    while number < messages {
        let until = messages.min(number + 1_000);
        let mut tx = pool.begin().await.unwrap();
        outbox
            .enqueue_many(&mut tx, (number..until).map(event))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        number = until;
    }
    sqlx::raw_sql("VACUUM ANALYZE")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
}

async fn relay(pool: impl Future<Output = PgPool>, batch: u32, arrived: Arrived) {
    let cancel = CancellationToken::new();
    // The race ends by dropping this future.
    let _guard = cancel.clone().drop_guard();
    let relay = Relay::builder(pool.await)
        .batch(batch)
        .in_flight_max(10_000);
    let relay = relay.sink("*", Count(arrived)).build().await.unwrap();
    let _handle = relay.spawn(cancel);
    pending::<()>().await;
}

/// Counts, and has all of it.
struct Count(Arrived);

impl Sink for Count {
    async fn publish(&self, _: LaneRef, batch: &[Message]) -> Result<Outcomes, SinkDown> {
        self.0.add(batch.len() as u64);
        Ok(batch.iter().map(|_| Outcome::Acked).collect())
    }
}
