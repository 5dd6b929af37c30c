//! `Admin::verify` against databases that somebody's hand was in, or a restore from two backups.

use std::time::Duration;

use mainstay_outbox::{
    Admin, DeadCause, ErrorKind, Event, Filter, KeyPolicy, MemorySink, OutboxDb, Outcome, Severity,
    Thresholds, migrate,
};
use sqlx::{AssertSqlSafe, Executor, Pool};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{on_each, outbox, put, quick, until};

on_each!(
    a_database_as_relays_leave_it_is_sound,
    a_message_in_a_lane_that_is_not_there_is_found,
    a_message_in_another_keys_lane_is_found,
    a_lane_that_is_gone_is_found_and_put_back_by_migrate,
    a_message_that_is_pending_and_dead_is_found,
    a_key_that_is_parked_without_letters_is_found,
    letters_of_a_key_that_is_parked_no_longer_are_found,
    a_key_that_is_parked_for_nothing_is_found,
    lanes_of_relays_that_are_gone_are_found,
    tables_that_newer_code_has_migrated_are_found,
    tables_that_newer_code_has_migrated_are_not_changed,
    tables_that_are_not_there_are_to_be_migrated,
    a_letter_without_its_history_is_still_one,
);

/// A hand in the tables.
trait Hand: OutboxDb {
    /// A time that is over.
    const LONG_AGO: &str = "'2020-01-01 00:00:00'";

    /// One statement that says the same on every database. How many rows it met.
    async fn hand(pool: &Pool<Self>, sql: &str) -> u64;
}

macro_rules! hand {
    ($db:ty $(, $long_ago:literal)?) => {
        impl Hand for $db {
            $(const LONG_AGO: &str = $long_ago;)?

            async fn hand(pool: &Pool<Self>, sql: &str) -> u64 {
                let statement = AssertSqlSafe(sql.to_owned());
                let done = pool.execute(statement).await.unwrap();
                done.rows_affected()
            }
        }
    };
}
hand!(sqlx::Postgres);
hand!(sqlx::Sqlite, "0");
#[cfg(feature = "mysql")]
hand!(sqlx::MySql);

/// Four lanes, in which: a key that is parked, with a letter and one that was set aside; another key with a message that is
/// pending.
async fn used<Db: Hand>(pool: &Pool<Db>) -> Admin<Db> {
    let outbox = outbox(pool, 4).await;
    let sink = MemorySink::new().respond(|message| match message.subject() {
        Some("bad") => Outcome::reject("no"),
        _ => Outcome::Acked,
    });
    let relay = quick(pool, &outbox)
        .key_policy(KeyPolicy::Park)
        .sink("*", sink)
        .build()
        .await
        .unwrap()
        .spawn(CancellationToken::new());
    let of = |key: &str, name: &str| Event::new("t").key(key).subject(name);
    put(
        pool,
        &outbox,
        vec![of("k", "bad"), of("k", "next"), of("o", "good")],
    )
    .await;
    let admin = Admin::new(pool.clone());
    until("the key is parked with what followed", async || {
        let lag = admin.lag().await.unwrap();
        (lag.pending, lag.dead) == (0, 2)
    })
    .await;
    relay.drain(Duration::from_secs(5)).await;
    put(pool, &outbox, vec![of("o", "pending")]).await;
    admin
}

async fn found<Db: Hand>(admin: &Admin<Db>) -> Vec<(&'static str, Severity, u64)> {
    let findings = admin.verify().await.unwrap();
    let told = findings.iter();
    told.map(|one| (one.check, one.severity, one.count))
        .collect()
}

async fn a_database_as_relays_leave_it_is_sound<Db: Hand>(pool: Pool<Db>) {
    let admin = used(&pool).await;
    assert_eq!(found(&admin).await, []);
}

async fn a_message_in_a_lane_that_is_not_there_is_found<Db: Hand>(pool: Pool<Db>) {
    let admin = used(&pool).await;
    for lane in ["99", "-1"] {
        let sql = format!("UPDATE mainstay_outbox_message SET lane = {lane}");
        assert_eq!(Db::hand(&pool, &sql).await, 1);
        assert_eq!(
            found(&admin).await,
            [("stray_messages", Severity::Error, 1)]
        );
    }
}

async fn a_message_in_another_keys_lane_is_found<Db: Hand>(pool: Pool<Db>) {
    let admin = used(&pool).await;
    let moved = "UPDATE mainstay_outbox_message SET lane = (lane + 1) % 4";
    assert_eq!(Db::hand(&pool, moved).await, 1);
    assert_eq!(
        found(&admin).await,
        [("misplaced_keys", Severity::Error, 1)]
    );
}

async fn a_lane_that_is_gone_is_found_and_put_back_by_migrate<Db: Hand>(pool: Pool<Db>) {
    let admin = used(&pool).await;
    let gone = "DELETE FROM mainstay_outbox_lane WHERE lane = 2";
    assert_eq!(Db::hand(&pool, gone).await, 1);
    assert_eq!(found(&admin).await, [("lane_rows", Severity::Error, 3)]);
    migrate(&pool).await.unwrap();
    assert_eq!(found(&admin).await, []);
}

