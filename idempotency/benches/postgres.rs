//! What a keyed request costs on Postgres, beside the same statements by hand and beside its own transaction alone:
//! requests per second of a few clients, contestants in turn, the best and the median of five rounds; then the layer
//! again while a reaper deletes a million old records.
//!
//! `MAINSTAY_TEST_POSTGRES_URL=... cargo bench -p mainstay-idempotency --features axum,postgres --bench postgres`
//!
//! With a contestant and a number of requests as arguments it makes only those, one by one, for an instruction counter.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a program that measures"
)]

use std::fmt::Write;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use mainstay_idempotency::{
    Fingerprint, IdemTx, IdempotencyLayer, Key, Reaper, Scope, store::Claim,
};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Postgres};
use tower::ServiceExt;
use uuid::Uuid;

const CLIENTS: usize = 4;
const ROUND: Duration = Duration::from_secs(2);
const ROUNDS: usize = 5;
/// Keys to replay. A process answers one replay of a key at a time.
const DONE: u64 = 4096;
const BODY: [u8; 300] = [b'x'; 300];

#[derive(Clone, Copy, Debug)]
enum Contestant {
    Bare,
    ByHand,
    Local,
    Select,
    Replay,
    InboxByHand,
    Inbox,
}

const ALL: [Contestant; 7] = [
    Contestant::Bare,
    Contestant::ByHand,
    Contestant::Local,
    Contestant::Select,
    Contestant::Replay,
    Contestant::InboxByHand,
    Contestant::Inbox,
];

#[tokio::main]
async fn main() {
    let Ok(url) = std::env::var("MAINSTAY_TEST_POSTGRES_URL") else {
        return println!("set MAINSTAY_TEST_POSTGRES_URL to measure");
    };
    let admin = PgConnectOptions::from_str(&url).unwrap();
    let name_of_database = format!("mainstay_bench_{}", Uuid::new_v4().simple());
    let mut conn = PgConnection::connect_with(&admin).await.unwrap();
    let create = AssertSqlSafe(format!("create database {name_of_database}"));
    sqlx::raw_sql(create).execute(&mut conn).await.unwrap();
    // Without the pool's pings, which would be as many round trips again for every contestant.
    let pool = PgPoolOptions::new()
        .max_connections(8)
        .test_before_acquire(false)
        .connect_with(admin.database(&name_of_database))
        .await
        .unwrap();
    mainstay_idempotency::migrate(&pool).await.unwrap();
    sqlx::raw_sql("create table payment (amount bigint not null)")
        .execute(&pool)
        .await
        .unwrap();
    let world = World {
        router: router(pool.clone()),
        pool: pool.clone(),
        counter: Arc::default(),
        done: Arc::default(),
    };
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [name, times] = args.as_slice() {
        let found = ALL.iter().find(|known| format!("{known:?}") == *name);
        let (contestant, times) = (*found.unwrap(), times.parse().unwrap());
        world.done(1).await;
        for _ in 0..times {
            world.once(contestant).await;
        }
        return drop_database(pool, &name_of_database, conn).await;
    }
    world.done(DONE).await;
    let mut results = vec![Vec::new(); ALL.len()];
    for _ in 0..ROUNDS {
        for (contestant, results) in ALL.iter().zip(&mut results) {
            results.push(world.run(*contestant).await.0);
        }
    }
    sqlx::raw_sql(
        "insert into mainstay_key (scope, key, fingerprint, status, headers, body, created_at) \
         select decode(repeat('00', 32), 'hex'), convert_to(n::text, 'UTF8'), decode(repeat('01', 33), 'hex'), 201, '\\x01', \
         decode(repeat('78', 300), 'hex'), now() - interval '10 days' from generate_series(1, 1000000) n; analyze mainstay_key",
    )
    .execute(&pool)
    .await
    .unwrap();
    let (_, quiet) = world.run(Contestant::Local).await;
    let reaping = tokio::spawn({
        let reaper = Reaper::new(pool.clone());
        async move { (reaper.run_once().await.unwrap(), Instant::now()) }
    });
    let began = Instant::now();
    let (rate, busy) = world.run(Contestant::Local).await;
    let (reaped, ended) = reaping.await.unwrap();
    println!(
        "with a million old records: p99 {quiet:?}; while reaping: {rate:.0} a second, p99 {busy:?}; {reaped:?} in {:?}",
        ended - began
    );
    println!("{CLIENTS} clients, {ROUNDS} rounds of {ROUND:?}, requests per second");
    for (contestant, results) in ALL.iter().zip(&mut results) {
        results.sort_by(f64::total_cmp);
        let (best, median) = (results.last().unwrap(), results.get(ROUNDS / 2).unwrap());
        println!("{contestant:?}: best {best:.0}, median {median:.0}");
    }
    drop_database(pool, &name_of_database, conn).await;
}

async fn drop_database(pool: PgPool, name: &str, mut conn: PgConnection) {
    pool.close().await;
    let drop = AssertSqlSafe(format!("drop database {name} with (force)"));
    sqlx::raw_sql(drop).execute(&mut conn).await.unwrap();
}

fn router(pool: PgPool) -> Router {
    let layer =
        IdempotencyLayer::<Postgres>::local(pool).scope(|_| Ok(Scope::new("acme", "", "pay")));
    Router::new().route("/pay", post(pay)).layer(layer)
}

async fn pay(mut tx: IdemTx<Postgres>) -> (StatusCode, &'static [u8]) {
    effect(&mut tx).await;
    (StatusCode::CREATED, &BODY)
}

