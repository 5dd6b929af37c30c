use std::time::UNIX_EPOCH;

use sqlx::Pool;

use super::{LONG, due, everything, held, migrated, named, names, nothing, put, settle, take};
use crate::{
    Admin, DeadCause, Redrive,
    store::{Buried, OutboxDb, Settlement},
};

pub(super) async fn dead_letters_move_there_and_back_whole<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    for (name, topic) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let event = named(name)
            .topic(topic)
            .key([0, 1])
            .header("x-h", "v")
            .bytes("t/t", name.to_owned());
        put(&pool, &outbox, event).await;
    }
    let lane = held(
        *take(&pool, LONG, 1)
            .await
            .first()
            .expect("the lane is free"),
    );
    let before = due(&pool, everything([0])).await;
    let bury = |id: i64| Buried {
        id,
        attempts: 3,
        cause: DeadCause::Rejected,
        reason: "never".to_owned(),
    };
    let settlement = Settlement {
        dead: before.iter().map(|row| bury(row.id)).collect(),
        ..nothing(lane)
    };
    for _ in 0..2 {
        assert_eq!(
            settle(&pool, settlement.clone()).await,
            [0],
            "repeating it does no harm"
        );
    }
    assert!(due(&pool, everything([0])).await.is_empty());

    let admin = Admin::new(pool.clone());
    let dead = admin.dead(2).await.expect("dead letters are read");
    assert_eq!(dead.len(), 2);
    let first = dead.first().expect("two letters");
    assert_eq!(
        (first.cause(), first.reason()),
        (DeadCause::Rejected, "never")
    );
    assert_eq!(
        (first.message().subject(), first.message().attempt()),
        (Some("a"), 3)
    );
    assert!(first.died_at() > UNIX_EPOCH);
    assert_eq!(
        admin
            .dead_of("y", 10)
            .await
            .expect("dead letters are read")
            .len(),
        1
    );

    let back = |which| admin.redrive(which);
    assert_eq!(
        back(Redrive::all().topic("x").limit(1))
            .await
            .expect("redriven"),
        1
    );
    assert_eq!(names(&due(&pool, everything([0])).await), ["a"]);
    assert_eq!(back(Redrive::all()).await.expect("redriven"), 2);
    assert_eq!(back(Redrive::all()).await.expect("redriven"), 0);
    let after = due(&pool, everything([0])).await;
    assert_eq!(after.len(), 3);
    for (old, new) in before.iter().zip(&after) {
        assert_eq!(
            (old.id, &old.message),
            (new.id, &new.message),
            "as it was, attempts forgotten"
        );
    }
}

pub(super) async fn lag_counts_and_ages<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 4).await;
    let admin = Admin::new(pool.clone());
    let empty = admin.lag().await.expect("lag is read");
    assert_eq!((empty.pending, empty.dead, empty.oldest_age), (0, 0, None));
    for n in 0..5 {
        put(&pool, &outbox, named(&n.to_string())).await;
    }
    let lag = admin.lag().await.expect("lag is read");
    assert_eq!((lag.pending, lag.dead), (5, 0));
    assert!(lag.oldest_age.is_some_and(|age| age < LONG));
    let capped = Db::lag(pool.clone(), 3).await.expect("lag is read");
    assert_eq!(capped.pending, 3);
}
