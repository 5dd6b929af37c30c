//! What MySQL and MariaDB keep per connection, and what ends a transaction there unasked.

use std::time::Duration;

use http::StatusCode;
use mainstay_idempotency::store::{Claim, Claimed};
use mainstay_idempotency::{ErrorKind, Fingerprint, IdempotencyDb, Key, Recorded, Scope, Wait};
use sqlx::{MySql, Pool};
use tokio::time::Instant;

use crate::app::App;
use crate::db::{self, TestDb};

const LONG: Duration = Duration::from_secs(60);

fn claim_of(body: &str) -> Claim {
    Claim {
        scope: Scope::new("t", "", "o"),
        key: Key::new("k").unwrap(),
        fingerprint: Fingerprint::new("POST", "/", body),
    }
}

async fn claimed(pool: &Pool<MySql>, body: &str) -> Claimed {
    let mut tx = MySql::begin(pool).await.unwrap();
    let found = MySql::claim(&mut tx, &claim_of(body), LONG, Wait::No)
        .await
        .unwrap();
    MySql::rollback(tx).await;
    found
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn a_dropped_claim_is_free_when_its_connection_is_used_again() {
    db::on::<MySql, _>(|pool| async move {
        let mut tx = MySql::begin(&pool).await.unwrap();
        let fresh = MySql::claim(&mut tx, &claim_of(""), LONG, Wait::No).await;
        assert!(matches!(fresh.unwrap(), Claimed::Fresh { .. }));
        drop(tx);
        // One transaction on each connection of the pool.
        let mut all = Vec::new();
        for _ in 0..pool.options().get_max_connections() {
            all.push(MySql::begin(&pool).await.unwrap());
        }
        for tx in all {
            MySql::rollback(tx).await;
        }
        assert!(matches!(claimed(&pool, "").await, Claimed::Fresh { .. }));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn a_dropped_claim_ends_with_its_time_when_nobody_uses_its_connection() {
    db::on::<MySql, _>(|pool| async move {
        let lonely = sqlx::mysql::MySqlPoolOptions::new()
            .max_connections(1)
            .connect_with((*pool.connect_options()).clone())
            .await
            .unwrap();
        let mut tx = MySql::begin(&lonely).await.unwrap();
        let time = Duration::from_secs(1);
        let fresh = MySql::claim(&mut tx, &claim_of(""), time, Wait::No).await;
        assert!(matches!(fresh.unwrap(), Claimed::Fresh { .. }));
        drop(tx);
        assert_eq!(claimed(&pool, "").await, Claimed::InFlight);
        let deadline = Instant::now() + Duration::from_secs(10);
        while claimed(&pool, "").await == Claimed::InFlight {
            assert!(
                Instant::now() < deadline,
                "the server closes it in a second"
            );
        }
        lonely.close().await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn what_a_key_is_held_for_is_told() {
    db::on::<MySql, _>(|pool| async move {
        let mut tx = MySql::begin(&pool).await.unwrap();
        let fresh = MySql::claim(&mut tx, &claim_of("this"), LONG, Wait::No).await;
        assert!(matches!(fresh.unwrap(), Claimed::Fresh { .. }));
        assert_eq!(claimed(&pool, "this").await, Claimed::InFlight);
        assert_eq!(claimed(&pool, "that").await, Claimed::OtherInFlight);
        MySql::rollback(tx).await;
        assert!(matches!(
            claimed(&pool, "that").await,
            Claimed::Fresh { .. }
        ));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn a_key_in_one_database_does_not_hold_up_another() {
    db::on::<MySql, _>(|one| async move {
        db::on::<MySql, _>(|two| async move {
            let mut tx = MySql::begin(&one).await.unwrap();
            let fresh = MySql::claim(&mut tx, &claim_of(""), LONG, Wait::No).await;
            assert!(matches!(fresh.unwrap(), Claimed::Fresh { .. }));
            assert!(matches!(claimed(&two, "").await, Claimed::Fresh { .. }));
            MySql::rollback(tx).await;
        })
        .await;
    })
    .await;
}

/// A DDL statement commits the transaction it stands in.
#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn no_record_is_written_behind_a_commit_nobody_asked_for() {
    db::on::<MySql, _>(|pool| async move {
        let mut tx = MySql::begin(&pool).await.unwrap();
        MySql::claim(&mut tx, &claim_of(""), LONG, Wait::No)
            .await
            .unwrap();
        MySql::raw(&mut tx, "create table ended (a int); begin")
            .await
            .unwrap();
        let recorded = Recorded {
            status: 201,
            headers: http::HeaderMap::new(),
            body: bytes::Bytes::new(),
        };
        let refused = MySql::record(&mut tx, &claim_of(""), &recorded).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::TransactionEnded);
        MySql::rollback(tx).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn a_connection_killed_under_the_handler_leaves_nothing() {
    db::on::<MySql, _>(|pool| async move {
        let app = App::new(pool.clone());
        let cut = tokio::spawn({
            let app = app.clone();
            async move { app.post("k", "wait").await }
        });
        app.world.entered.notified().await;
        let holder: u64 = sqlx::query_scalar(
            "select cast(trx_mysql_thread_id as unsigned) from information_schema.innodb_trx t \
             join information_schema.processlist p on p.id = t.trx_mysql_thread_id where p.db = database()",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        let kill = sqlx::AssertSqlSafe(format!("kill {holder}"));
        sqlx::raw_sql(kill).execute(&pool).await.unwrap();
        app.world.gate.add_permits(1);
        let answer = cut.await.unwrap();
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "idempotency_store_unavailable"
            )
        );
        assert_eq!(app.effects("wait").await, 0);
        app.world.gate.add_permits(1);
        assert_eq!(app.post("k", "wait").await.status, StatusCode::CREATED);
        assert_eq!(app.effects("wait").await, 1);
    })
    .await;
}
