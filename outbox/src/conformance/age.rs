//! What time does: events whose time comes go into their lanes, and what is kept of those that are delivered goes.

use std::time::Duration;

use sqlx::Pool;
use tokio::time::Instant;

use super::{LONG, due, everything, migrated, named, nothing, now, own, put, record};
use crate::store::{OutboxDb, Settlement};

pub(super) async fn what_is_due_moves_into_its_lane_in_the_order_of_the_times<Db: OutboxDb>(
    pool: Pool<Db>,
) {
    let outbox = migrated(&pool, 4).await;
    let before = Db::survey(pool.clone()).await.expect("the survey runs");
    assert!(!before.due);
    let base = now();
    let at = |millis| base + Duration::from_millis(millis);
    for (name, key, millis) in [
        ("third", "k", 3),
        ("first", "k", 1),
        ("second", "k", 2),
        ("far", "k", 3_600_000),
        ("other", "o", 4),
    ] {
        let event = named(name).key(key).header("h", "ü");
        put(&pool, &outbox, event.not_before(at(millis))).await;
    }
    let deadline = Instant::now() + LONG;
    let mut moved = 0;
    while moved < 4 {
        // Several at once: one does it.
        let (a, b) = tokio::join!(Db::promote(pool.clone(), 3), Db::promote(pool.clone(), 3));
        moved += a.expect("events are moved") + b.expect("events are moved");
        assert!(Instant::now() < deadline, "they are never due");
    }
    assert_eq!(moved, 4, "what is not due stays");
    let survey = Db::survey(pool.clone()).await.expect("the survey runs");
    assert!(!survey.due);
    let later = Db::later(pool.clone(), crate::store::Select::default(), 10).await;
    assert_eq!(later.expect("they are read").len(), 1);

    let rows = due(&pool, everything(0..4)).await;
    let of_key: Vec<_> = rows
        .iter()
        .filter(|row| row.message.key() == Some(b"k"))
        .collect();
    let names: Vec<_> = of_key
        .iter()
        .filter_map(|row| row.message.subject())
        .collect();
    assert_eq!(names, ["first", "second", "third"]);
    assert!(
        of_key
            .iter()
            .all(|row| row.message.header("h") == Some("ü"))
    );
    assert!(of_key.iter().all(|row| row.age < LONG && row.attempts == 0));
    let lane = of_key.first().map(|row| row.lane);
    assert!(of_key.iter().all(|row| Some(row.lane) == lane));
    put(&pool, &outbox, named("now").key("k")).await;
    let rows = due(&pool, everything(lane)).await;
    let now = rows.iter().find(|row| row.message.subject() == Some("now"));
    assert!(
        now.is_some(),
        "in the lane of its key, as those that are not delayed"
    );
    let sequences: Vec<_> = rows.iter().map(|row| row.message.sequence()).collect();
    assert!(sequences.is_sorted() && sequences.iter().all(Option::is_some));
    let places: Vec<_> = rows
        .iter()
        .map(|row| Some(format!("{:019}", row.id)))
        .collect();
    assert_eq!(sequences, places);
}

pub(super) async fn what_is_kept_is_forgotten_by_its_age<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    for name in ["a", "b", "c"] {
        put(&pool, &outbox, named(name)).await;
    }
    let lane = own(&pool).await;
    let rows = due(&pool, everything([0])).await;
    let (last, kept) = rows.split_last().expect("three rows");
    for (keep, acked) in [
        (true, kept.iter().map(|row| row.id).collect()),
        (false, vec![last.id]),
    ] {
        let settlement = Settlement {
            acked,
            ..nothing(lane)
        };
        record(&pool, &settlement).await;
        for _ in 0..2 {
            let done = Db::settle(pool.clone(), keep, vec![settlement.clone()]).await;
            assert_eq!(done.expect("the settlement runs"), [0]);
        }
    }
    assert!(due(&pool, everything([0])).await.is_empty());
    let forget = async |age, limit| {
        let gone = Db::forget(pool.clone(), age, limit).await;
        gone.expect("forgetting runs")
    };
    assert_eq!(forget(LONG, 10).await, 0, "they are young");
    assert_eq!(forget(Duration::ZERO, 1).await, 1);
    assert_eq!(forget(Duration::ZERO, 10).await, 1);
}
