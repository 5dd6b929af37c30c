//! Transactions on Postgres that do not end as they should, and a pool that has nothing left.

use std::{collections::HashSet, time::Duration};

use mainstay_outbox::{Admin, Event, EventId, Filter, MemorySink, Message, Outbox, RelayHandle};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Postgres, postgres::PgPoolOptions};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{programs::Program, servers::Server};
use crate::support::{outbox, postgres, put, quick, until};

const SOON: Duration = Duration::from_secs(20);
/// As in the case of a late commit: what is delivered within it was not found by a sweep, which is an hour away.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Longer than a relay's marks wait for a writer before they pass it, which is a second.
const PASSED: Duration = Duration::from_millis(1_500);

async fn relay(pool: &PgPool, outbox: &Outbox<Postgres>, sink: &MemorySink) -> RelayHandle {
    let relay = quick(pool, outbox)
        .sweep_interval(Duration::from_secs(3_600))
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    relay.spawn(CancellationToken::new())
}

/// G2: transaction numbers are those of the whole server, and so are the writers that a mark waits for.
#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn a_writer_in_another_database_delays_no_delivery() {
    let (database, other) = (postgres().await, postgres().await);
    let pool = database.pool.clone();
    let outbox = outbox(&pool, 4).await;
    let sink = MemorySink::new();
    let relay = relay(&pool, &outbox, &sink).await;
    let mut delivered = 0;
    let mut slowest = async || {
        let mut slowest = Duration::ZERO;
        let began = Instant::now();
        let mut n = 0u32;
        // Past the moment at which marks pass the writer.
        while began.elapsed() < PASSED {
            let before = Instant::now();
            n += 1;
            put(
                &pool,
                &outbox,
                vec![Event::new("t").key((n % 9).to_be_bytes())],
            )
            .await;
            delivered += 1;
            let arrived = timeout(AT_ONCE, sink.wait_for(delivered)).await;
            assert_eq!(arrived.unwrap().len(), delivered);
            slowest = slowest.max(before.elapsed());
        }
        (slowest, n)
    };
    let alone = slowest().await;
    let mut writer = other.pool.begin().await.unwrap();
    let number = "SELECT pg_current_xact_id()::text";
    let _: String = sqlx::query_scalar(number)
        .fetch_one(&mut *writer)
        .await
        .unwrap();
    let beside = slowest().await;
    writer.commit().await.unwrap();
    println!("alone: the slowest and how many {alone:?}, beside an open writer {beside:?}");
    assert_eq!(relay.drain(SOON).await.unsettled, 0);
    database.gone().await;
    other.gone().await;
}

/// A transaction that is prepared under this name, with one event.
async fn prepare(pool: &PgPool, outbox: &Outbox<Postgres>, name: &str, event: Event) -> EventId {
    let mut conn = pool.acquire().await.unwrap();
    run(&mut conn, "BEGIN").await;
    let id = outbox.enqueue(&mut *conn, event).await.unwrap();
    run(&mut conn, &format!("PREPARE TRANSACTION '{name}'")).await;
    id
}

async fn run(conn: &mut PgConnection, sql: &str) {
    let sql = AssertSqlSafe(sql.to_owned());
    sqlx::raw_sql(sql).execute(conn).await.unwrap();
}

/// G4: a prepared transaction has ended for its session and not for anybody else, not even when the server dies.
#[tokio::test]
#[ignore = "needs the programs of Postgres; tests/run sees to them"]
async fn a_prepared_transaction_is_delivered_when_it_commits_and_not_before() {
    let Some(mut server) = Server::start(Program::Postgres).await else {
        return;
    };
    let options = PgPoolOptions::new().max_connections(10);
    let pool = options.connect(&server.url()).await.unwrap();
    let outbox = outbox(&pool, 1).await;
    let sink = MemorySink::new();
    let relay = relay(&pool, &outbox, &sink).await;
    let commits = prepare(&pool, &outbox, "commits", Event::new("t").key("a")).await;
    let rolls_back = prepare(&pool, &outbox, "rolls back", Event::new("t").key("b")).await;
    let survives = prepare(&pool, &outbox, "survives", Event::new("t").key("c")).await;
    // Their ids are below those of what follows, and the marks rise past them.
    let mut delivered = 0;
    let mut others = async || {
        let began = Instant::now();
        while began.elapsed() < PASSED {
            put(&pool, &outbox, vec![Event::new("t").key("d")]).await;
            delivered += 1;
            timeout(AT_ONCE, sink.wait_for(delivered)).await.unwrap();
        }
        delivered
    };
    others().await;
    let mut conn = pool.acquire().await.unwrap();
    run(&mut conn, "ROLLBACK PREPARED 'rolls back'").await;
    run(&mut conn, "COMMIT PREPARED 'commits'").await;
    drop(conn);
    let found = timeout(AT_ONCE, sink.wait_for_event(commits)).await;
    assert!(found.is_ok(), "behind the mark");

    server.stop("-KILL").await;
    server.start_again().await;
    delivered += 1;
    let mut others = async || {
        let began = Instant::now();
        while began.elapsed() < PASSED {
            put(&pool, &outbox, vec![Event::new("t").key("d")]).await;
            delivered += 1;
            timeout(SOON, sink.wait_for(delivered)).await.unwrap();
        }
        delivered
    };
    others().await;
    let mut conn = pool.acquire().await.unwrap();
    run(&mut conn, "COMMIT PREPARED 'survives'").await;
    drop(conn);
    let found = timeout(AT_ONCE, sink.wait_for_event(survives)).await;
    assert!(found.is_ok(), "behind the mark");
    assert_eq!(relay.drain(SOON).await.unsettled, 0);
    let messages = sink.messages();
    assert_eq!(messages.len(), delivered + 1, "nothing twice");
    assert!(messages.iter().all(|of| of.id() != rolls_back));
    pool.close().await;
}

