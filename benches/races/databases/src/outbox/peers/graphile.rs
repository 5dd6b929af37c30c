//! graphile_worker: jobs fetched in batches into a local queue, completed in batches.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, RawJobSpec, TaskHandler, WorkerContext,
    WorkerOptions,
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

use super::super::{Arrived, Drain, payload};

pub const BATCHED: Drain = Drain {
    name: "graphile_worker 0.14, local queue 500, completed in batches",
    messages: 20_000,
    fill: |database, messages| {
        let options = database.options.clone();
        Box::pin(async move { fill(PgPool::connect_with(options).await.unwrap(), messages).await })
    },
    run: |database, arrived| {
        let options = database.options.clone();
        Box::pin(async move { run(PgPool::connect_with(options).await.unwrap(), arrived).await })
    },
};

#[derive(Deserialize, Serialize)]
struct Publish {
    #[expect(dead_code, reason = "read, as a publisher would")]
    #[serde(skip_serializing)]
    n: u64,
}

impl TaskHandler for Publish {
    const IDENTIFIER: &'static str = "publish";

    async fn run(self, _: WorkerContext) -> impl IntoTaskHandlerResult {
        super::one_came();
        Ok::<(), String>(())
    }
}

fn options(pool: PgPool) -> WorkerOptions {
    WorkerOptions::default()
        .pg_pool(pool)
        .schema("graphile_worker")
        .concurrency(16)
        .local_queue(LocalQueueConfig::default().with_size(500))
        .complete_job_batch_delay(Duration::from_millis(5))
        .define_job::<Publish>()
}

async fn fill(pool: PgPool, messages: u64) {
    let worker = options(pool.clone()).init().await.unwrap();
    let jobs: Vec<u64> = (0..messages).collect();
    for numbers in jobs.chunks(1_000) {
        add(&worker.create_utils(), numbers).await;
    }
    sqlx::raw_sql("VACUUM ANALYZE")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
}

/// In one call.
pub async fn add(utils: &graphile_worker::WorkerUtils, numbers: &[u64]) {
    let jobs: Vec<RawJobSpec> = numbers
        .iter()
        .map(|number| RawJobSpec {
            identifier: Publish::IDENTIFIER.to_owned(),
            payload: payload(*number),
            spec: JobSpec::default(),
        })
        .collect();
    utils.add_raw_jobs(&jobs).await.unwrap();
}

/// Adds jobs to a database that has its tables now.
pub async fn utils(pool: PgPool) -> graphile_worker::WorkerUtils {
    options(pool).init().await.unwrap().create_utils()
}

async fn run(pool: PgPool, arrived: Arrived) {
    super::count_for(arrived);
    let worker = Arc::new(options(pool).init().await.unwrap());
    let _ = worker.run().await;
    pending::<()>().await;
}
