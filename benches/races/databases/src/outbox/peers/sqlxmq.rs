//! sqlxmq, as its documentation has it: between 10 and 20 jobs at once.

use std::future::pending;

use sqlxmq::{CurrentJob, JobRegistry, job};

use super::super::{Arrived, Drain, payload};

/// It adds and does them one by one.
pub const README: Drain = Drain {
    name: "sqlxmq 0.6, 10 to 20 at once",
    messages: 4_000,
    fill: |database, messages| {
        let url = database.url.clone();
        Box::pin(async move { fill(super::pool(&url, 2).await, messages).await })
    },
    run: |database, arrived| {
        let url = database.url.clone();
        Box::pin(async move { run(super::pool(&url, 10).await, arrived).await })
    },
};

#[job]
async fn publish(mut job: CurrentJob) -> sqlx08::Result<()> {
    super::one_came();
    job.complete().await
}

pub async fn migrate(pool: &sqlx08::PgPool) {
    super::migrate(pool, "sqlxmq").await;
}

async fn fill(pool: sqlx08::PgPool, messages: u64) {
    migrate(&pool).await;
    let mut tx = pool.begin().await.unwrap();
    for number in 0..messages {
        enqueue(&mut tx, number).await;
    }
    tx.commit().await.unwrap();
    sqlx08::raw_sql("VACUUM ANALYZE")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
}

async fn run(pool: sqlx08::PgPool, arrived: Arrived) {
    super::count_for(arrived);
    let registry = JobRegistry::new(&[publish]);
    let _runner = registry
        .runner(&pool)
        .set_concurrency(10, 20)
        .run()
        .await
        .unwrap();
    pending::<()>().await;
}

/// One job in the caller's transaction.
pub async fn enqueue(conn: &mut sqlx08::PgConnection, number: u64) {
    let mut job = publish.builder();
    job.set_json(&payload(number))
        .unwrap()
        .spawn(conn)
        .await
        .unwrap();
}
