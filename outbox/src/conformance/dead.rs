use std::time::{Duration, UNIX_EPOCH};

use sqlx::Pool;

use super::{LONG, due, everything, held, migrated, named, names, nothing, put, settle, take};
use crate::{
    Admin, Bulk, DeadCause, Filter, Outbox,
    store::{Buried, Candidate, Held, OutboxDb, Settlement},
};

/// Three letters of two topics and one key, and the only lane, leased.
async fn three_dead<Db: OutboxDb>(pool: &Pool<Db>) -> (Outbox<Db>, Held, Vec<Candidate>) {
    let outbox = migrated(pool, 1).await;
    for (name, topic) in [("a", "x.1"), ("b", "y"), ("c", "x.2")] {
        let event = named(name)
            .topic(topic)
            .key([0, 1])
            .header("x-h", "v")
            .bytes("t/t", name.to_owned());
        put(pool, &outbox, event).await;
    }
    let lane = held(*take(pool, LONG, 1).await.first().expect("the lane is free"));
    let before = due(pool, everything([0])).await;
    let causes = [
        DeadCause::Rejected,
        DeadCause::Exhausted,
        DeadCause::Rejected,
    ];
    let settlement = Settlement {
        dead: before
            .iter()
            .zip(causes)
            .map(|(row, cause)| buried(row.id, cause))
            .collect(),
        ..nothing(lane)
    };
    for _ in 0..2 {
        assert_eq!(
            settle(pool, settlement.clone()).await,
            [0],
            "repeating it does no harm"
        );
    }
    assert!(due(pool, everything([0])).await.is_empty());
    (outbox, lane, before)
}

pub(super) fn buried(id: i64, cause: DeadCause) -> Buried {
    Buried {
        id,
        attempts: 3,
        cause,
        park: false,
        reason: "never".to_owned(),
        note: None,
    }
}

async fn redriven<Db: OutboxDb>(pool: &Pool<Db>, which: impl Into<Bulk>) -> u64 {
    let admin = Admin::new(pool.clone());
    admin.redrive(which).await.expect("letters are redriven")
}

