//! A service in a process of its own, killed with SIGKILL over and over while clients ask.
//!
//! The service is this test program, started again: [`the_service_that_others_kill`] serves when its environment says so and
//! is an empty test otherwise. `MAINSTAY_TEST_KILLS=10000` kills more often than the 100 or 200 times of an ordinary run.

mod kills;
mod service;
mod takeover;

use service::{SERVICE, serve};
use sqlx::{MySql, Postgres, Sqlite};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_that_others_kill() {
    let Ok(database) = std::env::var(SERVICE) else {
        return;
    };
    match database.as_str() {
        "SQLite" => serve::<Sqlite>().await,
        "PostgreSQL" => serve::<Postgres>().await,
        "MySQL" => serve::<MySql>().await,
        other => panic!("no service over {other}"),
    }
}
