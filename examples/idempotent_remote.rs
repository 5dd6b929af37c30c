//! Asking again is safe where the effect is elsewhere: the idempotency layer over leases, a handler in steps, and a bank
//! that knows the keys derived for it.
//!
//! Run it with `cargo run --example idempotent_remote`. The databases are files in a temporary folder, one of them the bank;
//! the process that is killed is this program, started again. It ends by itself in two seconds: a lease has to run out.
//!
//! ```text
//! IdempotencyLayer   claims the key, and commits that
//!   handler          call "charge": says that it calls, calls the bank under a derived key, keeps its answer
//!                    step "book":   token, row and note in one transaction
//! IdempotencyLayer   records the answer, by the token
//! ```
//!
//! It prints:
//!
//! ```text
//! # a payment, asked for twice
//! key a: 201 payment 1 with charge 1
//! key a: 201 payment 1 with charge 1 (idempotent-replayed: true)
//! the bank was asked 1 times and has charged 1; payments: 1
//!
//! # the books are closed: the charge stays, and the key goes on behind it
//! key b: 503 books_closed
//! key b: 201 payment 2 with charge 2
//! the bank was asked 2 times and has charged 2; payments: 2
//!
//! # a process is killed while the bank's answer is on its way
//! process A has been charged, and does not know it
//! process A is killed
//! key c: 409 idempotency_key_in_flight
//! key c: 201 payment 3 with charge 3
//! the bank was asked 4 times and has charged 3; payments: 3
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    BoxError, Router,
    body::Body,
    extract::State,
    http::{Request, StatusCode},
    routing::post,
};
use http_body_util::BodyExt;
use mainstay::{
    errors::{Category, Error, Problem, ProblemLayer, Registry},
    idempotency::{
        self, IdempotencyError, IdempotencyLayer, LentLease, Scope,
        leased::{DerivedKey, Leases, Remote},
    },
};
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::sleep,
};
use tower::ServiceExt;

/// A remote system that has seen a key before says what it said then.
#[derive(Clone)]
struct Bank {
    pool: SqlitePool,
    /// Whether its answers get lost, in the process that is killed.
    is_silent: bool,
}

const CHARGED: &str = "charged";

impl Bank {
    async fn charge(self, key: DerivedKey) -> Result<i64, Error> {
        sqlx::query("INSERT INTO asked (key) VALUES (?1)")
            .bind(key.to_string())
            .execute(&self.pool)
            .await?;
        sqlx::query("INSERT INTO charge (key) VALUES (?1) ON CONFLICT DO NOTHING")
            .bind(key.to_string())
            .execute(&self.pool)
            .await?;
        if self.is_silent {
            println!("{CHARGED}");
            std::future::pending::<()>().await;
        }
        let id = sqlx::query_scalar("SELECT id FROM charge WHERE key = ?1")
            .bind(key.to_string())
            .fetch_one(&self.pool)
            .await?;
        Ok(id)
    }

    async fn count(&self, table: &'static str) -> Result<i64, BoxError> {
        let sql = match table {
            "asked" => "SELECT count(*) FROM asked",
            _ => "SELECT count(*) FROM charge",
        };
        Ok(sqlx::query_scalar(sql).fetch_one(&self.pool).await?)
    }
}

#[derive(Clone)]
struct Shop {
    bank: Bank,
    /// Closes the books once.
    is_closed: Arc<AtomicBool>,
}

async fn pay(
    State(shop): State<Shop>,
    mut lease: LentLease<SqlitePool>,
) -> Result<(StatusCode, String), Error> {
    // The bank knows the key: after a crash it is asked again, and acts once.
    let bank = shop.bank;
    let charge = lease
        .call("charge", Remote::HonoursKey, |key| bank.charge(key))
        .await?;
    if shop.is_closed.swap(false, Ordering::Relaxed) {
        return Err(Problem::new(Category::Unavailable, "books_closed").into());
    }
    // In the service's own database: once, with the note that it is done.
    let book = lease.step("book", move |mut tx, _| async move {
        let id = sqlx::query_scalar("INSERT INTO payment (charge) VALUES (?1) RETURNING id");
        Ok::<i64, Error>(id.bind(charge).fetch_one(&mut **tx).await?)
    });
    let id = book.await?;
    Ok((
        StatusCode::CREATED,
        format!("payment {id} with charge {charge}"),
    ))
}

