#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

mod link;
mod support;

mod cli;
mod cloudevents;
#[cfg(feature = "nats")]
mod consume_nats;
#[cfg(feature = "rabbitmq")]
mod consume_rabbitmq;
mod delivery;
mod enqueue;
mod failure;
mod faults;
#[cfg(feature = "mysql")]
mod mariadb;
#[cfg(feature = "metrics")]
mod metrics;
mod migrate;
mod model;
#[cfg(feature = "nats")]
mod nats;
mod operators;
mod order;
mod outage;
mod policy;
mod processes;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "redis")]
mod redis;
mod redrive;
mod schema;
mod seal;
mod sinks;
mod takeover;
#[cfg(any(feature = "nats", feature = "rabbitmq-tls"))]
mod tls;
mod trace;
mod verify;
mod wake;
mod webhook;

#[cfg(feature = "mysql")]
use support::mariadb;
use support::{postgres, sqlite};

#[tokio::test]
async fn sqlite_conforms() {
    let databases = std::sync::Mutex::new(Vec::new());
    mainstay_outbox::conformance::all::<sqlx::Sqlite, _, _>(async || {
        let database = sqlite().await;
        let pool = database.pool.clone();
        databases.lock().unwrap().push(database);
        pool
    })
    .await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn postgres_conforms() {
    let databases = std::sync::Mutex::new(Vec::new());
    mainstay_outbox::conformance::all::<sqlx::Postgres, _, _>(async || {
        let database = postgres().await;
        let pool = database.pool.clone();
        databases.lock().unwrap().push(database);
        pool
    })
    .await;
    for database in databases.into_inner().unwrap() {
        database.gone().await;
    }
}

#[cfg(feature = "mysql")]
#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn mariadb_conforms() {
    let databases = std::sync::Mutex::new(Vec::new());
    mainstay_outbox::conformance::all::<sqlx::MySql, _, _>(async || {
        let database = mariadb().await;
        let pool = database.pool.clone();
        databases.lock().unwrap().push(database);
        pool
    })
    .await;
    for database in databases.into_inner().unwrap() {
        database.gone().await;
    }
}
