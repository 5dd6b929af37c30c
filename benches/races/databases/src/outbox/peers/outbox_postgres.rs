//! outbox-postgres and outbox-core, as their READMEs have them: claimed by a lease, marked as sent in one statement for a batch, and
//! a trigger that notifies for each row.

use std::future::pending;
use std::sync::Arc;

use outbox_core::prelude::*;
use outbox_postgres::{PostgresOutbox, PostgresWriter};
use sqlx08::PgPool;
use tokio::sync::watch;

use super::super::{Arrived, Drain, payload};

pub const BATCH_1000: Drain = Drain {
    name: "outbox-postgres 0.3, batch 1000",
    messages: 20_000,
    fill: |database, messages| {
        let url = database.url.clone();
        Box::pin(async move { fill(super::pool(&url, 2).await, messages).await })
    },
    run: |database, arrived| {
        let url = database.url.clone();
        Box::pin(async move { run(super::pool(&url, 4).await, 1_000, arrived).await })
    },
};

/// Its default.
pub const BATCH_100: Drain = Drain {
    name: "outbox-postgres 0.3, batch 100",
    run: |database, arrived| {
        let url = database.url.clone();
        Box::pin(async move { run(super::pool(&url, 4).await, 100, arrived).await })
    },
    ..BATCH_1000
};

type Payload = serde_json::Value;

fn config(batch: u32) -> Arc<OutboxConfig<Payload>> {
    let mut config = OutboxConfig::default();
    config.batch_size = batch;
    config.idempotency_strategy = IdempotencyStrategy::None;
    Arc::new(config)
}

pub async fn migrate(pool: &PgPool) {
    super::migrate(pool, "outbox-postgres").await;
}

/// Without the trigger, which would only make filling slow.
async fn fill(pool: PgPool, messages: u64) {
    migrate(&pool).await;
    sqlx08::query(
        "INSERT INTO outbox_events (event_type, payload) SELECT 'order.placed', $2 FROM generate_series(1, $1)",
    )
    .bind(messages as i64)
    .bind(payload(7))
    .execute(&pool)
    .await
    .unwrap();
    sqlx08::raw_sql("VACUUM ANALYZE")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
}

struct Count(Arrived);

#[async_trait::async_trait]
impl Transport<Payload> for Count {
    async fn publish(&self, _: Event<Payload>) -> Result<(), OutboxError> {
        self.0.add(1);
        Ok(())
    }
}

async fn run(pool: PgPool, batch: u32, arrived: Arrived) {
    let config = config(batch);
    let storage = PostgresOutbox::<Payload>::new(pool, Arc::clone(&config));
    let (_stop, stopped) = watch::channel(false);
    let manager = OutboxManagerBuilder::new()
        .storage(Arc::new(storage))
        .publisher(Arc::new(Count(arrived)))
        .config(config)
        .shutdown_rx(stopped)
        .build()
        .unwrap();
    manager.run().await.unwrap();
    pending::<()>().await;
}

/// One event in the caller's transaction.
pub async fn enqueue(conn: &mut sqlx08::PgConnection, number: u64) {
    let service = OutboxService::new(Arc::new(PostgresWriter), config(100));
    let added = service
        .add_event("order.placed", payload(number), None, conn)
        .await;
    added.unwrap();
}
