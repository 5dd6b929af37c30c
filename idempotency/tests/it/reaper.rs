//! What is old goes, what is young or unfinished stays.

use std::time::Duration;

use bytes::Bytes;
use mainstay_idempotency::leased::{Claimed, LeasedDb, Leases, Work};
use mainstay_idempotency::store::Claim;
use mainstay_idempotency::{
    Fingerprint, Inbox, Key, Reaped, Reaper, Recorded, RetentionTooShort, Scope, Seen,
};
use sqlx::Pool;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::db::{TestDb, on_each};

const DAY: Duration = Duration::from_hours(24);

on_each!(
    a_round_deletes_all_that_is_old_batch_by_batch,
    a_table_that_cannot_be_reaped_does_not_keep_the_others,
    two_reapers_share_the_work,
    a_reaper_that_is_told_to_stop_stops
);

/// As if everything that is there had been written ten days ago. What is not done (state 0) is held to this day.
async fn age<D: TestDb>(pool: &Pool<D>) {
    let statements = match D::NAME {
        "SQLite" => [
            "update mainstay_key set created_at = created_at - 864000000",
            "update mainstay_lease set created_at = created_at - 864000000, lease_until = lease_until - 864000000 * state",
            "update mainstay_inbox set created_at = created_at - 864000000",
        ],
        "MySQL" => [
            "update mainstay_key set created_at = created_at - interval 10 day",
            "update mainstay_lease set created_at = created_at - interval 10 day, lease_until = lease_until - interval 10 * state day",
            "update mainstay_inbox set created_at = created_at - interval 10 day",
        ],
        _ => [
            "update mainstay_key set created_at = created_at - interval '10 days'",
            "update mainstay_lease set created_at = created_at - interval '10 days', lease_until = lease_until - interval '10 days' * state",
            "update mainstay_inbox set created_at = created_at - interval '10 days'",
        ],
    };
    let mut conn = pool.acquire().await.unwrap();
    for statement in statements {
        D::raw(&mut conn, statement).await.unwrap();
    }
}

async fn write<D: TestDb + LeasedDb>(pool: &Pool<D>, name: &str) {
    assert!(!App::new(pool.clone()).post(name, "ok").await.replayed());
    let mut tx = D::begin(pool).await.unwrap();
    assert_eq!(Inbox::once(&mut *tx, "c", name).await.unwrap(), Seen::First);
    D::commit(tx).await.unwrap();
    for (key, completes) in [
        (format!("{name} done"), true),
        (format!("{name} open"), false),
    ] {
        let claim = Claim {
            scope: Scope::new("t", "", "reaper"),
            key: Key::new(key).unwrap(),
            fingerprint: Fingerprint::new("POST", "/", ""),
        };
        let leases = Leases::new(pool.clone());
        let Claimed::Run(lease) = leases.claim(&claim, &Work::default()).await.unwrap() else {
            panic!("new");
        };
        if completes {
            let recorded = Recorded {
                status: 200,
                headers: http::HeaderMap::new(),
                body: Bytes::new(),
            };
            lease.complete(recorded).await.unwrap();
        }
    }
}

async fn a_round_deletes_all_that_is_old_batch_by_batch<D: TestDb + LeasedDb>(pool: Pool<D>) {
    for name in ["a", "b", "c", "d", "e"] {
        write(&pool, name).await;
    }
    age(&pool).await;
    write(&pool, "young").await;
    let reaper = Reaper::new(pool.clone()).keys(DAY).batch_max(2);
    let all = Reaped {
        days: 0,
        keys: 5,
        leases: 5,
        inbox: 5,
    };
    assert_eq!(reaper.run_once().await.unwrap(), all);
    assert_eq!(reaper.run_once().await.unwrap(), Reaped::default());
    let app = App::new(pool.clone());
    assert!(app.post("young", "ok").await.replayed());
    assert!(!app.post("a", "ok").await.replayed());
    let longer = Reaper::new(pool).keys(Duration::MAX);
    assert_eq!(longer.run_once().await.unwrap(), Reaped::default());
}

async fn a_table_that_cannot_be_reaped_does_not_keep_the_others<D: TestDb + LeasedDb>(
    pool: Pool<D>,
) {
    write(&pool, "a").await;
    age(&pool).await;
    let mut conn = pool.acquire().await.unwrap();
    D::raw(&mut conn, "alter table mainstay_lease rename to elsewhere")
        .await
        .unwrap();
    drop(conn);
    let reaper = Reaper::new(pool.clone()).keys(DAY);
    assert!(reaper.run_once().await.is_err());
    let mut conn = pool.acquire().await.unwrap();
    D::raw(&mut conn, "alter table elsewhere rename to mainstay_lease")
        .await
        .unwrap();
    drop(conn);
    let rest = Reaped {
        leases: 1,
        ..Reaped::default()
    };
    assert_eq!(reaper.run_once().await.unwrap(), rest);
}

async fn two_reapers_share_the_work<D: TestDb + LeasedDb>(pool: Pool<D>) {
    for n in 0..10 {
        write(&pool, &format!("k{n}")).await;
    }
    age(&pool).await;
    let reapers = (0..2).map(|_| {
        let reaper = Reaper::new(pool.clone()).batch_max(1);
        async move {
            // A single writer's place may be taken for a while, and InnoDB may find a deadlock: the next round goes on.
            let mut all = Reaped::default();
            loop {
                let Ok(round) = reaper.run_once().await else {
                    continue;
                };
                if round == Reaped::default() {
                    return all;
                }
                all.keys += round.keys;
                all.inbox += round.inbox;
            }
        }
    });
    for reaped in futures_util::future::join_all(reapers).await {
        assert!(reaped.keys <= 10 && reaped.inbox <= 10);
    }
    let app = App::new(pool.clone());
    for n in 0..10 {
        assert!(!app.post(&format!("k{n}"), "ok").await.replayed());
    }
}

async fn a_reaper_that_is_told_to_stop_stops<D: TestDb + LeasedDb>(pool: Pool<D>) {
    write(&pool, "k").await;
    age(&pool).await;
    let stop = CancellationToken::new();
    let reaping = tokio::spawn(Reaper::new(pool.clone()).run(stop.clone()));
    let app = App::new(pool.clone());
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while app.post("k", "ok").await.replayed() {
        assert!(tokio::time::Instant::now() < deadline, "it goes");
    }
    stop.cancel();
    reaping.await.unwrap();
    let stopped = CancellationToken::new();
    stopped.cancel();
    Reaper::new(pool).run(stopped).await;
}

#[tokio::test]
async fn an_inbox_is_not_made_to_forget_before_its_source_gives_up() {
    let pool = sqlx::SqlitePool::connect_lazy("sqlite::memory:").unwrap();
    let three_days = Duration::from_mins(75 * 60 + 35);
    let refused = Reaper::new(pool.clone()).inbox(3 * DAY, three_days);
    assert_eq!(
        refused.unwrap_err(),
        RetentionTooShort {
            retention: 3 * DAY,
            redelivered: three_days
        }
    );
    assert!(Reaper::new(pool).inbox(7 * DAY, three_days).is_ok());
}
