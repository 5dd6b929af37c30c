//! Migrations beside those who work.

use std::time::Duration;

#[cfg(feature = "mysql")]
use mainstay_outbox::migrate_with_lanes;
use mainstay_outbox::{Event, migrate};
use tokio::time::timeout;

#[cfg(feature = "mysql")]
use crate::support::outbox;
use crate::support::{put, until};

/// Longer than anybody who waits for nothing takes, on a machine with other things to do.
const SOON: Duration = Duration::from_secs(20);

mod postgres {
    use mainstay_outbox::{ErrorKind, Outbox, OutboxConfig, store::Migrate};
    use sqlx::{PgPool, Postgres, Transaction};

    use super::*;
    use crate::support::postgres;

    /// An outbox of version 1, as released code left it, with four lanes.
    async fn version_1(pool: &PgPool) {
        sqlx::raw_sql(include_str!("../../migrations/postgres/0001_outbox.sql"))
            .execute(pool)
            .await
            .unwrap();
        sqlx::raw_sql(
            "CREATE TABLE mainstay_outbox_migrations (
                 version    integer PRIMARY KEY,
                 applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
             );
             INSERT INTO mainstay_outbox_migrations (version) VALUES (1);
             INSERT INTO mainstay_outbox_settings (lanes) VALUES (4);
             INSERT INTO mainstay_outbox_lane (lane) SELECT generate_series(0, 3)",
        )
        .execute(pool)
        .await
        .unwrap();
    }

    /// What code of version 1 enqueues with.
    async fn enqueued(pool: &PgPool) {
        sqlx::query(
            "INSERT INTO mainstay_outbox_message (lane, event_id, source, type, topic, time, headers, payload)
             VALUES (0, gen_random_uuid(), '/', 't', 't', now(), '[]', '')",
        )
        .execute(pool)
        .await
        .unwrap();
    }

    /// What a dump holds on every table, for as long as it takes.
    async fn dump(pool: &PgPool) -> Transaction<'static, Postgres> {
        let mut dump = pool.begin().await.unwrap();
        sqlx::raw_sql("LOCK TABLE mainstay_outbox_message IN ACCESS SHARE MODE")
            .execute(&mut *dump)
            .await
            .unwrap();
        dump
    }

    async fn migration_waits(pool: &PgPool) -> bool {
        sqlx::query_scalar(
            "SELECT EXISTS (
                 SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                 WHERE d.datname = current_database() AND l.mode = 'AccessExclusiveLock' AND NOT l.granted)",
        )
        .fetch_one(pool)
        .await
        .unwrap()
    }

    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
    async fn producers_go_on_while_a_migration_waits_behind_a_dump() {
        let database = postgres().await;
        let pool = database.pool.clone();
        version_1(&pool).await;
        let dump = dump(&pool).await;
        let migration = tokio::spawn({
            let pool = pool.clone();
            async move { migrate(&pool).await }
        });
        for _ in 0..2 {
            until("the migration waits", async || migration_waits(&pool).await).await;
            timeout(SOON, enqueued(&pool))
                .await
                .expect("producers go on");
        }
        assert!(!migration.is_finished());
        dump.rollback().await.unwrap();
        migration.await.unwrap().unwrap();
        assert_eq!(Postgres::lanes(pool.clone()).await.unwrap(), 4);
        put(
            &pool,
            &Outbox::new(OutboxConfig::default()),
            vec![Event::new("t")],
        )
        .await;
        database.gone().await;
    }

    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
    async fn a_migration_that_gets_no_lock_says_so_and_leaves_nothing() {
        let database = postgres().await;
        let pool = database.pool.clone();
        version_1(&pool).await;
        let dump = dump(&pool).await;
        let patience = Duration::from_secs(1);
        let given_up = timeout(SOON, Postgres::migrate(pool.clone(), 4, false, patience)).await;
        let refused = given_up.expect("it gives up").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::LockTimeout, "{refused:?}");
        assert!(std::error::Error::source(&refused).is_some());
        let version: i32 =
            sqlx::query_scalar("SELECT max(version) FROM mainstay_outbox_migrations")
                .fetch_one(&pool)
                .await
                .unwrap();
        assert_eq!(version, 1);
        dump.rollback().await.unwrap();
        migrate(&pool).await.unwrap();
        database.gone().await;
    }

    /// Who waits for its turn sees what the one before it has done, whatever the application's default is.
    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
    async fn racing_migrations_agree_at_any_isolation() {
        let database = postgres().await;
        let options = database.pool.connect_options().as_ref().clone();
        let strict = sqlx::postgres::PgPoolOptions::new()
            .max_connections(4)
            .connect_with(options.options([("default_transaction_isolation", "serializable")]))
            .await
            .unwrap();
        let racing: Vec<_> = (0..4)
            .map(|_| {
                let pool = strict.clone();
                tokio::spawn(async move { migrate(&pool).await })
            })
            .collect();
        for one in racing {
            one.await.unwrap().unwrap();
        }
        strict.close().await;
        database.gone().await;
    }
}

