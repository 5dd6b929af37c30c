//! What is different on MariaDB: locks on keys, errors by number, sessions that are set up in odd ways.

use std::time::Duration;

use mainstay_outbox::{
    Admin, EnqueueError, ErrorKind, Event, EventId, Ordering, Outbox, OutboxConfig, conformance,
    store::{AskHeads, Claim, Held, InFlight, Lanes, Look},
};
use sqlx::{MySql, MySqlConnection, MySqlPool, mysql::MySqlPoolOptions};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::support::{mariadb, outbox, put, until};

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

/// Two lanes, held.
async fn lanes(pool: &MySqlPool) -> Vec<Held> {
    let minute = Duration::from_secs(60);
    let grants = MySql::acquire(pool.clone(), Uuid::now_v7(), minute, 2)
        .await
        .unwrap();
    let held = |grant: &mainstay_outbox::store::Grant| Held {
        lane: grant.lane,
        epoch: grant.epoch,
    };
    grants.iter().map(held).collect()
}

/// Until a statement in this database waits for a lock.
async fn somebody_waits(pool: &MySqlPool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let waits: bool = sqlx::query_scalar(
            "SELECT EXISTS (
                 SELECT 1 FROM information_schema.innodb_trx t
                 JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id
                 WHERE t.trx_state = 'LOCK WAIT' AND p.db = database())",
        )
        .fetch_one(pool)
        .await
        .unwrap();
        if waits {
            return;
        }
        assert!(Instant::now() < deadline, "nobody ever waits");
        sleep(Duration::from_millis(150)).await;
    }
}

/// InnoDB ends a deadlock at the cost of who has written least: a relay, beside a transaction that has written a thousand rows.
#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn a_relay_that_loses_a_deadlock_does_it_again_at_once() {
    let database = mariadb().await;
    let pool = database.pool.clone();
    let outbox = outbox(&pool, 2).await;
    let held = lanes(&pool).await;
    let mut other = pool.begin().await.unwrap();
    let events = (0..1_000).map(|n| Event::new("t").key(format!("{n}")));
    outbox.enqueue_many(&mut other, events).await.unwrap();
    let lock = "SELECT lane FROM mainstay_outbox_lane WHERE lane = ? FOR UPDATE";
    sqlx::query(lock)
        .bind(1)
        .execute(&mut *other)
        .await
        .unwrap();
    let minute = Duration::from_secs(60);
    let renewed = tokio::spawn(MySql::renew(pool.clone(), minute, held));
    somebody_waits(&pool).await;
    sqlx::query(lock)
        .bind(0)
        .execute(&mut *other)
        .await
        .unwrap();
    other.commit().await.unwrap();
    assert_eq!(renewed.await.unwrap().unwrap(), [0, 1]);
    database.gone().await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn an_operator_waits_for_a_lock_but_not_for_long() {
    let database = mariadb().await;
    outbox(&database.pool, 2).await;
    let options = database.pool.connect_options().as_ref().clone();
    let own = MySqlPoolOptions::new().max_connections(1);
    let own = own.connect_with(options).await.unwrap();
    let waits_for: u64 = sqlx::query_scalar("SELECT @@innodb_lock_wait_timeout")
        .fetch_one(&own)
        .await
        .unwrap();
    assert!(waits_for > 20, "or this test says nothing");
    let admin = Admin::new(own.clone());
    let mut other = database.pool.begin().await.unwrap();
    sqlx::query("INSERT INTO mainstay_outbox_pause (pattern, actor) VALUES ('t', 'another')")
        .execute(&mut *other)
        .await
        .unwrap();
    let began = Instant::now();
    let refused = admin.pause("t").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LockTimeout, "{refused:?}");
    assert!(began.elapsed() < Duration::from_secs(20));
    other.rollback().await.unwrap();
    assert!(admin.pause("t").await.unwrap());
    let after: u64 = sqlx::query_scalar("SELECT @@innodb_lock_wait_timeout")
        .fetch_one(&own)
        .await
        .unwrap();
    assert_eq!(
        after, waits_for,
        "the application's connection is as it was"
    );
    own.close().await;
    database.gone().await;
}

/// Where several servers take writes each hands out every n-th id, in no order with the others.
#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn ids_of_several_servers_are_found_in_this_databases_words() {
    let database = mariadb().await;
    outbox(&database.pool, 2).await;
    let options = database.pool.connect_options().as_ref().clone();
    let own = MySqlPoolOptions::new().max_connections(1);
    let own = own.connect_with(options).await.unwrap();
    sqlx::query("SET auto_increment_increment = 3")
        .execute(&own)
        .await
        .unwrap();
    let findings = Admin::new(own.clone()).verify().await.unwrap();
    let [finding] = findings.as_slice() else {
        panic!("{findings:?}");
    };
    assert_eq!((finding.check, finding.count), ("id_cache", 3));
    let said = &finding.detail;
    assert!(
        said.contains("auto_increment_increment") && !said.contains("SEQUENCE"),
        "{said}"
    );
    own.close().await;
    database.gone().await;
}

