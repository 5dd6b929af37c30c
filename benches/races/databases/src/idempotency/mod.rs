//! Idempotency on Postgres: a request with a key whose effect is one row, and the same request again.
//!
//! Every contestant is an axum handler that is called in the process, with its answer recorded under the key, so that what
//! differs is what it says to the database. The sequences of other systems are replayed statement by statement.

mod apps;
mod sequences;

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use http::{HeaderValue, Request, StatusCode};
use results::Measure;
use sqlx::PgPool;
use tower::ServiceExt;

use crate::servers::Postgres;
use crate::turns::{Client, rates};

/// As long as an answer commonly is.
pub const ANSWER: [u8; 300] = [b'x'; 300];
/// Keys that have been used, to be asked again.
const DONE: u64 = 1_024;

/// A contestant's service.
#[derive(Clone)]
pub struct App {
    pub name: &'static str,
    pub router: Router,
    pub cookie: Option<HeaderValue>,
}

impl App {
    pub fn new(name: &'static str, router: Router) -> Self {
        Self {
            name,
            router,
            cookie: None,
        }
    }

    /// The status and the length of the answer.
    async fn ask(&self, key: String) -> (StatusCode, usize) {
        let mut request = Request::post("/pay").header("idempotency-key", key);
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie.clone());
        }
        let request = request.body(Body::from(&ANSWER[..])).unwrap();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        (status, body.len())
    }

    fn keys(&self) -> String {
        self.name.replace(|c: char| !c.is_ascii_alphanumeric(), "")
    }
}

pub async fn race(quick: bool) {
    let Some(database) = Postgres::create().await else {
        return;
    };
    let pool = database.pool(40).await;
    mainstay_idempotency::migrate(&pool).await.unwrap();
    sqlx::raw_sql("CREATE TABLE payment (key TEXT)")
        .execute(&pool)
        .await
        .unwrap();
    sequences::create(&pool).await;
    let mut apps = vec![
        apps::bare(&pool),
        apps::mainstay(&pool),
        apps::mainstay_optimistic(&pool),
        sequences::two_commits(&pool),
        sequences::three_autocommits(&pool),
        sequences::recovery_points(&pool),
        sequences::dispatched(&pool),
        apps::axum_idempotent(&pool).await,
    ];
    for app in &apps {
        check(&pool, app).await;
    }
    let (length, rounds) = if quick { (400, 3) } else { (1_000, 5) };
    let length = Duration::from_millis(length);
    let first: Vec<Client> = apps
        .iter()
        .map(|app| {
            let app = app.clone();
            Client::new(app.name, move |number| {
                let app = app.clone();
                async move {
                    let key = format!("{}-{number}", app.keys());
                    assert_eq!(app.ask(key).await, (StatusCode::CREATED, ANSWER.len()));
                }
            })
        })
        .collect();
    rates(
        "first run",
        "requests/s",
        &first,
        &[1, 8, 32],
        length,
        rounds,
    )
    .await;

    hot(&pool, &apps).await;

    // Without a record there is nothing to repeat.
    apps.retain(|app| app.name == "mainstay" || app.name.starts_with("axum-idempotent"));
    let mut again = vec![select(&pool)];
    for app in apps {
        for number in 0..DONE {
            app.ask(format!("{}-done-{number}", app.keys())).await;
        }
        let name = app.name;
        again.push(Client::new(name, move |number| {
            let app = app.clone();
            async move {
                let key = format!("{}-done-{}", app.keys(), number % DONE);
                assert_eq!(app.ask(key).await, (StatusCode::CREATED, ANSWER.len()));
            }
        }));
    }
    rates("replay", "requests/s", &again, &[1, 8], length, rounds).await;
    pool.close().await;
    database.drop().await;
}

/// The first request has its effect, the second has none and the same answer.
async fn check(pool: &PgPool, app: &App) {
    let key = format!("{}-check", app.keys());
    for _ in 0..2 {
        let answer = app.ask(key.clone()).await;
        assert_eq!(answer, (StatusCode::CREATED, ANSWER.len()), "{}", app.name);
    }
    let expected = if app.name == "bare transaction" { 2 } else { 1 };
    assert_eq!(effects(pool, &key).await, expected, "{}", app.name);
}

async fn effects(pool: &PgPool, key: &str) -> i64 {
    let query = sqlx::query_scalar("SELECT count(*) FROM payment WHERE key = $1").bind(key);
    query.fetch_one(pool).await.unwrap()
}

/// What a replay is at least: one look at a primary key.
fn select(pool: &PgPool) -> Client {
    let pool = pool.clone();
    Client::new("by hand: SELECT by primary key", move |number| {
        let pool = pool.clone();
        async move {
            let key = format!("twocommits-{}", number % DONE);
            let query =
                sqlx::query("SELECT status, body FROM two_commits WHERE scope = $1 AND key = $2");
            let row = query.bind("pay").bind(key).fetch_optional(&pool).await;
            row.unwrap();
        }
    })
}

/// Thirty-two requests with one key at once: how often its effect is there afterwards, and how many were refused.
async fn hot(pool: &PgPool, apps: &[App]) {
    const CLIENTS: usize = 32;
    const KEYS: usize = 20;
    println!("hot key: {CLIENTS} requests at once with one key, of {KEYS} keys");
    for app in apps {
        if app.name == "bare transaction" {
            continue;
        }
        let (mut most, mut refused) = (0, 0);
        for number in 0..KEYS {
            let key = format!("{}-hot-{number}", app.keys());
            let asked: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    let (app, key) = (app.clone(), key.clone());
                    tokio::spawn(async move { app.ask(key).await.0 })
                })
                .collect();
            for answer in asked {
                refused += usize::from(answer.await.unwrap() != StatusCode::CREATED);
            }
            most = most.max(effects(pool, &key).await);
        }
        println!(
            "  {:<58} {most:>3} effects at most, {refused:>4} refused",
            app.name
        );
        results::keep(Measure::new(
            "hot key",
            app.name,
            most as f64,
            "effects at most",
        ));
        results::keep(Measure::new(
            "hot key, refused",
            app.name,
            refused as f64,
            "refused",
        ));
    }
    println!();
}