async fn a_message_that_is_pending_and_dead_is_found<Db: Hand>(pool: Pool<Db>) {
    let admin = used(&pool).await;
    let both = "INSERT INTO mainstay_outbox_dead
            (id, lane, event_id, source, type, topic, time, ordered, headers, payload, enqueued_at, attempts, cause, reason,
             failures, died_at)
        SELECT id, lane, event_id, source, type, topic, time, ordered, headers, payload, enqueued_at, 1, 'rejected', 'no', '[]',
             enqueued_at
        FROM mainstay_outbox_message";
    assert_eq!(Db::hand(&pool, both).await, 1);
    assert_eq!(
        found(&admin).await,
        [("pending_and_dead", Severity::Error, 1)]
    );
}

async fn a_key_that_is_parked_without_letters_is_found<Db: Hand>(pool: Pool<Db>) {
    let admin = used(&pool).await;
    assert_eq!(Db::hand(&pool, "DELETE FROM mainstay_outbox_dead").await, 2);
    assert_eq!(
        found(&admin).await,
        [("parked_without_letters", Severity::Error, 1)]
    );
}

async fn letters_of_a_key_that_is_parked_no_longer_are_found<Db: Hand>(pool: Pool<Db>) {
    let admin = used(&pool).await;
    assert_eq!(
        Db::hand(&pool, "DELETE FROM mainstay_outbox_parked").await,
        1
    );
    let found = found(&admin).await;
    assert_eq!(found, [("letters_left_behind", Severity::Warning, 1)]);
}

async fn a_key_that_is_parked_for_nothing_is_found<Db: Hand>(pool: Pool<Db>) {
    let admin = used(&pool).await;
    let given_up = "DELETE FROM mainstay_outbox_dead WHERE cause <> 'parked'";
    assert_eq!(Db::hand(&pool, given_up).await, 1);
    let found = found(&admin).await;
    assert_eq!(found, [("parked_for_nothing", Severity::Warning, 1)]);
}

async fn lanes_of_relays_that_are_gone_are_found<Db: Hand>(pool: Pool<Db>) {
    let admin = used(&pool).await;
    let minute = Duration::from_secs(60);
    Db::acquire(pool.clone(), Uuid::now_v7(), minute, 3)
        .await
        .unwrap();
    assert_eq!(found(&admin).await, []);
    let over = format!(
        "UPDATE mainstay_outbox_lane SET lease_until = {} WHERE lease_until IS NOT NULL",
        Db::LONG_AGO
    );
    assert_eq!(Db::hand(&pool, &over).await, 3);
    assert_eq!(found(&admin).await, [("no_relay", Severity::Warning, 3)]);
}

async fn tables_that_newer_code_has_migrated_are_found<Db: Hand>(pool: Pool<Db>) {
    let admin = used(&pool).await;
    let newer = "INSERT INTO mainstay_outbox_migrations (version) VALUES (99)";
    assert_eq!(Db::hand(&pool, newer).await, 1);
    assert_eq!(found(&admin).await, [("schema", Severity::Error, 1)]);
}

/// Rows that are moved are copied column by column: what newer code has added would be lost.
async fn tables_that_newer_code_has_migrated_are_not_changed<Db: Hand>(pool: Pool<Db>) {
    let admin = used(&pool).await;
    assert!(admin.pause("u").await.unwrap());
    let newer = "INSERT INTO mainstay_outbox_migrations (version) VALUES (99)";
    assert_eq!(Db::hand(&pool, newer).await, 1);
    for refused in [
        admin.redrive(Filter::all()).await.map(drop),
        admin.discard(Filter::all()).await.map(drop),
        admin.replay(Filter::all()).await.map(drop),
        admin.pause("t").await.map(drop),
        admin.resume("u").await.map(drop),
    ] {
        let kind = refused.expect_err("newer tables").kind();
        assert!(
            matches!(kind, ErrorKind::NewerSchema { found: 99, .. }),
            "{kind:?}"
        );
    }
    let lag = admin.lag().await.unwrap();
    assert_eq!((lag.pending, lag.dead, lag.paused), (1, 2, 1));
}

async fn tables_that_are_not_there_are_to_be_migrated<Db: Hand>(pool: Pool<Db>) {
    let admin = Admin::new(pool);
    for refused in [
        admin.redrive(Filter::all()).await.map(drop),
        admin.pause("t").await.map(drop),
        admin.lag().await.map(drop),
        admin.lanes().await.map(drop),
        admin.health(&Thresholds::default()).await.map(drop),
    ] {
        let kind = refused.expect_err("no tables").kind();
        assert_eq!(kind, ErrorKind::NotMigrated);
    }
}

/// What operators read of it is what can be read; it can be redriven all the same.
async fn a_letter_without_its_history_is_still_one<Db: Hand>(pool: Pool<Db>) {
    let admin = used(&pool).await;
    let given_up = async || {
        let letters = admin.dead(Filter::cause(DeadCause::Rejected), 10).await;
        let letters = letters.unwrap();
        assert_eq!(letters.len(), 1);
        letters[0].failures().len()
    };
    assert_eq!(given_up().await, 1);
    for junk in ["", "[[1,", "null"] {
        let sql = format!("UPDATE mainstay_outbox_dead SET failures = '{junk}'");
        assert_eq!(Db::hand(&pool, &sql).await, 2);
        assert_eq!(given_up().await, 0, "{junk:?}");
        assert_eq!(found(&admin).await, []);
    }
    assert_eq!(admin.redrive(Filter::all()).await.unwrap(), 2);
    assert_eq!(found(&admin).await, []);
}
