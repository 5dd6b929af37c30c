//! What is written down of a batch, before it is published and after: once, whatever is repeated or comes late.

use std::time::Duration;

use sqlx::Pool;

use super::{
    LONG, dead::buried, due, everything, later, migrated, named, names, nothing, own, put, record,
    settle, settle_recorded, take,
};
use crate::{
    DeadCause,
    store::{InFlight, OutboxDb, Settlement},
};

/// What was put back may have to go before what was seen.
pub(super) async fn a_batch_seen_before_rows_were_put_back_is_not_recorded<Db: OutboxDb>(
    pool: Pool<Db>,
) {
    let outbox = migrated(&pool, 1).await;
    for name in ["1", "2"] {
        put(&pool, &outbox, named(name).key("k")).await;
    }
    let lane = own(&pool).await;
    let rows = due(&pool, everything([0])).await;
    let dead = Settlement {
        dead: vec![buried(
            rows.first().expect("two rows").id,
            DeadCause::Rejected,
        )],
        ..nothing(lane)
    };
    assert_eq!(settle(&pool, dead).await, [0]);
    let seen = due(&pool, everything([0])).await;
    assert_eq!(names(&seen), ["2"]);
    let before = Db::survey(pool.clone()).await.expect("the survey runs");
    let admin = crate::Admin::new(pool.clone());
    admin
        .redrive(crate::Filter::all())
        .await
        .expect("the letter is redriven");
    let after = Db::survey(pool.clone()).await.expect("the survey runs");
    assert_ne!(before.rewinds, after.rewinds);
    let record = async |rewinds| {
        let batch = InFlight {
            held: lane,
            batch: 1,
            rewinds,
            ids: seen.iter().map(|row| row.id).collect(),
        };
        let recorded = Db::record(pool.clone(), LONG, vec![batch]).await;
        recorded.expect("recording runs").lanes
    };
    assert_eq!(record(0).await, [(0, 1)], "held, but rows were put back");
    Db::release(pool.clone(), vec![lane], true)
        .await
        .expect("the lane is released");
    let grants = take(&pool, LONG, 1).await;
    let grant = grants.first().expect("the lane is free");
    assert_eq!(
        (grant.charged, grant.rewinds),
        (0, 1),
        "nothing was in flight"
    );
}

pub(super) async fn a_failure_is_added_to_the_history<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    put(&pool, &outbox, named("a")).await;
    let lane = own(&pool).await;
    let rows = due(&pool, everything([0])).await;
    let row = rows.first().expect("a row");
    assert_eq!(row.failures, None);
    let mut failed = later(row);
    failed.delay = Duration::ZERO;
    let settlement = Settlement {
        failed: vec![failed],
        ..nothing(lane)
    };
    assert_eq!(settle(&pool, settlement).await, [0]);
    let rows = due(&pool, everything([0])).await;
    let stored = rows.first().and_then(|row| row.failures.clone());
    let history: Vec<(u32, i64, String)> =
        serde_json::from_str(&stored.expect("there is a history")).expect("it is JSON");
    let (attempt, micros, reason) = history.first().expect("one failure");
    assert_eq!(
        (*attempt, reason.as_str(), history.len()),
        (1, "not now", 1)
    );
    assert!(*micros > 1_700_000_000_000_000, "the database's clock");

    // A takeover adds its own.
    let batch = InFlight {
        held: lane,
        batch: 1,
        rewinds: 0,
        ids: vec![row.id],
    };
    Db::record(pool.clone(), LONG, vec![batch])
        .await
        .expect("the batch is recorded");
    Db::release(pool.clone(), vec![lane], true)
        .await
        .expect("the lane is released");
    own(&pool).await;
    let rows = due(&pool, everything([0])).await;
    let stored = rows.first().and_then(|row| row.failures.clone());
    let history: Vec<(u32, i64, String)> =
        serde_json::from_str(&stored.expect("there is a history")).expect("it is JSON");
    assert_eq!(history.len(), 2);
    assert_eq!(history.last().map(|failure| failure.0), Some(2));
}

pub(super) async fn settling_twice_charges_once<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    put(&pool, &outbox, named("a")).await;
    let lane = own(&pool).await;
    let rows = due(&pool, everything([0])).await;
    let mut failed = later(rows.first().expect("a row"));
    failed.delay = Duration::ZERO;
    let settlement = Settlement {
        failed: vec![failed],
        ..nothing(lane)
    };
    record(&pool, &settlement).await;
    for _ in 0..3 {
        assert_eq!(settle_recorded(&pool, settlement.clone()).await, [0]);
    }
    let rows = due(&pool, everything([0])).await;
    assert_eq!(rows.first().map(|row| row.attempts), Some(1));
}

/// A13: the answer to a settlement was lost, and before it is repeated an operator puts back what it wrote down.
pub(super) async fn a_settlement_that_is_repeated_undoes_nothing_that_came_after_it<
    Db: OutboxDb,
