//! What a claim is handed: what is due, but for what has to wait, is set aside or is passed over.

use sqlx::Pool;

use super::{due, everything, later, migrated, named, names, nothing, own, put, settle};
use crate::{
    DeadCause, Event,
    store::{Ask, Buried, Candidate, Look, OutboxDb, Settlement},
};

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
    let free = Ask {
        held_back: false,
        ..everything([0])
    };
    assert_eq!(
        due(&pool, free).await.len(),
        5,
        "whoever says that nothing waits is believed"
    );
}

pub(super) async fn a_message_that_does_not_hold_its_key_is_overtaken<Db: OutboxDb>(
    pool: Pool<Db>,
) {
    let outbox = migrated(&pool, 1).await;
    for name in ["k1", "k2"] {
        put(&pool, &outbox, named(name).key("k")).await;
    }
    let lane = own(&pool).await;
    let rows = due(&pool, everything([0])).await;
    let mut failed = later(rows.first().expect("two rows"));
    failed.holds = false;
    let settlement = Settlement {
        failed: vec![failed],
        ..nothing(lane)
    };
    assert_eq!(settle(&pool, settlement).await, [0]);
    assert_eq!(names(&due(&pool, everything([0])).await), ["k2"]);
}

/// Where an operator would find what was given up.
pub(super) async fn a_parked_key_is_set_aside_until_it_is_released<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    for (name, topic) in [("1", "t"), ("2", "t"), ("other topic", "u")] {
        put(&pool, &outbox, named(name).topic(topic).key("k")).await;
    }
    put(&pool, &outbox, named("other key").topic("t").key("o")).await;
    put(&pool, &outbox, named("no key").topic("t")).await;
    let lane = own(&pool).await;
    let rows = due(&pool, everything([0])).await;
    let bury = |row: &Candidate, cause, park| Settlement {
        dead: vec![Buried {
            id: row.id,
            attempts: 1,
            cause,
            park,
            reason: "never".to_owned(),
            note: None,
        }],
        ..nothing(lane)
    };
    let second = rows.get(1).expect("five rows");
    let early = bury(second, DeadCause::Parked, false);
    assert_eq!(settle(&pool, early.clone()).await, [0]);
    assert_eq!(
        due(&pool, everything([0])).await.len(),
        5,
        "nothing is set aside whose key is not parked"
    );
    let first = bury(rows.first().expect("five rows"), DeadCause::Rejected, true);
    for _ in 0..2 {
        assert_eq!(settle(&pool, first.clone()).await, [0]);
    }
    let survey = Db::survey(pool.clone()).await.expect("the survey runs");
    assert!(survey.held_back);
    let rows = due(&pool, everything([0])).await;
    let parked: Vec<_> = rows.iter().map(|row| row.parked).collect();
    assert_eq!(names(&rows), ["2", "other topic", "other key", "no key"]);
    assert_eq!(parked, [true, false, false, false]);
    assert_eq!(settle(&pool, early).await, [0]);
    assert_eq!(
        names(&due(&pool, everything([0])).await),
        ["other topic", "other key", "no key"]
    );
}

pub(super) async fn a_look_begins_above_the_id_it_is_given<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    for name in ["a", "b", "c"] {
        put(&pool, &outbox, named(name)).await;
    }
    let rows = due(&pool, everything([0])).await;
    for held_back in [true, false] {
        let above = rows.get(1).expect("three rows").id;
        let ask = Ask {
            lanes: vec![Look::new(0, above)],
            held_back,
            ..everything([])
        };
        assert_eq!(names(&due(&pool, ask).await), ["c"]);
    }
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
    for (held_back, large) in [(true, true), (false, true), (false, false)] {
        let mixed = Ask {
            held_back,
            large,
            bytes: 250,
            total: 5,
            ..per_lane.clone()
        };
        assert_eq!(due(&pool, mixed).await.len(), 3, "however it is counted");
    }
    let tiny = Ask {
        bytes: 1,
        ..per_lane
    };
    assert_eq!(due(&pool, tiny).await.len(), 1, "one always fits");
    assert_eq!(due(&pool, everything([])).await.len(), 0);
}

pub(super) async fn the_survey_says_whether_anything_waits<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    let survey = async || Db::survey(pool.clone()).await.expect("the survey runs");
    put(&pool, &outbox, named("a").key("k")).await;
    let before = survey().await;
    assert!(!before.held_back && !before.due && before.paused.is_empty());
    assert!(before.ids_in_order);
    let lane = own(&pool).await;
    let rows = due(&pool, everything([0])).await;
    let row = rows.first().expect("a row");
    let wait = Settlement {
        failed: vec![later(row)],
        ..nothing(lane)
    };
    assert_eq!(settle(&pool, wait).await, [0]);
    assert!(survey().await.held_back);
}
