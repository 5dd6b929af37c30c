//! One key, one payment: whatever is lost, repeated or killed between a client and the database.
//!
//! Run it with `cargo run --example idempotent_payment`. The database is a file in a temporary folder; the process that is
//! killed is this program, started again. It ends by itself in about a second.
//!
//! ```text
//! client                                            server
//! AttachIdempotencyKeyLayer   one key per call      IdempotencyLayer   claims the key, begins
//!   RetryLayer                any number of           handler          writes in that transaction
//!     HTTP                    attempts with it  ──▶ IdempotencyLayer   records the answer, commits, answers
//! ```
//!
//! It prints, with another time:
//!
//! ```text
//! # one call, two attempts, one key: the first answer is lost
//! attempt 1: 201 payment 1 (lost)
//! attempt 2: 201 payment 1 (idempotent-replayed: true)
//! payments: 1
//!
//! # a storm: 64 requests with one key at once
//! 1 ran, 63 got its answer again
//! payments: 2
//!
//! # a process is killed in the middle of a payment, and a duplicate waits elsewhere
//! process A has written its payment, but not committed
//! process A is killed
//! process B: 201 payment 3
//! process B had the key after 21 ms; there is no lease to run out
//! payments: 3
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use axum::{
    BoxError, Router,
    body::{Body, Bytes},
    extract::State,
    http::{Request, Response, StatusCode},
    routing::post,
};
use http_body_util::BodyExt;
use mainstay::{
    errors::{Error, ProblemLayer, Registry},
    idempotency::{self, IdemTx, IdempotencyError, IdempotencyLayer, Scope, Wait},
    retry::AttachIdempotencyKeyLayer,
};
use sqlx::{
    Sqlite, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::{Instant, sleep},
};
use tower::{Layer, ServiceExt, service_fn};

/// Whether this process stops in the middle of its payments, to be killed there.
#[derive(Clone, Copy)]
struct Stops(bool);

const WRITTEN: &str = "written";

async fn pay(
    State(Stops(stops)): State<Stops>,
    mut tx: IdemTx<Sqlite>,
    amount: String,
) -> Result<(StatusCode, String), Error> {
    let id: i64 = sqlx::query_scalar("INSERT INTO payment (amount) VALUES (?1) RETURNING id")
        .bind(&amount)
        .fetch_one(&mut **tx)
        .await?;
    if stops {
        println!("{WRITTEN}");
        std::future::pending::<()>().await;
    }
    Ok((StatusCode::CREATED, format!("payment {id}")))
}

async fn open(database: &Path) -> Result<SqlitePool, BoxError> {
    let options = SqliteConnectOptions::new()
        .filename(database)
        .journal_mode(SqliteJournalMode::Wal)
        .create_if_missing(true);
    Ok(SqlitePool::connect_with(options).await?)
}

fn service(pool: SqlitePool, stops: Stops) -> Router {
    let idempotency = IdempotencyLayer::local(pool)
        // Whose key is it? A service takes the tenant from whatever authenticated the request.
        .scope(|request| Ok(Scope::new("tenant-1", "", request.uri.path())))
        // A duplicate waits for the first request, and gets its answer instead of a 409.
        .wait(Wait::Up(Duration::from_secs(5)));
    Router::new()
        .route("/payments", post(pay).layer(idempotency))
        .with_state(stops)
        .layer(ProblemLayer::new(
            Registry::new().with::<IdempotencyError>(),
        ))
}

fn payment(key: &str, amount: &'static str) -> Result<Request<Body>, BoxError> {
    let request = Request::post("/payments")
        .header("content-type", "text/plain")
        .header("idempotency-key", key);
    Ok(request.body(Body::from(amount))?)
}

fn was_replayed<B>(answer: &Response<B>) -> bool {
    answer.headers().contains_key("idempotent-replayed")
}