async fn open(database: &Path) -> Result<SqlitePool, BoxError> {
    let options = SqliteConnectOptions::new()
        .filename(database)
        .journal_mode(SqliteJournalMode::Wal)
        .create_if_missing(true);
    Ok(SqlitePool::connect_with(options).await?)
}

fn service(pool: SqlitePool, shop: Shop) -> Router {
    // Short, for an example: the default is 30 s.
    let leases = Leases::new(pool).lease_time(Duration::from_secs(1));
    let idempotency = IdempotencyLayer::leased(leases)
        // Whose key is it? A service takes the tenant from whatever authenticated the request.
        .scope(|request| Ok(Scope::new("tenant-1", "", request.uri.path())));
    Router::new()
        .route("/payments", post(pay).layer(idempotency))
        .with_state(shop)
        .layer(ProblemLayer::new(
            Registry::new().with::<IdempotencyError>(),
        ))
}

/// Asks once, and prints the answer in a line.
async fn send(app: &Router, key: &str) -> Result<StatusCode, BoxError> {
    let request = Request::post("/payments").header("idempotency-key", key);
    let answer = app.clone().oneshot(request.body(Body::empty())?).await?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    let said = if head.status.is_success() {
        String::from_utf8_lossy(&body).into_owned()
    } else {
        let problem = Problem::read(head.status.as_u16(), &head.headers, &body);
        problem.code().to_owned()
    };
    let mark = match head.headers.contains_key("idempotent-replayed") {
        true => " (idempotent-replayed: true)",
        false => "",
    };
    println!("key {key}: {} {said}{mark}", head.status.as_u16());
    Ok(head.status)
}

async fn killed(app: &Router, folder: &Path) -> Result<(), BoxError> {
    let mut a = Command::new(std::env::current_exe()?)
        .arg(folder)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let says = a.stdout.take().ok_or("no output")?;
    let mut lines = BufReader::new(says).lines();
    while lines.next_line().await?.ok_or("it ended")? != CHARGED {}
    println!("process A has been charged, and does not know it");
    a.kill().await?; // SIGKILL
    println!("process A is killed");
    send(app, "c").await?;
    sleep(Duration::from_millis(1500)).await; // nobody renews the lease any more
    send(app, "c").await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let process_a = std::env::args().nth(1);
    let temporary = tempfile::tempdir()?;
    let folder = process_a.as_deref().map_or(temporary.path(), Path::new);
    let pool = open(&folder.join("payments.db")).await?;
    let bank = Bank {
        pool: open(&folder.join("bank.db")).await?,
        is_silent: process_a.is_some(),
    };
    let shop = Shop {
        bank: bank.clone(),
        is_closed: Arc::default(),
    };
    let app = service(pool.clone(), shop.clone());
    // Process A: asks itself for the payment, and never gets to its end.
    if process_a.is_some() {
        send(&app, "c").await?;
        return Ok(());
    }
    idempotency::migrate(&pool).await?;
    sqlx::query("CREATE TABLE payment (id INTEGER PRIMARY KEY, charge INTEGER NOT NULL)")
        .execute(&pool)
        .await?;
    for sql in [
        "CREATE TABLE asked (key TEXT NOT NULL)",
        "CREATE TABLE charge (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE)",
    ] {
        sqlx::query(sql).execute(&bank.pool).await?;
    }
    // How often the effects have happened.
    let audit = async || {
        let (asked, charged) = (bank.count("asked").await?, bank.count("charge").await?);
        let payments: i64 = sqlx::query_scalar("SELECT count(*) FROM payment")
            .fetch_one(&pool)
            .await?;
        println!(
            "the bank was asked {asked} times and has charged {charged}; payments: {payments}"
        );
        Ok::<_, BoxError>(())
    };

    println!("# a payment, asked for twice");
    send(&app, "a").await?;
    send(&app, "a").await?;
    audit().await?;

    println!("\n# the books are closed: the charge stays, and the key goes on behind it");
    shop.is_closed.store(true, Ordering::Relaxed);
    send(&app, "b").await?;
    send(&app, "b").await?;
    audit().await?;

    println!("\n# a process is killed while the bank's answer is on its way");
    killed(&app, folder).await?;
    audit().await?;
    pool.close().await;
    bank.pool.close().await;
    Ok(())
}