>(
    pool: Pool<Db>,
) {
    let outbox = migrated(&pool, 1).await;
    for name in ["dead", "delivered", "failed"] {
        put(&pool, &outbox, named(name)).await;
    }
    let lane = own(&pool).await;
    let rows = due(&pool, everything([0])).await;
    let [dead, delivered, failed] = rows.as_slice() else {
        unreachable!("three rows");
    };
    let settlement = Settlement {
        acked: vec![delivered.id],
        failed: vec![later(failed)],
        dead: vec![buried(dead.id, DeadCause::Rejected)],
        ..nothing(lane)
    };
    record(&pool, &settlement).await;
    let again = async || {
        let settled = Db::settle(pool.clone(), true, vec![settlement.clone()]).await;
        assert_eq!(settled.expect("the settlement runs"), [0], "it is held");
    };
    again().await;
    let admin = crate::Admin::new(pool.clone());
    let all = crate::Filter::all;
    admin.redrive(all()).await.expect("the letter is redriven");
    admin
        .replay(all())
        .await
        .expect("what was kept is replayed");
    for _ in 0..2 {
        assert_eq!(
            names(&due(&pool, everything([0])).await),
            ["dead", "delivered"]
        );
        again().await;
    }
    let lag = admin.lag().await.expect("lag is read");
    assert_eq!((lag.pending, lag.dead), (3, 0));

    // What was given up without being published is told apart in the same way.
    let given_up = Settlement {
        dead: vec![buried(dead.id, DeadCause::NoSink)],
        ..nothing(lane)
    };
    let batch = InFlight {
        held: lane,
        batch: 1,
        rewinds: 2,
        ids: Vec::new(),
    };
    Db::record(pool.clone(), LONG, vec![batch])
        .await
        .expect("the batch is recorded");
    assert_eq!(settle_recorded(&pool, given_up.clone()).await, [0]);
    admin.redrive(all()).await.expect("the letter is redriven");
    assert_eq!(settle_recorded(&pool, given_up).await, [0]);
    assert_eq!(
        names(&due(&pool, everything([0])).await),
        ["dead", "delivered"]
    );
}

/// A copy of a settlement, or of a record, that comes when the lane's next batch is recorded: it was long under way.
pub(super) async fn a_settlement_is_of_its_own_batch_only<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    for name in ["dead", "first", "second"] {
        put(&pool, &outbox, named(name)).await;
    }
    let lane = own(&pool).await;
    let rows = due(&pool, everything([0])).await;
    let [dead, first, second] = rows.as_slice() else {
        unreachable!("three rows");
    };
    let one = Settlement {
        acked: vec![first.id],
        dead: vec![buried(dead.id, DeadCause::Rejected)],
        ..nothing(lane)
    };
    let two = Settlement {
        batch: 2,
        acked: vec![second.id],
        ..nothing(lane)
    };
    let settle = async |keep, settlement: &Settlement| {
        let settled = Db::settle(pool.clone(), keep, vec![settlement.clone()]).await;
        settled.expect("the settlement runs")
    };
    let batch = |batch, rewinds, id| InFlight {
        held: lane,
        batch,
        rewinds,
        ids: vec![id],
    };
    let record = async |batch| {
        let recorded = Db::record(pool.clone(), LONG, vec![batch]).await;
        recorded.expect("recording runs");
    };
    let in_flight = async || {
        let lanes = crate::Admin::new(pool.clone()).lanes().await;
        let lanes = lanes.expect("lanes are told");
        lanes.first().expect("a lane").in_flight
    };
    record(batch(1, 0, first.id)).await;
    assert_eq!(settle(true, &one).await, [0]);
    assert_eq!(in_flight().await, 0);
    let admin = crate::Admin::new(pool.clone());
    let all = crate::Filter::all;
    admin.redrive(all()).await.expect("the letter is redriven");
    admin
        .replay(all())
        .await
        .expect("what was kept is put back");

    record(batch(2, 2, second.id)).await;
    for keep in [true, false] {
        assert!(settle(keep, &one).await.is_empty(), "another is recorded");
    }
    let plain = Settlement {
        dead: Vec::new(),
        ..one
    };
    assert!(settle(false, &plain).await.is_empty());
    // The second of these would be cleared, as rows were put back since.
    for rewinds in [2, 0] {
        record(batch(1, rewinds, first.id)).await;
    }
    assert_eq!(in_flight().await, 1);
    assert_eq!(
        names(&due(&pool, everything([0])).await),
        ["dead", "first", "second"],
        "nothing was written"
    );
    assert_eq!(settle(false, &two).await, [0]);
    assert_eq!(
        names(&due(&pool, everything([0])).await),
        ["dead", "first"],
        "and this was, once"
    );
    assert_eq!(settle(false, &two).await, [0], "its answer was lost");
    assert_eq!(in_flight().await, 0);
}
