//! COMMIT is sent and no answer comes: the outcome is read from the database, and the handler never runs again for it.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::StatusCode;
use mainstay_errors::{Error, Outcome, Problem, Retry};
use mainstay_idempotency::leased::{Claimed, Leases, Work};
use mainstay_idempotency::store::Claim;
use mainstay_idempotency::webhook::{Delivery, Received, Secret, Verifier, Webhooks, sign};
use mainstay_idempotency::{Fingerprint, IdemTx, IdempotencyDb, Key, Scope};
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlSslMode};
use sqlx::postgres::PgPoolOptions;
use sqlx::{MySql, Pool, Postgres, Sqlite};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::app::{App, request};
use crate::db::{self, TestDb};

const PASS: u8 = 0;
/// Cut when a COMMIT comes by, without passing it on.
pub const BEFORE_COMMIT: u8 = 1;
/// Pass a COMMIT on, see its answer, and cut without passing that back.
pub const AFTER_COMMIT: u8 = 2;
/// As above, and let nobody in afterwards.
const AFTER_COMMIT_THEN_DOWN: u8 = 3;
const DOWN: u8 = 4;
/// As [`BEFORE_COMMIT`], and let nobody in afterwards.
const BEFORE_COMMIT_THEN_DOWN: u8 = 5;
/// Hold a COMMIT back and stay silent, until the mode is set again; others pass.
const SWALLOW_COMMIT: u8 = 6;
const SWALLOWED: u8 = 7;

/// A wire to a database that misbehaves once, at a COMMIT.
pub struct Wire {
    addr: SocketAddr,
    mode: Arc<AtomicU8>,
    /// How often the client has spoken after the server, on all connections: round trips.
    pub flights: Arc<AtomicUsize>,
}

impl Wire {
    async fn start(upstream: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, mode) = (
            listener.local_addr().unwrap(),
            Arc::new(AtomicU8::new(PASS)),
        );
        let flights = Arc::new(AtomicUsize::new(0));
        tokio::spawn({
            let (mode, flights) = (Arc::clone(&mode), Arc::clone(&flights));
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    if mode.load(Ordering::SeqCst) == DOWN {
                        continue;
                    }
                    let server = TcpStream::connect(&upstream).await.unwrap();
                    tokio::spawn(carry(
                        client,
                        server,
                        Arc::clone(&mode),
                        Arc::clone(&flights),
                    ));
                }
            }
        });
        Self {
            addr,
            mode,
            flights,
        }
    }

    pub fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
    }

    async fn until(&self, mode: u8) {
        while self.mode.load(Ordering::SeqCst) != mode {
            tokio::task::yield_now().await;
        }
    }
}

async fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    mode: Arc<AtomicU8>,
    flights: Arc<AtomicUsize>,
) {
    let mut server_spoke = true;
    let (mut from_client, mut from_server) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(length @ 1..) = read else { return };
                let sent = &from_client[..length];
                flights.fetch_add(usize::from(server_spoke), Ordering::SeqCst);
                server_spoke = false;
                let commit = sent.windows(7).any(|bytes| bytes == b"COMMIT\0" || bytes == b"commit;");
                match mode.load(Ordering::SeqCst) {
                    BEFORE_COMMIT if commit => return mode.store(PASS, Ordering::SeqCst),
                    BEFORE_COMMIT_THEN_DOWN if commit => return mode.store(DOWN, Ordering::SeqCst),
                    SWALLOW_COMMIT if commit => {
                        mode.store(SWALLOWED, Ordering::SeqCst);
                        while mode.load(Ordering::SeqCst) == SWALLOWED {
                            tokio::task::yield_now().await;
                        }
                        return;
                    }
                    after @ (AFTER_COMMIT | AFTER_COMMIT_THEN_DOWN) if commit => {
                        server.write_all(sent).await.unwrap();
                        assert!(server.read(&mut from_server).await.unwrap() > 0);
                        return mode.store(if after == AFTER_COMMIT { PASS } else { DOWN }, Ordering::SeqCst);
                    }
                    _ => if server.write_all(sent).await.is_err() { return },
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(length @ 1..) = read else { return };
                server_spoke = true;
                if client.write_all(&from_server[..length]).await.is_err() { return }
            }
        }
    }
}

