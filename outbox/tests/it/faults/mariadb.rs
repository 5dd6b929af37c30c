//! MariaDB dies and comes back.

use sqlx::{AssertSqlSafe, MySqlPool, mysql::MySqlPoolOptions};
use tokio::time::sleep;

use super::{
    kills,
    programs::Program,
    servers::Server,
    storm::{Lease, storm},
};
use crate::{
    link::{Link, authority, through},
    support::mariadb,
};

async fn pool(server: &Server) -> MySqlPool {
    let admin = MySqlPool::connect(&server.url()).await.unwrap();
    let create = AssertSqlSafe("CREATE DATABASE outbox".to_owned());
    sqlx::raw_sql(create).execute(&admin).await.unwrap();
    let url = server.url().replace("/mysql", "/outbox");
    let options = MySqlPoolOptions::new().max_connections(12);
    options.connect(&url).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the programs of a server; tests/run sees to them"]
async fn a_server_that_is_killed_and_soon_back_repeats_nothing_and_charges_nobody() {
    let Some(mut server) = Server::start(Program::MariaDb).await else {
        return;
    };
    let pool = pool(&server).await;
    storm(&pool, Lease::Outlasts, kills(3), async |_| {
        server.stop("-KILL").await;
        server.start_again().await;
    })
    .await;
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the programs of a server; tests/run sees to them"]
async fn a_server_that_is_away_past_the_leases_loses_nothing() {
    let Some(mut server) = Server::start(Program::MariaDb).await else {
        return;
    };
    let pool = pool(&server).await;
    storm(&pool, Lease::RunsOut, kills(2), async |_| {
        server.stop("-KILL").await;
        sleep(Lease::RunsOut.lasts()).await;
        server.start_again().await;
    })
    .await;
    pool.close().await;
}

/// As on Postgres: what it is told comes to pass, and nobody hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn answers_that_are_lost_repeat_nothing_and_charge_nobody() {
    let database = mariadb().await;
    let link = Link::to(authority(&database.url())).await;
    let options = MySqlPoolOptions::new().max_connections(12);
    let pool = options.connect(&through(&database.url(), &link)).await;
    let pool = pool.unwrap();
    storm(&pool, Lease::Outlasts, kills(6), async |_| {
        link.swallow_answers().await;
    })
    .await;
    pool.close().await;
    database.gone().await;
}