async fn shown(answer: Response<Body>) -> Result<String, BoxError> {
    let (status, replayed) = (answer.status().as_u16(), was_replayed(&answer));
    let body: Bytes = answer.into_body().collect().await?.to_bytes();
    let mark = if replayed {
        " (idempotent-replayed: true)"
    } else {
        ""
    };
    Ok(format!("{status} {}{mark}", String::from_utf8_lossy(&body)))
}

/// The client half: the key is made above whatever tries again, here a client that tries twice and loses the first answer.
async fn call_over_a_bad_network(app: Router) -> Result<(), BoxError> {
    let attempts = AtomicU32::new(0);
    let twice = service_fn(|request: Request<&'static str>| {
        let (app, attempts) = (app.clone(), &attempts);
        async move {
            loop {
                let attempt = attempts.fetch_add(1, Ordering::Relaxed) + 1;
                let answer = app.clone().oneshot(request.clone().map(Body::from)).await?;
                let shown = shown(answer).await?;
                if attempt == 2 {
                    println!("attempt 2: {shown}");
                    return Ok::<_, BoxError>(());
                }
                println!("attempt {attempt}: {shown} (lost)");
            }
        }
    });
    let client = AttachIdempotencyKeyLayer::new().layer(twice);
    client
        .oneshot(Request::post("/payments").body("10 EUR")?)
        .await
}

async fn storm(app: &Router) -> Result<(), BoxError> {
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..64 {
        asking.spawn(app.clone().oneshot(payment("storm", "20 EUR")?));
    }
    let (mut ran, mut replayed) = (0, 0);
    while let Some(answer) = asking.join_next().await {
        match was_replayed(&answer??) {
            false => ran += 1,
            true => replayed += 1,
        }
    }
    println!("{ran} ran, {replayed} got its answer again");
    Ok(())
}

async fn killed(app: &Router, database: &Path) -> Result<(), BoxError> {
    let mut a = Command::new(std::env::current_exe()?)
        .arg(database)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let says = a.stdout.take().ok_or("no output")?;
    let mut lines = BufReader::new(says).lines();
    while lines.next_line().await?.ok_or("it ended")? != WRITTEN {}
    println!("process A has written its payment, but not committed");
    let duplicate = app.clone().oneshot(payment("killed", "30 EUR")?);
    let b = tokio::spawn(async move { (duplicate.await, Instant::now()) });
    sleep(Duration::from_millis(50)).await; // B is waiting by now
    let killed = Instant::now();
    a.kill().await?; // SIGKILL
    println!("process A is killed");
    let (answer, at) = b.await?;
    println!("process B: {}", shown(answer?).await?);
    let millis = (at - killed).as_millis();
    println!("process B had the key after {millis} ms; there is no lease to run out");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Process A: asks itself for the payment, and never gets to its end.
    if let Some(database) = std::env::args().nth(1) {
        let pool = open(Path::new(&database)).await?;
        let app = service(pool, Stops(true));
        app.oneshot(payment("killed", "30 EUR")?).await?;
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let database = folder.path().join("payments.db");
    let pool = open(&database).await?;
    sqlx::query("CREATE TABLE payment (id INTEGER PRIMARY KEY, amount TEXT NOT NULL)")
        .execute(&pool)
        .await?;
    idempotency::migrate(&pool).await?;
    let app = service(pool.clone(), Stops(false));
    // How often the effect has happened.
    let payments = async || {
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM payment")
            .fetch_one(&pool)
            .await
    };

    println!("# one call, two attempts, one key: the first answer is lost");
    call_over_a_bad_network(app.clone()).await?;
    println!("payments: {}\n", payments().await?);

    println!("# a storm: 64 requests with one key at once");
    storm(&app).await?;
    println!("payments: {}\n", payments().await?);

    println!("# a process is killed in the middle of a payment, and a duplicate waits elsewhere");
    killed(&app, &database).await?;
    println!("payments: {}", payments().await?);
    pool.close().await;
    Ok(())
}
