//! Postgres dies, in every way it can, and comes back.

use std::time::Duration;

use sqlx::{Connection, PgConnection, PgPool, postgres::PgPoolOptions};
use tokio::time::sleep;

use super::{
    kills,
    programs::Program,
    servers::Server,
    storm::{Lease, storm},
};
use crate::{
    link::{Link, authority, through},
    support::postgres,
};

async fn pool(server: &Server) -> PgPool {
    let options = PgPoolOptions::new().max_connections(10);
    options.connect(&server.url()).await.unwrap()
}

/// D1. SIGQUIT is the immediate stop, SIGKILL leaves the backends to themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the programs of Postgres; tests/run sees to them"]
async fn a_server_that_dies_and_is_soon_back_repeats_nothing_and_charges_nobody() {
    let Some(mut server) = Server::start(Program::Postgres).await else {
        return;
    };
    let pool = pool(&server).await;
    storm(&pool, Lease::Outlasts, kills(6), async |round| {
        server.stop(["-QUIT", "-KILL"][round % 2]).await;
        server.start_again().await;
    })
    .await;
    pool.close().await;
}

/// The same, for longer than the leases last: the lanes are anybody's when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the programs of Postgres; tests/run sees to them"]
async fn a_server_that_is_away_past_the_leases_loses_nothing() {
    let Some(mut server) = Server::start(Program::Postgres).await else {
        return;
    };
    let pool = pool(&server).await;
    storm(&pool, Lease::RunsOut, kills(5), async |round| {
        server.stop(["-KILL", "-QUIT"][round % 2]).await;
        sleep(Lease::RunsOut.lasts()).await;
        server.start_again().await;
    })
    .await;
    pool.close().await;
}

/// D1, and one backend that is killed, upon which the server ends all others and recovers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the programs of Postgres; tests/run sees to them"]
async fn backends_that_are_terminated_or_killed_repeat_nothing_and_charge_nobody() {
    let Some(server) = Server::start(Program::Postgres).await else {
        return;
    };
    let pool = pool(&server).await;
    storm(&pool, Lease::Outlasts, kills(15), async |round| {
        let mut operator = operator(&server).await;
        if round % 5 < 4 {
            let terminated: i64 = sqlx::query_scalar(
                "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
                 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
            )
            .fetch_one(&mut operator)
            .await
            .unwrap();
            assert!(terminated > 0);
        } else {
            let busy: i32 = sqlx::query_scalar(
                "SELECT pid FROM pg_stat_activity
                 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY state_change DESC LIMIT 1",
            )
            .fetch_one(&mut operator)
            .await
            .unwrap();
            let kill = std::process::Command::new("kill").args(["-KILL", &busy.to_string()]).status();
            assert!(kill.unwrap().success());
        }
    })
    .await;
    pool.close().await;
}

/// B2 of the database: what it is told comes to pass, COMMITs and the relays' own statements alike, and nobody hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn answers_that_are_lost_repeat_nothing_and_charge_nobody() {
    let database = postgres().await;
    let link = Link::to(authority(&database.url())).await;
    let options = PgPoolOptions::new().max_connections(10);
    let pool = options.connect(&through(&database.url(), &link)).await;
    let pool = pool.unwrap();
    storm(&pool, Lease::Outlasts, kills(10), async |_| {
        link.swallow_answers().await;
    })
    .await;
    pool.close().await;
    database.gone().await;
}

/// The server may be recovering from the last fault.
async fn operator(server: &Server) -> PgConnection {
    loop {
        match PgConnection::connect(&server.url()).await {
            Ok(operator) => return operator,
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}