async fn effect(conn: &mut PgConnection) {
    sqlx::query("insert into payment (amount) values ($1)")
        .bind(1_i64)
        .execute(conn)
        .await
        .unwrap();
}

#[derive(Clone)]
struct World {
    pool: PgPool,
    router: Router,
    counter: Arc<AtomicU64>,
    done: Arc<AtomicU64>,
}

impl World {
    /// Makes so many keys, to be replayed.
    async fn done(&self, keys: u64) {
        for n in 0..keys {
            self.keyed(&format!("done-{n}")).await;
        }
        self.done.store(keys, Ordering::Relaxed);
    }

    /// Requests per second, and the time that one of a hundred exceeds.
    async fn run(&self, contestant: Contestant) -> (f64, Duration) {
        let began = Instant::now();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let world = self.clone();
                tokio::spawn(async move {
                    let mut times = Vec::new();
                    while began.elapsed() < ROUND {
                        let asked = Instant::now();
                        world.once(contestant).await;
                        times.push(asked.elapsed());
                    }
                    times
                })
            })
            .collect();
        let mut times = Vec::new();
        for client in clients {
            times.extend(client.await.unwrap());
        }
        let rate = f64::from(u32::try_from(times.len()).unwrap()) / began.elapsed().as_secs_f64();
        times.sort();
        let p99 = times.get(times.len() * 99 / 100);
        (rate, p99.copied().unwrap_or_default())
    }

    async fn once(&self, contestant: Contestant) {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        match contestant {
            Contestant::Bare => {
                let mut tx = self.pool.begin().await.unwrap();
                effect(&mut tx).await;
                tx.commit().await.unwrap();
            }
            Contestant::ByHand => self.by_hand(&format!("hand-{number}")).await,
            Contestant::Local => self.keyed(&format!("key-{number}")).await,
            Contestant::Select => self.select().await,
            Contestant::Replay => {
                let done = self.done.load(Ordering::Relaxed);
                self.keyed(&format!("done-{}", number % done)).await;
            }
            Contestant::InboxByHand | Contestant::Inbox => {
                let mut tx = self.pool.begin().await.unwrap();
                let message = format!("m-{number}");
                if matches!(contestant, Contestant::Inbox) {
                    let seen = mainstay_idempotency::Inbox::once(&mut *tx, "bench", message).await;
                    assert_eq!(seen.unwrap(), mainstay_idempotency::Seen::First);
                } else {
                    sqlx::query("insert into mainstay_inbox (consumer, message) values ($1, $2) on conflict do nothing")
                        .bind(&b"hand"[..])
                        .bind(message.into_bytes())
                        .execute(&mut *tx)
                        .await
                        .unwrap();
                }
                effect(&mut tx).await;
                tx.commit().await.unwrap();
            }
        }
    }

    async fn keyed(&self, key: &str) {
        let request = Request::post("/pay")
            .header("idempotency-key", key)
            .body(Body::from(&BODY[..]))
            .unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED, "{key}");
        response.into_body().collect().await.unwrap();
    }

    async fn select(&self) {
        sqlx::query("select fingerprint, status, headers, body from only mainstay_key where scope = $1 and key = $2")
            .bind(Scope::new("acme", "", "pay").as_bytes())
            .bind(&b"done-0"[..])
            .fetch_one(&self.pool)
            .await
            .unwrap();
    }

    /// The statements that the store sends, and no more.
    async fn by_hand(&self, key: &str) {
        let claim = Claim {
            scope: Scope::new("hand", "", "pay"),
            key: Key::new(key).unwrap(),
            fingerprint: Fingerprint::new("POST", "/pay", BODY),
        };
        let (scope, key) = (claim.scope.as_bytes(), claim.key.as_bytes());
        let conn = self.pool.acquire().await.unwrap();
        let mut conn = conn;
        sqlx::query(
            "select k.fingerprint, k.status::bigint, k.headers, k.body, (extract(epoch from clock_timestamp()) * 1000)::bigint, \
             case when k.fingerprint is null then pg_try_advisory_xact_lock_shared($3) end \
             from (select 1) one left join only mainstay_key k on k.scope = $1 and k.key = $2",
        )
        .bind(scope)
        .bind(key)
        .bind(claim.lock())
        .fetch_one(&mut *conn)
        .await
        .unwrap();
        let hex = |bytes: &[u8]| {
            bytes.iter().fold(String::new(), |mut hex, byte| {
                write!(hex, "{byte:02x}").unwrap();
                hex
            })
        };
        let begin = format!(
            "set transaction isolation level read committed read write; \
             select mainstay_claim({}, {}, decode('{}', 'hex'), decode('{}', 'hex'), null, '35000'); begin",
            claim.request_lock(),
            claim.lock(),
            hex(scope),
            hex(key)
        );
        let mut tx = conn.begin_with(AssertSqlSafe(begin)).await.unwrap();
        effect(&mut tx).await;
        sqlx::query(
            "insert into mainstay_key (scope, key, fingerprint, status, headers, body) \
             select $1, $2, $3, $4, $5, $6 where current_setting('mainstay.claim', true) = $7",
        )
        .bind(scope)
        .bind(key)
        .bind(claim.fingerprint.as_bytes())
        .bind(201_i16)
        .bind(&b"\x01"[..])
        .bind(&BODY[..])
        .bind(claim.lock().to_string())
        .execute(&mut *tx)
        .await
        .unwrap();
        tx.commit().await.unwrap();
    }
}
