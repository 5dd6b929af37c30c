//! What waits for its retry, and what waits behind that.

use std::time::Duration;

use sqlx::Pool;
use tokio::time::Instant;

use super::{LONG, due, everything, held, migrated, nothing, put, settle, take};
use crate::{
    event::{Event, Ordering},
    history::{LOST, lost_last},
    store::{Ask, AskHeads, Failed, Head, InFlight, Look, Note, OutboxDb, Settlement},
};

fn failed(id: i64, delay: Duration, holds: bool) -> Failed {
    Failed {
        id,
        attempts: 0,
        delay,
        suspect: false,
        holds,
        reason: "no".to_owned(),
        note: Note {
            before: "[[1,".to_owned(),
            after: ",\"no\"]]".to_owned(),
        },
    }
}

/// What is held is no head if that is asked for, and for how long is told of what was looked at up to the head.
pub(super) async fn heads_pass_what_is_held_and_say_until_when<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    for key in ["a", "a", "b", "a", "b"] {
        put(&pool, &outbox, Event::new("t").key(key)).await;
    }
    put(
        &pool,
        &outbox,
        Event::new("t").key("a").ordering(Ordering::Unordered),
    )
    .await;
    let grant = take(&pool, LONG, 1).await.remove(0);
    let rows = due(&pool, everything([0])).await;
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let [a, behind, b, also_behind, free, unordered] = ids[..] else {
        unreachable!("six rows");
    };
    let minute = Duration::from_secs(60);
    settle(
        &pool,
        Settlement {
            // Nobody waits behind b.
            failed: vec![failed(a, minute, true), failed(b, minute / 2, false)],
            ..nothing(held(grant))
        },
    )
    .await;
    let heads = async |above, window, held| {
        let ask = AskHeads {
            lanes: vec![Look::new(0, above)],
            skip_topics: Vec::new(),
            held,
            window,
            running: false,
            newest: false,
        };
        let heads = Db::heads(pool.clone(), ask).await;
        heads.expect("heads are read")
    };
    let all = heads(0, 100, false).await;
    assert_eq!((all.heads, all.held), (vec![(0, Head::Row(a))], Vec::new()));
    let passed = heads(0, 100, true).await;
    assert_eq!(passed.heads, [(0, Head::Row(free))]);
    let mut told = passed.held;
    told.sort_unstable_by_key(|waiting| waiting.id);
    let [long, short] = told[..] else {
        unreachable!("{told:?}");
    };
    assert_eq!((long.id, short.id), (a, b));
    assert!(minute / 2 < long.left && long.left <= minute, "{long:?}");
    assert!(
        short.left <= minute / 2 && !short.left.is_zero(),
        "{short:?}"
    );
    assert!(short.retry_at < long.retry_at);

    let stops = heads(0, 2, true).await;
    assert_eq!(stops.heads, [(0, Head::NothingUpTo(behind))]);
    assert_eq!(stops.held.len(), 1, "no more was looked at");
    let on = heads(behind, 2, true).await;
    assert_eq!(on.heads, [(0, Head::NothingUpTo(also_behind))]);
    let on = heads(also_behind, 2, true).await;
    assert_eq!(
        (on.heads, on.held),
        (vec![(0, Head::Row(free))], Vec::new())
    );
    let last = heads(free, 2, true).await;
    assert_eq!(last.heads, [(0, Head::Row(unordered))]);
    let none = heads(unordered, 2, true).await;
    assert_eq!(none.heads, [(0, Head::Nothing)]);
}

/// What is behind a mark until its time holds back what came later until it is looked for.
pub(super) async fn a_look_may_be_of_the_time_its_mark_is_of<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    for key in ["a", "a", "b"] {
        put(&pool, &outbox, Event::new("t").key(key)).await;
    }
    let grant = take(&pool, LONG, 1).await.remove(0);
    let rows = due(&pool, everything([0])).await;
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let [first, second, free] = ids[..] else {
        unreachable!("three rows");
    };
    settle(
        &pool,
        Settlement {
            failed: vec![failed(first, Duration::from_millis(50), true)],
            ..nothing(held(grant))
        },
    )
    .await;
    let due_at = async |look: Look| {
        let ask = Ask {
            lanes: vec![look],
            ..everything([])
        };
        let due = due(&pool, ask).await;
        due.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    let deadline = Instant::now() + LONG;
    while due_at(Look::new(0, 0)).await != [first, second, free] {
        assert!(Instant::now() < deadline, "its time does not come");
    }
    assert_eq!(due_at(Look::new(0, first)).await, [second, free]);
    let before = Look {
        as_of: Some(0),
        ..Look::new(0, first)
    };
    assert_eq!(due_at(before).await, [free]);
    assert_eq!(due_at(Look { above: 0, ..before }).await, [free]);
    let later = Look {
        as_of: Some(i64::MAX / 2_000),
        ..Look::new(0, first)
    };
    assert_eq!(
        due_at(later).await,
        [second, free],
        "and no later than it is"
    );
}

/// The history of what was under way says so: by that it is known what its relays die with.
pub(super) async fn what_was_under_way_is_told_apart<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    put(&pool, &outbox, Event::new("t").key("a")).await;
    let mut lost = Vec::new();
    for _ in 0..3 {
        let grant = take(&pool, Duration::ZERO, 1).await.remove(0);
        let rows = due(&pool, everything([0])).await;
        let row = rows.first().expect("a row");
        let failures = row.failures.as_deref().unwrap_or("[]");
        lost.push((lost_last(failures), failures.contains(LOST)));
        let batch = InFlight {
            held: held(grant),
            batch: 1,
            rewinds: grant.rewinds,
            ids: vec![row.id],
        };
        let recorded = Db::record(pool.clone(), Duration::ZERO, vec![batch]).await;
        assert_eq!(recorded.expect("recording runs").lanes.len(), 1);
    }
    assert_eq!(lost, [(0, false), (1, true), (2, true)]);
}