pub(super) async fn dead_letters_move_there_and_back_whole<Db: OutboxDb>(pool: Pool<Db>) {
    let (_, _, before) = three_dead(&pool).await;
    let admin = Admin::new(pool.clone());
    let dead = admin
        .dead(Filter::all(), 2)
        .await
        .expect("dead letters are read");
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
    assert_eq!(
        (Some(first.place()), first.lane()),
        (before.first().map(|row| row.id), 0)
    );
    assert!(first.died_at() > UNIX_EPOCH);

    assert_eq!(
        redriven(&pool, Bulk::of(Filter::topic("x.*")).limit(1)).await,
        1
    );
    assert_eq!(names(&due(&pool, everything([0])).await), ["a"]);
    assert_eq!(redriven(&pool, Filter::all()).await, 2);
    assert_eq!(redriven(&pool, Filter::all()).await, 0);
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

pub(super) async fn a_filter_means_what_it_says<Db: OutboxDb>(pool: Pool<Db>) {
    let (_, _, before) = three_dead(&pool).await;
    let admin = Admin::new(pool.clone());
    let id = before.first().expect("three messages").message.id();
    let all = admin
        .dead(Filter::all(), 10)
        .await
        .expect("dead letters are read");
    let died = all.first().expect("three letters").died_at();
    let hour = Duration::from_secs(3_600);
    for (filter, expected) in [
        (Filter::all(), &["a", "b", "c"][..]),
        (Filter::topic("x.1"), &["a"]),
        (Filter::topic("X.1"), &[]),
        (Filter::topic("x.*"), &["a", "c"]),
        (Filter::topic("x."), &[]),
        (Filter::topic("*"), &["a", "b", "c"]),
        (Filter::topic("%*"), &[]),
        (Filter::key([0, 1]), &["a", "b", "c"]),
        (Filter::key([0]), &[]),
        (Filter::id(id), &["a"]),
        (Filter::cause(DeadCause::Rejected), &["a", "c"]),
        (
            Filter::cause(DeadCause::Rejected).and(Filter::topic("x.2")),
            &["c"],
        ),
        (Filter::since(died), &["a", "b", "c"]),
        (Filter::since(died + hour), &[]),
        (Filter::until(died), &[]),
        (Filter::until(died + hour), &["a", "b", "c"]),
    ] {
        let found = admin
            .dead(filter.clone(), 10)
            .await
            .expect("dead letters are read");
        let found: Vec<_> = found
            .iter()
            .filter_map(|one| one.message().subject())
            .collect();
        assert_eq!(found, expected, "{filter:?}");
        let count = admin.count_dead(filter.clone(), 10).await;
        assert_eq!(
            count.expect("dead letters are counted"),
            expected.len() as u64,
            "{filter:?}"
        );
    }
    assert_eq!(
        admin.count_dead(Filter::all(), 2).await.expect("counted"),
        2
    );
    // Changes mean the same.
    let gone = admin
        .discard(Filter::cause(DeadCause::Rejected).and(Filter::topic("x.2")))
        .await
        .expect("letters are discarded");
    assert_eq!((gone.discarded, gone.released), (1, 0));
    assert_eq!(redriven(&pool, Filter::since(died + hour)).await, 0);
    assert_eq!(redriven(&pool, Filter::id(id)).await, 1);
    assert_eq!(names(&due(&pool, everything([0])).await), ["a"]);
    let left = admin
        .dead(Filter::all(), 10)
        .await
        .expect("dead letters are read");
    let left: Vec<_> = left
        .iter()
        .filter_map(|one| one.message().subject())
        .collect();
    assert_eq!(left, ["b"]);
}

pub(super) async fn a_change_in_many_batches_is_one_in_the_audit<Db: OutboxDb>(pool: Pool<Db>) {
    three_dead(&pool).await;
    let admin = Admin::new(pool.clone()).actor("ada");
    let (tell, told) = std::sync::mpsc::channel();
    // One a batch.
    let which = Bulk::of(Filter::topic("*"))
        .per_second(10)
        .on_progress(move |done| tell.send(done).expect("somebody listens"));
    assert_eq!(admin.redrive(which).await.expect("letters are redriven"), 3);
    assert_eq!(told.iter().collect::<Vec<_>>(), [1, 2, 3]);
    // Nothing done, nothing written down.
    assert_eq!(redriven(&pool, Filter::all()).await, 0);
    let audit = admin.audit(10).await.expect("the audit is read");
    let [entry] = audit.as_slice() else {
        unreachable!("one change was made: {audit:?}");
    };
    assert_eq!(
        (entry.actor.as_str(), entry.action.as_str(), entry.affected),
        ("ada", "redrive", 3)
    );
    assert_eq!(
        entry.detail,
        r#"{"filter":{"topic":"*"},"limit":null,"per_second":10}"#
    );
    assert!(entry.at > UNIX_EPOCH);
}

pub(super) async fn what_dies_again_meanwhile_is_left<Db: OutboxDb>(pool: Pool<Db>) {
    let (_, lane, _) = three_dead(&pool).await;
    let admin = Admin::new(pool.clone());
    let (tell, mut told) = tokio::sync::mpsc::channel(16);
    let which = Bulk::of(Filter::all())
        .per_second(10)
        .on_progress(move |done| tell.try_send(done).expect("there is room"));
    let redrive = tokio::spawn(async move { admin.redrive(which).await });
    assert_eq!(told.recv().await, Some(1));
    let row = due(&pool, everything([0])).await;
    let back = row.first().expect("one is back");
    let again = Settlement {
        dead: vec![buried(back.id, DeadCause::Rejected)],
        ..nothing(lane)
    };
    assert_eq!(settle(&pool, again).await, [0]);
    let moved = redrive
        .await
        .expect("it ends")
        .expect("letters are redriven");
    assert_eq!(moved, 3, "each once");
    assert_eq!(names(&due(&pool, everything([0])).await), ["b", "c"]);
}
