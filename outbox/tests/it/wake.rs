//! Wakes from one process to another.

use std::time::Duration;

use mainstay_outbox::{BuildError, Event, MemorySink, Outbox, OutboxDb, Relay};
use sqlx::Pool;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::{on_each, outbox, put, quick};

on_each![announcing_and_listening_do_no_harm];

const SOON: Duration = Duration::from_secs(10);

/// Where the database can carry no wakes, polls find the events.
async fn announcing_and_listening_do_no_harm<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 4).await;
    let _announcer = outbox.announce(pool.clone());
    let sink = MemorySink::new();
    let relay = quick(&pool, &outbox).listen().sink("*", sink.clone());
    let relay = relay.build().await.unwrap().spawn(CancellationToken::new());
    for n in 1..10 {
        put(&pool, &outbox, vec![Event::new("t")]).await;
        timeout(SOON, sink.wait_for(n)).await.unwrap();
    }
    assert_eq!(relay.drain(SOON).await.unsettled, 0);
}

mod on_postgres {
    use sqlx::{PgPool, Postgres, postgres::PgListener};

    use super::*;
    use crate::support::{postgres, until};

    /// A relay that knows nothing of the producer, and would not look for half a minute.
    async fn elsewhere(pool: &PgPool, sink: &MemorySink) -> mainstay_outbox::RelayHandle {
        let relay = Relay::builder(pool.clone())
            .poll_interval(Duration::from_secs(30))
            .listen()
            .sink("*", sink.clone());
        relay.build().await.unwrap().spawn(CancellationToken::new())
    }

    /// Each of so many commits is delivered well before a poll would have found it.
    async fn woken(pool: &PgPool, outbox: &Outbox<Postgres>, sink: &MemorySink, from: usize) {
        for n in from..from + 10 {
            put(pool, outbox, vec![Event::new("t")]).await;
            timeout(Duration::from_secs(3), sink.wait_for(n))
                .await
                .expect("the wake was lost");
        }
    }

    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
    async fn a_commit_wakes_a_relay_of_another_process() {
        let database = postgres().await;
        let pool = database.pool.clone();
        let outbox = outbox(&pool, 4).await;
        let announcer = outbox.announce(pool.clone());
        let sink = MemorySink::new();
        let relay = elsewhere(&pool, &sink).await;
        put(&pool, &outbox, vec![Event::new("t")]).await;
        timeout(SOON, sink.wait_for(1)).await.unwrap();
        woken(&pool, &outbox, &sink, 2).await;

        // The listener's connection is lost, and what is said meanwhile with it.
        let ended = sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND query LIKE 'LISTEN%'",
        );
        let ended = ended.execute(&pool).await.unwrap();
        assert_eq!(ended.rows_affected(), 1);
        woken(&pool, &outbox, &sink, 12).await;

        assert_eq!(relay.drain(SOON).await.unsettled, 0);
        until("the listener has left with its relay", async || {
            let left: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND query LIKE 'LISTEN%'",
            )
            .fetch_one(&pool)
            .await
            .unwrap();
            left == 0
        })
        .await;
        drop(announcer);
        database.gone().await;
    }

    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
    async fn many_commits_are_one_announcement_and_an_insert_is_none() {
        let database = postgres().await;
        let pool = database.pool.clone();
        let outbox = outbox(&pool, 4).await;
        let _announcer = outbox.announce(pool.clone());
        let mut listener = PgListener::connect_with(&pool).await.unwrap();
        listener.listen("mainstay_outbox").await.unwrap();

        let mut tx = pool.begin().await.unwrap();
        outbox.enqueue(&mut tx, Event::new("t")).await.unwrap();
        tx.commit().await.unwrap();
        for _ in 0..2 {
            // Nothing else runs between these calls, so the announcer sees them together.
            for _ in 0..1_000 {
                outbox.waker().notify_after_commit();
            }
            let told = timeout(SOON, listener.recv()).await.unwrap().unwrap();
            assert_eq!(told.payload(), "");
        }
        sqlx::raw_sql("NOTIFY mainstay_outbox, 'end'")
            .execute(&pool)
            .await
            .unwrap();
        let told = timeout(SOON, listener.recv()).await.unwrap().unwrap();
        assert_eq!(
            told.payload(),
            "end",
            "one announcement for each burst, and no other"
        );
        drop(listener);
        database.gone().await;
    }

    /// An announcer that announced what its own listener hears would never stop.
    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
    async fn what_is_heard_is_not_announced_again() {
        let database = postgres().await;
        let pool = database.pool.clone();
        let outbox = outbox(&pool, 4).await;
        let _announcer = outbox.announce(pool.clone());
        let sink = MemorySink::new();
        let relay = quick(&pool, &outbox).listen().sink("*", sink.clone());
        let relay = relay.build().await.unwrap().spawn(CancellationToken::new());
        let mut listener = PgListener::connect_with(&pool).await.unwrap();
        listener.listen("mainstay_outbox").await.unwrap();
        put(&pool, &outbox, vec![Event::new("t")]).await;
        timeout(SOON, sink.wait_for(1)).await.unwrap();
        timeout(SOON, listener.recv()).await.unwrap().unwrap();
        // Time enough for the next one, were there any.
        put(&pool, &outbox, vec![Event::new("t")]).await;
        timeout(SOON, listener.recv()).await.unwrap().unwrap();
        timeout(SOON, sink.wait_for(2)).await.unwrap();
        let more = timeout(Duration::from_millis(100), listener.recv()).await;
        assert!(more.is_err(), "an echo");
        drop(listener);
        assert_eq!(relay.drain(SOON).await.unsettled, 0);
        database.gone().await;
    }

    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
    async fn a_relay_that_listens_wants_a_second_connection() {
        let database = postgres().await;
        outbox(&database.pool, 4).await;
        let options = database.pool.connect_options().as_ref().clone();
        let narrow = sqlx::postgres::PgPoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await
            .unwrap();
        let relay = Relay::builder(narrow.clone())
            .listen()
            .sink("*", MemorySink::new());
        let refused = relay.build().await.unwrap_err();
        assert!(matches!(refused, BuildError::Setting { .. }), "{refused:?}");
        narrow.close().await;
        database.gone().await;
    }
}
