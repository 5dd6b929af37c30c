use std::time::Duration;

use sqlx::Pool;

use super::{LONG, due, everything, held, migrated, named, names, nothing, put, settle, take};
use crate::{
    Event,
    store::{Ask, Candidate, Failed, Held, OutboxDb, Settlement},
};

/// The only lane, leased.
async fn own<Db: OutboxDb>(pool: &Pool<Db>) -> Held {
    let grants = take(pool, LONG, 1).await;
    held(*grants.first().expect("the lane is free"))
}

fn later(row: &Candidate) -> Failed {
    Failed {
        id: row.id,
        attempts: row.attempts,
        delay: LONG,
        suspect: false,
        reason: "not now".to_owned(),
    }
}

pub(super) async fn a_message_that_waits_blocks_its_key_only<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    for (name, key) in [
        ("k1", Some("k")),
        ("k2", Some("k")),
        ("k3", Some("k")),
        ("other", Some("o")),
        ("none", None),
    ] {
        let event = named(name);
        put(
            &pool,
            &outbox,
            match key {
                Some(key) => event.key(key),
                None => event,
            },
        )
        .await;
    }
    let lane = own(&pool).await;
    let rows = due(&pool, everything([0])).await;
    let second = rows.get(1).expect("five rows");
    let settlement = Settlement {
        failed: vec![later(second)],
        ..nothing(lane)
    };
    assert_eq!(settle(&pool, settlement).await, [0]);

    let blocking = due(&pool, everything([0])).await;
    assert_eq!(
        names(&blocking),
        ["k1", "other", "none"],
        "those before it are not held back"
    );
    let skipping = Ask {
        block_keys: false,
        ..everything([0])
    };
    assert_eq!(
        names(&due(&pool, skipping).await),
        ["k1", "k3", "other", "none"]
    );
}

pub(super) async fn caps_cut_what_is_claimed<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 2).await;
    for n in 0..40 {
        let event = Event::new("t")
            .key(n.to_string())
            .bytes("text/plain", vec![b'x'; 100]);
        put(&pool, &outbox, event).await;
    }
    let lanes = |rows: &[Candidate]| rows.iter().map(|row| row.lane).collect::<Vec<_>>();
    let per_lane = Ask {
        batch: 3,
        ..everything([1, 0])
    };
    assert_eq!(
        lanes(&due(&pool, per_lane.clone()).await),
        [1, 1, 1, 0, 0, 0],
        "in the order asked for"
    );
    let total = Ask {
        total: 4,
        ..per_lane.clone()
    };
    assert_eq!(due(&pool, total).await.len(), 4);
    let bytes = Ask {
        bytes: 250,
        ..per_lane.clone()
    };
    assert_eq!(
        due(&pool, bytes).await.len(),
        3,
        "the one that crosses the cap is the last"
    );
    let tiny = Ask {
        bytes: 1,
        ..per_lane
    };
    assert_eq!(due(&pool, tiny).await.len(), 1, "one always fits");
    assert_eq!(due(&pool, everything([])).await.len(), 0);
}

pub(super) async fn topics_are_passed_over<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    for (name, topic) in [("a", "down"), ("b", "up"), ("c", "down"), ("d", "up")] {
        put(&pool, &outbox, named(name).topic(topic)).await;
    }
    let ask = Ask {
        batch: 1,
        skip_topics: vec!["down".to_owned(), "it's".to_owned()],
        ..everything([0])
    };
    assert_eq!(
        names(&due(&pool, ask).await),
        ["b"],
        "what is passed over does not fill the batch"
    );
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
    for _ in 0..3 {
        assert_eq!(settle(&pool, settlement.clone()).await, [0]);
    }
    let rows = due(&pool, everything([0])).await;
    assert_eq!(rows.first().map(|row| row.attempts), Some(1));
}
