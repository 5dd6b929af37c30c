//! A business transaction with an event in it, and many events at once.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};

use super::{ours, payload, peers, raw};
use crate::servers::Postgres;
use crate::turns::{Client, rates};

const BUSINESS: &str = "INSERT INTO payment (amount) VALUES ($1)";

async fn business(conn: &mut PgConnection) {
    sqlx::query(BUSINESS)
        .bind(7_i64)
        .execute(conn)
        .await
        .unwrap();
}

async fn business08(conn: &mut sqlx08::PgConnection) {
    sqlx08::query(BUSINESS)
        .bind(7_i64)
        .execute(conn)
        .await
        .unwrap();
}

pub async fn race(quick: bool) {
    let Some(database) = Postgres::create().await else {
        return;
    };
    let pool = database.pool(34).await;
    sqlx::raw_sql("CREATE TABLE payment (amount BIGINT)")
        .execute(&pool)
        .await
        .unwrap();
    sqlx::raw_sql(raw::TABLE).execute(&pool).await.unwrap();
    mainstay_outbox::migrate(&pool).await.unwrap();
    let theirs = peers::pool(&database.url, 34).await;
    peers::outbox_postgres::migrate(&theirs).await;
    // Both keep their migrations in one table of the same name.
    sqlx::raw_sql("DROP TABLE _sqlx_migrations")
        .execute(&pool)
        .await
        .unwrap();
    peers::sqlxmq::migrate(&theirs).await;

    let clients = [
        Client::new("by hand: INSERT", {
            let pool = pool.clone();
            move |number| {
                let pool = pool.clone();
                async move {
                    let mut tx = pool.begin().await.unwrap();
                    business(&mut tx).await;
                    by_hand(&mut tx, number).await;
                    tx.commit().await.unwrap();
                }
            }
        }),
        Client::new("bare transaction, without an event", {
            let pool = pool.clone();
            move |_| {
                let pool = pool.clone();
                async move {
                    let mut tx = pool.begin().await.unwrap();
                    business(&mut tx).await;
                    tx.commit().await.unwrap();
                }
            }
        }),
        Client::new("mainstay", {
            let (pool, outbox) = (pool.clone(), ours::outbox());
            move |number| {
                let (pool, outbox) = (pool.clone(), outbox.clone());
                async move {
                    let mut tx = pool.begin().await.unwrap();
                    business(&mut tx).await;
                    outbox.enqueue(&mut tx, ours::event(number)).await.unwrap();
                    tx.commit().await.unwrap();
                    outbox.waker().notify_after_commit();
                }
            }
        }),
        Client::new("outbox-postgres 0.3, trigger with NOTIFY", {
            let pool = theirs.clone();
            move |number| {
                let pool = pool.clone();
                async move {
                    let mut tx = pool.begin().await.unwrap();
                    business08(&mut tx).await;
                    peers::outbox_postgres::enqueue(&mut tx, number).await;
                    tx.commit().await.unwrap();
                }
            }
        }),
        Client::new("sqlxmq 0.6, a function with NOTIFY", {
            let pool = theirs.clone();
            move |number| {
                let pool = pool.clone();
                async move {
                    let mut tx = pool.begin().await.unwrap();
                    business08(&mut tx).await;
                    peers::sqlxmq::enqueue(&mut tx, number).await;
                    tx.commit().await.unwrap();
                }
            }
        }),
    ];
    let (length, rounds) = if quick { (400, 3) } else { (1_000, 5) };
    let length = Duration::from_millis(length);
    rates(
        "enqueue",
        "transactions/s",
        &clients,
        &[1, 8, 32],
        length,
        rounds,
    )
    .await;
    at_once(&pool, length, rounds).await;
    theirs.close().await;
    pool.close().await;
    database.drop().await;
}

async fn by_hand(conn: &mut PgConnection, number: u64) {
    sqlx::query("INSERT INTO outbox (topic, key, payload) VALUES ($1, $2, $3)")
        .bind("orders")
        .bind(format!("order-{}", number % 1_000))
        .bind(serde_json::to_vec(&payload(number)).unwrap())
        .execute(conn)
        .await
        .unwrap();
}

const MANY: u64 = 100;

/// A hundred events in a transaction of their own; what is kept is events, not transactions.
async fn at_once(pool: &PgPool, length: Duration, rounds: usize) {
    let graphile = peers::graphile::utils(pool.clone()).await;
    let clients = [
        Client::new("by hand: INSERT from UNNEST", {
            let pool = pool.clone();
            move |number| {
                let pool = pool.clone();
                async move {
                    let numbers = number * MANY..(number + 1) * MANY;
                    let keys: Vec<String> = numbers
                        .clone()
                        .map(|n| format!("order-{}", n % 1_000))
                        .collect();
                    let payloads: Vec<Vec<u8>> = numbers
                        .map(|n| serde_json::to_vec(&payload(n)).unwrap())
                        .collect();
                    let mut tx = pool.begin().await.unwrap();
                    sqlx::query("INSERT INTO outbox (topic, key, payload) SELECT 'orders', * FROM UNNEST($1::text[], $2::bytea[])")
                        .bind(keys)
                        .bind(payloads)
                        .execute(&mut *tx)
                        .await
                        .unwrap();
                    tx.commit().await.unwrap();
                }
            }
        }),
        Client::new("mainstay", {
            let (pool, outbox) = (pool.clone(), ours::outbox());
            move |number| {
                let (pool, outbox) = (pool.clone(), outbox.clone());
                async move {
                    let numbers = number * MANY..(number + 1) * MANY;
                    let mut tx = pool.begin().await.unwrap();
                    outbox
                        .enqueue_many(&mut tx, numbers.map(ours::event))
                        .await
                        .unwrap();
                    tx.commit().await.unwrap();
                }
            }
        }),
        Client::new("graphile_worker 0.14, add_raw_jobs", {
            move |number| {
                let graphile = graphile.clone();
                async move {
                    let numbers: Vec<u64> = (number * MANY..(number + 1) * MANY).collect();
                    peers::graphile::add(&graphile, &numbers).await;
                }
            }
        }),
    ];
    rates(
        "enqueue 100 at once",
        "calls/s",
        &clients,
        &[1],
        length,
        rounds,
    )
    .await;
}