/// G5: sessions that keep 32 ids each write them in any order; so do those that still have some when they should no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn a_sequence_that_is_cached_loses_nothing() {
    const WRITERS: usize = 16;
    let database = postgres().await;
    let options = PgPoolOptions::new().max_connections(WRITERS as u32 + 4);
    let pool = options.connect(&database.url()).await.unwrap();
    let outbox = outbox(&pool, 8).await;
    let sink = MemorySink::new();
    let relay = quick(&pool, &outbox)
        .sweep_interval(Duration::from_secs(1))
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    let writers = (0..WRITERS).map(|writer| {
        let (pool, outbox) = (pool.clone(), outbox.clone());
        tokio::spawn(async move {
            // A session of its own, with its own ids.
            let mut conn = pool.acquire().await.unwrap();
            let mut written = Vec::new();
            for n in 0..120usize {
                let event = || Event::new("t").key(n.to_be_bytes());
                let mut tx = conn.begin().await.unwrap();
                written.push(outbox.enqueue(&mut *tx, event()).await.unwrap());
                if n % 5 == writer % 5 {
                    written.push(outbox.enqueue(&mut *tx, event()).await.unwrap());
                }
                tx.commit().await.unwrap();
                outbox.waker().notify_after_commit();
            }
            written
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut operator = pool.acquire().await.unwrap();
    for (part, cache) in [32, 1, 32].into_iter().enumerate() {
        timeout(SOON, sink.wait_for(part * 500 + 100))
            .await
            .unwrap();
        let alter = format!("ALTER SEQUENCE mainstay_outbox_message_id_seq CACHE {cache}");
        run(&mut operator, &alter).await;
    }
    let mut written: HashSet<EventId> = HashSet::new();
    for writer in writers {
        written.extend(writer.await.unwrap());
    }
    let admin = Admin::new(pool.clone());
    until("all is delivered", async || {
        admin.lag().await.unwrap().pending == 0
    })
    .await;
    assert_eq!(relay.drain(SOON).await.unsettled, 0);
    let delivered: Vec<EventId> = sink.messages().iter().map(Message::id).collect();
    assert_eq!(delivered.len(), written.len(), "nothing twice");
    assert_eq!(written, delivered.into_iter().collect());
    drop(operator);
    pool.close().await;
    database.gone().await;
}

/// D1: the application has every connection of its pool in use.
#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn a_pool_that_is_empty_holds_up_only_a_relay_that_shares_it() {
    let database = postgres().await;
    let pool = database.pool.clone();
    let outbox = outbox(&pool, 4).await;
    for shares in [false, true] {
        let sink = MemorySink::new();
        let mut relay = quick(&pool, &outbox).sink("*", sink.clone());
        if shares {
            relay = relay.shared_connections();
        }
        let relay = relay.build().await.unwrap().spawn(CancellationToken::new());
        until("it has its lanes", async || relay.stats().lanes == 4).await;
        let mut taken = Vec::new();
        for _ in 0..pool.options().get_max_connections() {
            taken.push(pool.acquire().await.unwrap());
        }
        let mut tx = taken[0].begin().await.unwrap();
        outbox
            .enqueue(&mut *tx, Event::new("t").key("k"))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        outbox.waker().notify_after_commit();
        if shares {
            // Past its lease: what it held is free when it has a connection again.
            sleep(Duration::from_secs(2)).await;
            assert!(sink.messages().is_empty());
        } else {
            timeout(SOON, sink.wait_for(1)).await.unwrap();
        }
        drop(taken);
        let messages = timeout(SOON, sink.wait_for(1)).await.unwrap();
        assert_eq!((messages.len(), messages[0].attempt()), (1, 1));
        assert_eq!(relay.drain(SOON).await.unsettled, 0);
    }
    let admin = Admin::new(pool);
    assert_eq!(admin.lag().await.unwrap().pending, 0);
    assert!(admin.dead(Filter::all(), 1).await.unwrap().is_empty());
    database.gone().await;
}