/// An id is drawn, and its row waits for a lock on the gap where it belongs: nobody sees it, and later ids are written.
#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn a_mark_does_not_pass_an_id_whose_statement_is_held_up() {
    let database = mariadb().await;
    let pool = database.pool.clone();
    let outbox = outbox(&pool, 2).await;
    let held = lanes(&pool).await;
    // A key for each lane.
    let key = |n: u32| Event::new("t").key(n.to_string()).subject(n.to_string());
    put(&pool, &outbox, (0..20).map(key).collect()).await;
    let rows: Vec<(i32, String)> =
        sqlx::query_as("SELECT lane, subject FROM mainstay_outbox_message ORDER BY id")
            .fetch_all(&pool)
            .await
            .unwrap();
    let of_lane = |lane| rows.iter().find(|row| row.0 == lane).unwrap().1.clone();
    let (slow, quick) = (of_lane(0), of_lane(1));

    let mut blocker = pool.begin().await.unwrap();
    let lock =
        "SELECT id FROM mainstay_outbox_message FORCE INDEX (PRIMARY) WHERE lane = 0 FOR UPDATE";
    sqlx::query(lock).execute(&mut *blocker).await.unwrap();
    let writer = tokio::spawn({
        let (pool, outbox) = (pool.clone(), outbox.clone());
        async move {
            put(
                &pool,
                &outbox,
                vec![Event::new("t").key(slow).subject("slow")],
            )
            .await;
        }
    });
    somebody_waits(&pool).await;
    put(
        &pool,
        &outbox,
        vec![Event::new("t").key(quick).subject("quick")],
    )
    .await;
    let batch = InFlight {
        held: held[1],
        batch: 1,
        rewinds: 0,
        ids: vec![22],
    };
    let recorded = MySql::record(pool.clone(), Duration::from_secs(60), vec![batch]).await;
    let stamp = recorded.unwrap().stamp.unwrap();
    let ended_below = async || {
        let ask = AskHeads {
            lanes: vec![Look::new(0, 0)],
            skip_topics: Vec::new(),
            window: 1,
            running: true,
            held: false,
            newest: false,
        };
        let heads = MySql::heads(pool.clone(), ask).await;
        heads.unwrap().ended_below
    };
    let now = async || {
        let now: i64 =
            sqlx::query_scalar("SELECT timestampdiff(MICROSECOND, '1970-01-01', utc_timestamp(6))")
                .fetch_one(&pool)
                .await
                .unwrap();
        now.unsigned_abs()
    };
    while now().await < stamp + 500_000 {
        assert!(
            ended_below().await < stamp,
            "the row may come at any moment"
        );
        sleep(Duration::from_millis(100)).await;
    }
    assert!(!writer.is_finished());
    blocker.rollback().await.unwrap();
    writer.await.unwrap();
    until("the mark may pass", async || ended_below().await >= stamp).await;
    let last: Vec<String> = sqlx::query_scalar(
        "SELECT subject FROM mainstay_outbox_message WHERE subject IN ('slow', 'quick') ORDER BY id",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(
        last,
        ["slow", "quick"],
        "it was drawn before the one that was seen"
    );
    database.gone().await;
}

/// A report and a rebuilt index draw no ids of events, however long they take.
#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn a_mark_waits_for_no_report() {
    let database = mariadb().await;
    let pool = database.pool.clone();
    outbox(&pool, 1).await;
    let ended_below = async || {
        let ask = AskHeads {
            lanes: vec![Look::new(0, 0)],
            skip_topics: Vec::new(),
            window: 1,
            running: true,
            held: false,
            newest: false,
        };
        MySql::heads(pool.clone(), ask).await.unwrap().ended_below
    };
    let now = async || {
        let now: i64 =
            sqlx::query_scalar("SELECT timestampdiff(MICROSECOND, '1970-01-01', utc_timestamp(6))")
                .fetch_one(&pool)
                .await
                .unwrap();
        now.unsigned_abs()
    };
    for (text, counts) in [
        (" (SELECT sleep(60))", false),
        ("with t as (select sleep(60) as s) select s from t", false),
        ("DO sleep(60)", true),
    ] {
        let mut conn = pool.acquire().await.unwrap().detach();
        let id: u64 = sqlx::query_scalar("SELECT connection_id()")
            .fetch_one(&mut conn)
            .await
            .unwrap();
        let busy = tokio::spawn(async move { sqlx::raw_sql(text).execute(&mut conn).await });
        until("it has been at it for six seconds", async || {
            let at: Option<i64> = sqlx::query_scalar(
                "SELECT CAST(time AS SIGNED) FROM information_schema.processlist
                 WHERE id = ? AND command = 'Query'",
            )
            .bind(id)
            .fetch_optional(&pool)
            .await
            .unwrap();
            assert!(!busy.is_finished(), "{text}");
            at.is_some_and(|seconds| seconds >= 6)
        })
        .await;
        let before = now().await;
        assert_eq!(ended_below().await < before, counts, "{text}");
        let kill = sqlx::AssertSqlSafe(format!("KILL {id}"));
        sqlx::raw_sql(kill).execute(&pool).await.unwrap();
        _ = busy.await;
    }
    database.gone().await;
}