/// A pool that goes through the wire to the database of `pool`.
pub async fn through_wire(pool: &Pool<Postgres>) -> (Wire, Pool<Postgres>) {
    let options = pool.connect_options();
    let wire = Wire::start(format!("{}:{}", options.get_host(), options.get_port())).await;
    let options = (*options).clone().host("127.0.0.1").port(wire.addr.port());
    let wired = PgPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(Duration::from_secs(1))
        .connect_lazy_with(options);
    (wire, wired)
}

/// As [`through_wire`], to MariaDB. Over TCP, whatever way the test's own pool goes.
async fn through_wire_to_mariadb(pool: &Pool<MySql>) -> (Wire, Pool<MySql>) {
    let url = std::env::var("MAINSTAY_TEST_MARIADB_URL").unwrap();
    let options = MySqlConnectOptions::from_str(&url).unwrap();
    let wire = Wire::start(format!("{}:{}", options.get_host(), options.get_port())).await;
    let database: String = sqlx::query_scalar("select database()")
        .fetch_one(pool)
        .await
        .unwrap();
    let options = options
        .database(&database)
        .ssl_mode(MySqlSslMode::Disabled)
        .host("127.0.0.1")
        .port(wire.addr.port());
    let wired = MySqlPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(Duration::from_secs(1))
        .connect_lazy_with(options);
    (wire, wired)
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn a_lost_commit_is_read_from_its_key_on_mariadb() {
    db::on::<MySql, _>(|pool| async move {
        let (wire, wired) = through_wire_to_mariadb(&pool).await;
        let app = App::new(wired.clone());
        wire.set(AFTER_COMMIT);
        let answer = app.post("heard", "ok").await;
        assert_eq!(
            (answer.status, answer.replayed(), app.runs()),
            (StatusCode::CREATED, false, 1)
        );
        assert!(app.post("heard", "ok").await.replayed());
        assert_eq!((app.effects("ok").await, app.commits()), (1, 1));
        wire.set(BEFORE_COMMIT);
        let answer = app.post("lost", "ok lost").await;
        assert_eq!(
            (answer.code().as_str(), answer.problem().outcome()),
            ("idempotency_store_unavailable", Outcome::NotApplied)
        );
        assert_eq!((app.effects("ok lost").await, app.commits()), (0, 1));
        assert_eq!(
            app.post("lost", "ok lost").await.status,
            StatusCode::CREATED
        );
        assert_eq!(app.effects("ok lost").await, 1);
        wired.close().await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs DATABASE_URL_POSTGRES; tests/run provides it"]
async fn a_commit_that_happened_unheard_is_answered_as_it_was_on_postgres() {
    db::on::<Postgres, _>(|pool| async move {
        let (wire, wired) = through_wire(&pool).await;
        let app = App::new(wired.clone());
        wire.set(AFTER_COMMIT);
        let answer = app.post("k", "ok").await;
        assert_eq!(
            (answer.status, answer.replayed()),
            (StatusCode::CREATED, false)
        );
        assert!(
            answer.headers.contains_key("set-cookie"),
            "it is the first answer, with all its headers"
        );
        assert_eq!(
            (app.runs(), app.effects("ok").await, app.commits()),
            (1, 1, 1)
        );
        assert!(app.post("k", "ok").await.replayed());
        // A recorded refusal too.
        wire.set(AFTER_COMMIT);
        let refused = app.post("r", "status 422").await;
        assert_eq!(
            (refused.status, app.runs()),
            (StatusCode::UNPROCESSABLE_ENTITY, 2)
        );
        assert!(app.post("r", "status 422").await.replayed());
        wired.close().await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs DATABASE_URL_POSTGRES; tests/run provides it"]
async fn a_commit_that_never_arrived_is_told_as_not_applied_on_postgres() {
    db::on::<Postgres, _>(|pool| async move {
        let (wire, wired) = through_wire(&pool).await;
        let app = App::new(wired.clone());
        wire.set(BEFORE_COMMIT);
        let answer = app.post("k", "ok").await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "idempotency_store_unavailable"
            )
        );
        assert_eq!(
            (answer.problem().outcome(), app.runs(), app.commits()),
            (Outcome::NotApplied, 1, 0)
        );
        assert_eq!(app.effects("ok").await, 0);
        assert_eq!(app.post("k", "ok").await.status, StatusCode::CREATED);
        assert_eq!(app.effects("ok").await, 1);
        wired.close().await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs DATABASE_URL_POSTGRES; tests/run provides it"]
async fn a_lost_commit_is_not_taken_for_another_requests_equal_answer_on_postgres() {
    db::on::<Postgres, _>(|pool| async move {
        let (wire, wired) = through_wire(&pool).await;
        let (ours, theirs) = (App::new(wired.clone()), App::new(pool));
        wire.set(BEFORE_COMMIT_THEN_DOWN);
        let lost = tokio::spawn({
            let ours = ours.clone();
            async move { ours.post("k", "ok ours").await }
        });
        wire.until(DOWN).await;
        // Another process runs another request under the key, and answers in the same words.
        while theirs.post("k", "ok theirs").await.status != StatusCode::CREATED {
            tokio::task::yield_now().await;
        }
        wire.set(PASS);
        let answer = lost.await.unwrap();
        assert_eq!(
            (
                ours.effects("ok ours").await,
                answer.status,
                answer.code().as_str()
            ),
            (
                0,
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused"
            )
        );
        assert_eq!(ours.commits(), 0);
        wired.close().await;
    })
    .await;
}

/// No error ever comes: a network that swallows packets, a host that froze.
#[tokio::test]
#[ignore = "needs DATABASE_URL_POSTGRES; tests/run provides it"]
async fn a_commit_met_with_silence_is_unknown_in_time_on_postgres() {
    db::on::<Postgres, _>(|pool| async move {
        let (wire, wired) = through_wire(&pool).await;
        let app = App::with(wired.clone(), |layer| {
            layer
                .required(false)
                .resolve_time_max(Duration::from_millis(200))
        });
        for (key, code) in [
            (Some("k"), "idempotency_outcome_unknown"),
            (None, "outcome_unknown"),
        ] {
            wire.set(SWALLOW_COMMIT);
            let answer = timeout(Duration::from_secs(5), app.send(request(key, "ok"))).await;
            let answer = answer.expect("an answer within a few resolve times");
            assert_eq!((answer.code().as_str(), app.effects("ok").await), (code, 0));
            if key.is_some() {
                let again = app.post("k", "ok").await;
                assert_eq!(
                    again.code(),
                    "idempotency_key_in_flight",
                    "the old transaction is still open"
                );
            }
            wire.set(PASS);
            app.idle().await;
        }
        while app.post("k", "ok").await.status != StatusCode::CREATED {
            tokio::task::yield_now().await;
        }
        assert_eq!(app.effects("ok").await, 1);
        wired.close().await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs DATABASE_URL_POSTGRES; tests/run provides it"]
async fn a_commit_nobody_can_tell_about_is_unknown_and_the_same_key_finds_out_on_postgres() {
    db::on::<Postgres, _>(|pool| async move {
        let (wire, wired) = through_wire(&pool).await;
        let app = App::with(wired.clone(), |layer| {
            layer
                .required(false)
                .resolve_time_max(Duration::from_millis(300))
        });
        wire.set(AFTER_COMMIT_THEN_DOWN);
        let answer = app.post("k", "ok").await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "idempotency_outcome_unknown"
            )
        );
        assert_eq!(
            (answer.problem().outcome(), answer.problem().retry()),
            (Outcome::Unknown, Retry::SameKeyOnly)
        );
        wire.set(PASS);
        app.idle().await;
        assert!(app.post("k", "ok").await.replayed());
        assert_eq!((app.runs(), app.effects("ok").await), (1, 1));
        // Without a key there is nothing to read back: unknown is all that can be said.
        wire.set(AFTER_COMMIT);
        let answer = app.send(request(None, "keyless")).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown")
        );
        assert_eq!(
            (answer.problem().outcome(), answer.problem().retry()),
            (Outcome::Unknown, Retry::Never)
        );
        wired.close().await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs DATABASE_URL_POSTGRES; tests/run provides it"]
async fn a_commit_that_the_database_refuses_is_not_applied_on_postgres() {
    db::on::<Postgres, _>(|pool| async move {
        let mut conn = pool.acquire().await.unwrap();
        sqlx::raw_sql(
            "create table parent (id int primary key); \
             alter table effect add column parent int default 1 references parent deferrable initially deferred",
        )
        .execute(&mut *conn)
        .await
        .unwrap();
        drop(conn);
        // The database has said why, and will say it again: neither "cannot be reached" nor "unknown".
        let app = App::with(pool, |layer| layer.required(false));
        for key in [Some("k"), None] {
            let answer = app.send(request(key, "ok")).await;
            assert_eq!((answer.status, answer.code().as_str()), (StatusCode::INTERNAL_SERVER_ERROR, "idempotency_store_failed"), "{key:?}");
            assert_eq!((answer.problem().outcome(), app.effects("ok").await), (Outcome::NotApplied, 0));
        }
        assert_eq!((app.runs(), app.commits()), (2, 0));
    })
    .await;
}

#[tokio::test]
async fn sqlite_refusing_a_commit_is_not_applied() {
    db::on::<Sqlite, _>(|pool| async move {
        sqlx::raw_sql(
            "create table parent (id integer primary key); \
             create table child (parent integer references parent deferrable initially deferred); \
             create trigger orphan after insert on effect when new.name = 'orphan' begin insert into child values (1); end",
        )
        .execute(&pool)
        .await
        .unwrap();
        let app = App::with(pool.clone(), |layer| layer.required(false));
        for key in [Some("k"), None] {
            let answer = app.send(request(key, "orphan")).await;
            assert_eq!((answer.code().as_str(), answer.problem().outcome()), ("idempotency_store_failed", Outcome::NotApplied), "{key:?}");
        }
        assert_eq!((app.effects("orphan").await, app.runs(), app.commits()), (0, 2, 0));
        let tx = Sqlite::begin(&pool).await.unwrap();
        tx.rollback().await.unwrap();
    })
    .await;
}

#[tokio::test]
#[ignore = "needs DATABASE_URL_POSTGRES; tests/run provides it"]
async fn a_webhooks_lost_commit_is_read_from_its_mark_on_postgres() {
    db::on::<Postgres, _>(|pool| async move {
        let (wire, wired) = through_wire(&pool).await;
        let (secret, webhooks) = (Secret::generate(), Webhooks::new(wired.clone()));
        let verifier = Verifier::new(secret.clone());
        let deliver = async |id: &str| {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
            let headers = sign(&secret, id, now, b"").unwrap();
            let effect = |mut tx: IdemTx<Postgres>, delivery: Delivery| async move {
                let effect = Postgres::effect(&mut tx, &delivery.id).await;
                effect.map_err(Error::internal)
            };
            webhooks
                .receive(&verifier, "provider", &headers, Bytes::new(), now, effect)
                .await
        };
        wire.set(AFTER_COMMIT);
        assert_eq!(deliver("heard").await.unwrap(), Received::First(()));
        assert_eq!(deliver("heard").await.unwrap(), Received::Duplicate);
        wire.set(BEFORE_COMMIT);
        let lost = Problem::from(deliver("lost").await.unwrap_err());
        assert_eq!((lost.status(), lost.outcome()), (503, Outcome::NotApplied));
        assert_eq!(Postgres::effects(&pool, "lost").await, 0);
        assert_eq!(deliver("lost").await.unwrap(), Received::First(()));
        for id in ["heard", "lost"] {
            assert_eq!(Postgres::effects(&pool, id).await, 1, "{id}");
        }
        wired.close().await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs DATABASE_URL_POSTGRES; tests/run provides it"]
async fn a_steps_lost_commit_is_read_from_its_journal_on_postgres() {
    db::on::<Postgres, _>(|pool| async move {
        let (wire, wired) = through_wire(&pool).await;
        let leases = Leases::new(wired.clone());
        let claim = Claim {
            scope: Scope::new("t", "", "o"),
            key: Key::new("k").unwrap(),
            fingerprint: Fingerprint::new("POST", "/", ""),
        };
        let Claimed::Run(mut lease) = leases.claim(&claim, &Work::default()).await.unwrap() else {
            panic!("new");
        };
        for (mode, step, committed) in [
            (AFTER_COMMIT, "heard", true),
            (BEFORE_COMMIT, "lost", false),
        ] {
            wire.set(mode);
            let effect = move |mut tx: IdemTx<Postgres>, _| async move {
                Postgres::effect(&mut tx, step).await
            };
            let done = lease.step(step, effect).await;
            assert_eq!(done.is_ok(), committed, "{step}: {done:?}");
            assert_eq!(
                Postgres::effects(&pool, step).await,
                i64::from(committed),
                "{step}"
            );
            lease.step(step, effect).await.unwrap();
            assert_eq!(Postgres::effects(&pool, step).await, 1, "{step}");
        }
        drop(lease);
        wired.close().await;
    })
    .await;
}