#[cfg(feature = "mysql")]
mod mariadb {
    use mainstay_outbox::{ErrorKind, store::Migrate};
    use sqlx::{MySql, MySqlPool};

    use super::*;
    use crate::support::mariadb;

    async fn migration_waits(pool: &MySqlPool) -> bool {
        sqlx::query_scalar(
            "SELECT EXISTS (
                 SELECT 1 FROM information_schema.processlist
                 WHERE db = database() AND state = 'Waiting for table metadata lock' AND info LIKE 'ALTER%')",
        )
        .fetch_one(pool)
        .await
        .unwrap()
    }

    /// A migration that died before it had noted that it was done does it again, with an ALTER of what producers write to.
    async fn died_before_the_end(pool: &MySqlPool) {
        sqlx::raw_sql("DELETE FROM mainstay_outbox_migrations")
            .execute(pool)
            .await
            .unwrap();
    }

    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
    async fn producers_go_on_while_a_migration_waits_behind_a_reader() {
        let database = mariadb().await;
        let pool = database.pool.clone();
        let outbox = outbox(&pool, 4).await;
        died_before_the_end(&pool).await;
        let mut reader = pool.begin().await.unwrap();
        sqlx::query("SELECT 1 FROM mainstay_outbox_message")
            .execute(&mut *reader)
            .await
            .unwrap();
        let migration = tokio::spawn({
            let pool = pool.clone();
            async move { migrate(&pool).await }
        });
        for _ in 0..2 {
            until("the migration waits", async || migration_waits(&pool).await).await;
            timeout(SOON, put(&pool, &outbox, vec![Event::new("t")]))
                .await
                .expect("producers go on");
        }
        assert!(!migration.is_finished());
        let patience = Duration::from_secs(1);
        let given_up = timeout(SOON, MySql::migrate(pool.clone(), 4, false, patience)).await;
        let refused = given_up.expect("it gives up").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::LockTimeout, "{refused:?}");
        reader.rollback().await.unwrap();
        migration.await.unwrap().unwrap();
        assert_eq!(MySql::lanes(pool.clone()).await.unwrap(), 4);
        database.gone().await;
    }

    /// The lock that lets one process migrate at a time.
    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
    async fn a_migration_whose_turn_does_not_come_says_so() {
        let database = mariadb().await;
        let pool = database.pool.clone();
        let mut other = pool.acquire().await.unwrap();
        sqlx::query(
            "SELECT get_lock(sha2(concat('mainstay outbox migrations ', database()), 256), 0)",
        )
        .execute(&mut *other)
        .await
        .unwrap();
        let patience = Duration::from_secs(1);
        let given_up = timeout(SOON, MySql::migrate(pool.clone(), 4, false, patience)).await;
        let refused = given_up.expect("it gives up").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::LockTimeout, "{refused:?}");
        other.close().await.unwrap();
        migrate_with_lanes(&pool, 4).await.unwrap();
        database.gone().await;
    }
}
