//! apalis-postgres: batches of 100 that are not locked one by one, woken by NOTIFY, run in parallel.

use std::future::pending;
use std::time::Duration;

use ::apalis::prelude::*;
use apalis_postgres::{Config, PostgresStorage};
use futures_util::{StreamExt, stream};
use sqlx::PgPool;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::super::{Arrived, Drain, payload};

pub const README: Drain = Drain {
    name: "apalis-postgres 1.0, batch 100, not locked, in parallel",
    messages: 10_000,
    fill: |database, messages| {
        let options = database.options.clone();
        Box::pin(async move { fill(PgPool::connect_with(options).await.unwrap(), messages).await })
    },
    run: |database, arrived| {
        let options = database.options.clone();
        Box::pin(async move { run(PgPool::connect_with(options).await.unwrap(), arrived).await })
    },
};

type Job = serde_json::Value;

fn config() -> Config {
    Config::default()
        .queue("race")
        .batch_size(100)
        .lock_tasks(false)
}

async fn fill(pool: PgPool, messages: u64) {
    PostgresStorage::setup(&pool).await.unwrap();
    let mut storage = PostgresStorage::new(&pool).with_config(config());
    let mut jobs =
        stream::iter(0..messages).map(|number| TaskBuilder::new(payload(number)).build());
    storage.push_all(&mut jobs).await.unwrap();
    sqlx::raw_sql("VACUUM ANALYZE")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
}

async fn publish(_: Job) -> Result<(), BoxDynError> {
    super::one_came();
    Ok(())
}

/// Its future cannot be sent between threads, so it has one until the race is over.
async fn run(pool: PgPool, arrived: Arrived) {
    super::count_for(arrived);
    let (_until, over) = oneshot::channel::<()>();
    let runtime = Handle::current();
    std::thread::spawn(move || {
        runtime.block_on(async {
            let storage = PostgresStorage::new(&pool)
                .with_config(config())
                .with_pubsub()
                .poll_with_interval(Duration::from_millis(50));
            let worker = WorkerBuilder::new("race")
                .backend(storage)
                .parallelize(tokio::spawn)
                .build(publish);
            tokio::select! {
                _ = worker.run() => {}
                _ = over => {}
            }
        });
    });
    pending::<()>().await;
}
