//! What is different on MariaDB: locks on keys, errors by number, sessions that are set up in odd ways.

use std::time::Duration;

use mainstay_outbox::{EnqueueError, Event, EventId, Ordering, Outbox, OutboxConfig, conformance};
use sqlx::{MySql, MySqlConnection, MySqlPool, mysql::MySqlPoolOptions};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::support::{mariadb, outbox};

fn strict(key: &str) -> Event {
    Event::new("t").key(key).ordering(Ordering::PerKeyStrict)
}

async fn id(conn: &mut MySqlConnection) -> u64 {
    sqlx::query_scalar("SELECT connection_id()")
        .fetch_one(conn)
        .await
        .unwrap()
}

/// Until this connection waits for a lock. Asked more often than ten times a second, InnoDB says the same as before.
async fn waits(pool: &MySqlPool, connection: u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let waits: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM information_schema.innodb_trx
             WHERE trx_mysql_thread_id = ? AND trx_state = 'LOCK WAIT')",
        )
        .bind(connection)
        .fetch_one(pool)
        .await
        .unwrap();
        if waits {
            return;
        }
        assert!(Instant::now() < deadline, "the other writer never waits");
        sleep(Duration::from_millis(150)).await;
    }
}

/// The events in the order of their places.
async fn places(pool: &MySqlPool) -> Vec<EventId> {
    let ids: Vec<Uuid> =
        sqlx::query_scalar("SELECT event_id FROM mainstay_outbox_message ORDER BY id")
            .fetch_all(pool)
            .await
            .unwrap();
    ids.into_iter().map(EventId::from).collect()
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn a_strict_key_makes_the_second_writer_wait_for_the_first_commit() {
    let database = mariadb().await;
    let pool = database.pool.clone();
    let outbox = outbox(&pool, 4).await;
    for many in [false, true] {
        sqlx::query("DELETE FROM mainstay_outbox_message")
            .execute(&pool)
            .await
            .unwrap();
        let mut first = pool.begin().await.unwrap();
        let mut second = pool.begin().await.unwrap();
        let a = outbox.enqueue(&mut first, strict("k")).await.unwrap();
        let other = outbox.enqueue(&mut second, strict("other")).await.unwrap();
        let waiting = id(&mut second).await;
        let writer = tokio::spawn({
            let outbox = outbox.clone();
            async move {
                let b = if many {
                    let both = [Event::new("t"), strict("k")];
                    outbox.enqueue_many(&mut second, both).await.unwrap()[1]
                } else {
                    outbox.enqueue(&mut second, strict("k")).await.unwrap()
                };
                second.commit().await.unwrap();
                b
            }
        });
        waits(&pool, waiting).await;
        // Drawn while the other waits: had that one its place already, it would be before this.
        let between = outbox.enqueue(&mut first, strict("k")).await.unwrap();
        first.commit().await.unwrap();
        let b = writer.await.unwrap();
        let places = places(&pool).await;
        assert_eq!(places[..3], [a, other, between]);
        assert_eq!(
            places.last(),
            Some(&b),
            "its place is behind, as its commit is"
        );
    }
    database.gone().await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn locks_of_one_call_are_taken_in_one_order() {
    let database = mariadb().await;
    let pool = database.pool.clone();
    let outbox = outbox(&pool, 4).await;
    let keys: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    let mut writers = Vec::new();
    for backwards in [false, true, false, true] {
        let (pool, outbox, mut keys) = (pool.clone(), outbox.clone(), keys.clone());
        if backwards {
            keys.reverse();
        }
        writers.push(tokio::spawn(async move {
            for _ in 0..25 {
                let mut tx = pool.begin().await.unwrap();
                let events = keys.iter().map(|key| strict(key));
                outbox.enqueue_many(&mut tx, events).await?;
                tx.commit().await.map_err(EnqueueError::Database)?;
            }
            Ok::<(), EnqueueError>(())
        }));
    }
    for writer in writers {
        writer
            .await
            .unwrap()
            .expect("nobody is a deadlock's victim");
    }
    database.gone().await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn a_wrong_place_to_write_is_told_apart() {
    let database = mariadb().await;
    let pool = database.pool.clone();
    let bare = Outbox::<MySql>::new(OutboxConfig::default());
    let mut conn = pool.acquire().await.unwrap();
    let refused = bare.enqueue(&mut conn, strict("k")).await.unwrap_err();
    assert!(
        matches!(refused, EnqueueError::SchemaMismatch(Some(_))),
        "{refused:?}"
    );
    let outbox = outbox(&pool, 4).await;
    let mut tx = pool
        .begin_with("START TRANSACTION READ ONLY")
        .await
        .unwrap();
    let refused = outbox.enqueue(&mut tx, Event::new("t")).await.unwrap_err();
    assert!(matches!(refused, EnqueueError::ReadOnly(_)), "{refused:?}");
    drop((tx, conn));
    database.gone().await;
}

/// Another time zone, the strictest isolation, double quotes for names: what a session is set to is the application's business.
#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn a_session_may_be_set_up_as_it_likes() {
    let databases = std::sync::Mutex::new(Vec::new());
    conformance::all::<MySql, _, _>(async || {
        let database = mariadb().await;
        let options = database.pool.connect_options().as_ref().clone();
        let pool = MySqlPoolOptions::new()
            .max_connections(6)
            .after_connect(|conn, _| {
                Box::pin(async move {
                    let odd = "SET time_zone = '+05:30', sql_mode = 'ANSI,STRICT_ALL_TABLES';
                        SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE";
                    sqlx::raw_sql(odd).execute(conn).await.map(|_| ())
                })
            })
            .connect_with(options)
            .await
            .unwrap();
        databases.lock().unwrap().push((database, pool.clone()));
        pool
    })
    .await;
    for (database, pool) in databases.into_inner().unwrap() {
        pool.close().await;
        database.gone().await;
    }
}
