//! The database goes away, or is busy, or the relay's process dies.

use std::time::Duration;

use mainstay_outbox::{Admin, ChannelSink, Event, MemorySink, OutboxDb, store::Lanes};
use sqlx::{
    Connection, Pool, Sqlite,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::{BeginImmediately, on_each, outbox, postgres, put, quick, sqlite, until};

on_each![lanes_of_a_relay_that_died_are_taken_after_the_lease];

const SOON: Duration = Duration::from_secs(20);

async fn lanes_of_a_relay_that_died_are_taken_after_the_lease<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 4).await;
    let (sink, mut deliveries) = ChannelSink::new(1);
    // A runtime of its own that is shut down: its tasks end wherever they are, as if the process had been killed.
    // With a pool of its own as well: connections die with the runtime they were opened in.
    let process = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (options, theirs) = (pool.connect_options(), outbox.clone());
    let handle = process
        .spawn(async move {
            let options = <Db::Connection as Connection>::Options::clone(&options);
            let pool = Pool::connect_with(options).await.unwrap();
            let doomed = quick(&pool, &theirs).sink("*", sink).build().await.unwrap();
            doomed.spawn(CancellationToken::new())
        })
        .await
        .unwrap();
    put(
        &pool,
        &outbox,
        vec![Event::new("a").key("k"), Event::new("b").key("k")],
    )
    .await;
    let in_flight = timeout(SOON, deliveries.recv()).await.unwrap().unwrap();
    drop(handle);
    process.shutdown_background();
    drop(in_flight);

    let sink = MemorySink::new();
    let next = quick(&pool, &outbox)
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let next = next.spawn(CancellationToken::new());
    let messages = timeout(SOON, sink.wait_for(2)).await.unwrap();
    assert_eq!(messages[0].event_type(), "a");
    assert_eq!(
        messages[0].attempt(),
        2,
        "the attempt it died in is charged"
    );
    assert_eq!(messages[1].event_type(), "b");
    next.drain(SOON).await;
}

/// D1: every connection to the database is cut, again and again.
#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn cut_connections_lose_nothing_and_reorder_nothing_on_postgres() {
    let database = postgres().await;
    let pool = database.pool.clone();
    let outbox = outbox(&pool, 8).await;
    let sink = MemorySink::new();
    let relay = quick(&pool, &outbox)
        .batch(5)
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    let total = 400u32;
    let producer = async {
        for n in 0..total {
            // A producer tries until it knows; what it does not know it asks, by the event's id.
            let event = || {
                Event::new("t")
                    .key((n % 7).to_be_bytes())
                    .subject(n.to_string())
            };
            let event = event();
            loop {
                let Ok(mut tx) = pool.begin().await else {
                    continue;
                };
                if outbox.enqueue(&mut tx, event.clone()).await.is_ok() && tx.commit().await.is_ok()
                {
                    break;
                }
            }
            outbox.waker().notify_after_commit();
        }
    };
    let cutter = async {
        for cut in 1..=15 {
            // In the middle of things: whenever another stretch has been delivered.
            timeout(SOON, sink.wait_for(cut * 20)).await.unwrap();
            let _ = sqlx::query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            .execute(&pool)
            .await;
        }
    };
    tokio::join!(producer, cutter);
    let admin = Admin::new(pool.clone());
    until("all is delivered", async || {
        admin.lag().await.is_ok_and(|lag| lag.pending == 0)
    })
    .await;
    relay.drain(SOON).await;
    let mut first: Vec<u32> = Vec::new();
    for message in sink.messages() {
        let n = message.subject().unwrap().parse().unwrap();
        if !first.contains(&n) {
            first.push(n);
        }
    }
    assert_eq!(first.len(), total as usize);
    for key in 0..7 {
        assert!(
            first.iter().filter(|n| **n % 7 == key).is_sorted(),
            "{first:?}"
        );
    }
    assert_eq!(admin.lag().await.unwrap().dead, 0);
    database.gone().await;
}

/// A writer that keeps SQLite's only write lock for longer than anybody wants to wait.
#[tokio::test]
async fn a_busy_database_is_waited_out() {
    let database = sqlite().await;
    let impatient = SqliteConnectOptions::clone(&database.pool.connect_options())
        .busy_timeout(Duration::from_millis(5));
    let pool = SqlitePoolOptions::new()
        .connect_with(impatient)
        .await
        .unwrap();
    let outbox = outbox(&database.pool, 4).await;
    let sink = MemorySink::new();
    let relay = quick(&pool, &outbox)
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    until("it has its lanes", async || relay.stats().lanes == 4).await;
    put(&database.pool, &outbox, vec![Event::new("before")]).await;
    timeout(SOON, sink.wait_for(1)).await.unwrap();

    let mut hog = database.pool.begin_immediately().await;
    outbox.enqueue(&mut hog, Event::new("after")).await.unwrap();
    until("the leases ran out", async || {
        Sqlite::survey(database.pool.clone()).await.unwrap().free == 4
    })
    .await;
    hog.commit().await.unwrap();
    timeout(SOON, sink.wait_for(2)).await.unwrap();
    assert_eq!(relay.drain(SOON).await.unsettled, 0);
    assert_eq!(sink.messages().len(), 2);
    pool.close().await;
}
