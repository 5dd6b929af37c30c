use std::{collections::HashSet, time::Duration};

use sqlx::{Connection, Pool};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{LONG, due, everything, held, migrated, named, names, nothing, put, settle, take};
use crate::store::{Grant, InFlight, OutboxDb, Settlement, Survey};

/// A lease that has run out by the time anybody asks again.
const SHORT: Duration = Duration::from_millis(1);

/// Asks until a lane whose lease is running out is free; the database's clock decides, so there is nothing to await.
async fn take_when_free<Db: OutboxDb>(pool: &Pool<Db>, lease: Duration) -> Grant {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        if let Some(grant) = take(pool, lease, 1).await.first() {
            return *grant;
        }
        assert!(Instant::now() < deadline, "the lease never ran out");
        sleep(Duration::from_millis(2)).await;
    }
}

pub(super) async fn lanes_belong_to_one_relay_at_a_time<Db: OutboxDb>(pool: Pool<Db>) {
    migrated(&pool, 16).await;
    let (a, b) = tokio::join!(take(&pool, LONG, 10), take(&pool, LONG, 10));
    let mut lanes: HashSet<i32> = HashSet::new();
    for grant in a.iter().chain(&b) {
        assert!(
            lanes.insert(grant.lane),
            "lane {} was given twice",
            grant.lane
        );
        assert_eq!((grant.epoch, grant.charged), (1, 0));
    }
    // Two at once may miss lanes that the other had locked; the rest is free.
    let rest = take(&pool, LONG, 16).await;
    assert_eq!(lanes.len() + rest.len(), 16);
    assert!(take(&pool, LONG, 16).await.is_empty(), "all are taken");
}

pub(super) async fn a_lease_that_ran_out_is_taken_with_a_new_epoch<Db: OutboxDb>(pool: Pool<Db>) {
    migrated(&pool, 1).await;
    let first = take_when_free(&pool, SHORT).await;
    let second = take_when_free(&pool, LONG).await;
    assert_eq!((first.epoch, second.epoch), (1, 2));
    Db::release(pool.clone(), vec![held(second)], false)
        .await
        .expect("the lane is released");
    let third = take(&pool, LONG, 1).await;
    assert_eq!(
        third.first().map(|grant| grant.epoch),
        Some(3),
        "released lanes are free at once"
    );
}

pub(super) async fn a_takeover_charges_what_was_in_flight_and_nothing_else<Db: OutboxDb>(
    pool: Pool<Db>,
) {
    let outbox = migrated(&pool, 1).await;
    for name in ["a", "b", "c"] {
        put(&pool, &outbox, named(name)).await;
    }
    let first = take_when_free(&pool, LONG).await;
    let rows = due(&pool, everything([0])).await;
    let ids: Vec<i64> = rows.iter().take(2).map(|row| row.id).collect();
    let batch = InFlight {
        held: held(first),
        batch: 1,
        rewinds: 0,
        ids,
    };
    let kept = Db::record(pool.clone(), SHORT, vec![batch])
        .await
        .expect("the batch is recorded");
    assert_eq!(kept.lanes, [(0, 0)]);

    let second = take_when_free(&pool, LONG).await;
    assert_eq!(second.charged, 2);
    let rows = due(&pool, everything([0])).await;
    let seen: Vec<_> = rows
        .iter()
        .map(|row| (row.attempts, row.suspect, row.message.attempt()))
        .collect();
    assert_eq!(seen, [(1, true, 2), (1, true, 2), (0, false, 1)]);

    // Settled or given back with nothing in flight, a lane charges nobody.
    assert_eq!(settle(&pool, nothing(held(second))).await, [0]);
    Db::release(pool.clone(), vec![held(second)], true)
        .await
        .expect("the lane is released");
    assert_eq!(take_when_free(&pool, LONG).await.charged, 0);
}

/// The answer to a record was lost, so nothing was published; then the relay gave the lane back.
pub(super) async fn what_was_recorded_and_not_attempted_is_not_charged<Db: OutboxDb>(
    pool: Pool<Db>,
) {
    let outbox = migrated(&pool, 1).await;
    put(&pool, &outbox, named("a")).await;
    for (attempted, attempts) in [(false, 0), (true, 1)] {
        let lane = held(take_when_free(&pool, LONG).await);
        let rows = due(&pool, everything([0])).await;
        let batch = InFlight {
            held: lane,
            batch: 1,
            rewinds: 0,
            ids: rows.iter().map(|row| row.id).collect(),
        };
        Db::record(pool.clone(), LONG, vec![batch])
            .await
            .expect("the batch is recorded");
        Db::release(pool.clone(), vec![lane], attempted)
            .await
            .expect("the lane is released");
        let next = take_when_free(&pool, LONG).await;
        assert_eq!(next.charged, u32::from(attempted));
        let rows = due(&pool, everything([0])).await;
        assert_eq!(rows.first().map(|row| row.attempts), Some(attempts));
        Db::release(pool.clone(), vec![held(next)], false)
            .await
            .expect("the lane is released");
    }
}

pub(super) async fn a_zombie_settles_renews_records_and_releases_nothing<Db: OutboxDb>(
    pool: Pool<Db>,
) {
    let outbox = migrated(&pool, 1).await;
    put(&pool, &outbox, named("a")).await;
    let zombie = held(take_when_free(&pool, SHORT).await);
    // Nobody has taken it yet: a lease that merely ran out can be renewed.
    let kept = Db::renew(pool.clone(), SHORT, vec![zombie])
        .await
        .expect("renewing runs");
    assert_eq!(kept, [0]);
    let owner = held(take_when_free(&pool, LONG).await);
    let ids: Vec<i64> = due(&pool, everything([0]))
        .await
        .iter()
        .map(|row| row.id)
        .collect();

    let late = Settlement {
        acked: ids.clone(),
        ..nothing(zombie)
    };
    assert!(
        settle(&pool, late).await.is_empty(),
        "a late ack settles nothing"
    );
    assert_eq!(names(&due(&pool, everything([0])).await), ["a"]);
    let kept = Db::renew(pool.clone(), LONG, vec![zombie])
        .await
        .expect("renewing runs");
    assert!(kept.is_empty());
    let batch = InFlight {
        held: zombie,
        batch: 1,
        rewinds: 0,
        ids: ids.clone(),
    };
    let kept = Db::record(pool.clone(), LONG, vec![batch])
        .await
        .expect("recording runs");
    assert!(kept.lanes.is_empty());
    Db::release(pool.clone(), vec![zombie], false)
        .await
        .expect("releasing runs");
    assert!(
        take(&pool, LONG, 1).await.is_empty(),
        "the owner still has it"
    );

    let done = Settlement {
        acked: ids,
        ..nothing(owner)
    };
    assert_eq!(settle(&pool, done).await, [0]);
    assert!(due(&pool, everything([0])).await.is_empty());
}

pub(super) async fn the_survey_counts_the_living<Db: OutboxDb>(pool: Pool<Db>) {
    migrated(&pool, 4).await;
    let survey = || async {
        let Survey { relays, free, .. } = Db::survey(pool.clone()).await.expect("the survey runs");
        (relays, free)
    };
    assert_eq!(survey().await, (0, 4));
    let (one, two) = (Uuid::now_v7(), Uuid::now_v7());
    for relay in [one, two, one] {
        Db::heartbeat(pool.clone(), relay, LONG)
            .await
            .expect("the heart beats");
    }
    take(&pool, LONG, 3).await;
    assert_eq!(survey().await, (2, 1));
    Db::retire(pool.clone(), one)
        .await
        .expect("the relay retires");
    assert_eq!(survey().await, (1, 1));
}

pub(super) async fn a_server_is_the_same_over_each_connection<Db: OutboxDb>(pool: Pool<Db>) {
    migrated(&pool, 1).await;
    let options = <Db::Connection as Connection>::Options::clone(&pool.connect_options());
    let other = Pool::<Db>::connect_lazy_with(options);
    let mut before = None;
    for pool in [&pool, &other, &other, &pool] {
        let Survey { server, .. } = Db::survey(pool.clone()).await.expect("the survey runs");
        let server = server.expect("the database says which it is");
        if let Some(before) = before.replace(server.clone()) {
            assert!(server.is_still(&before), "{before:?}, then {server:?}");
        }
    }
    other.close().await;
}
