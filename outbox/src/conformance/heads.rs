//! What stands first in a lane, and who is still writing: what the marks go by, below which claims do not look.

use sqlx::Pool;
use tokio::time::Instant;

use super::{LONG, due, everything, migrated, named, nothing, own, put, settle};
use crate::store::{AskHeads, Head, Heads, InFlight, Look, OutboxDb, Settlement};

/// All that can be asked of one lane.
fn ask_heads(look: Look, skipped: &[&str]) -> AskHeads {
    AskHeads {
        lanes: vec![look],
        skip_topics: skipped.iter().map(ToString::to_string).collect(),
        window: 1_000,
        running: true,
        held: false,
        newest: !skipped.is_empty(),
    }
}

/// Where there are marks: a writer that is at work is told of from before it draws an id until what it wrote shows; or what
/// it wrote is among the heads at once, whether it has committed or not.
pub(super) async fn heads_and_writers_are_of_one_moment<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    let lane = own(&pool).await;
    put(&pool, &outbox, named("first")).await;
    let first = due(&pool, everything([0])).await;
    let id = first.first().expect("a row").id;
    let batch = || InFlight {
        held: lane,
        batch: 1,
        rewinds: 0,
        ids: vec![id],
    };
    let record = async || {
        let recorded = Db::record(pool.clone(), LONG, vec![batch()]).await;
        recorded.expect("the batch is recorded").stamp
    };
    let heads = async || {
        let look = Look::new(0, 0);
        let heads = Db::heads(pool.clone(), ask_heads(look, &[])).await;
        heads.expect("heads are read")
    };
    // Where one transaction writes at a time, nobody has to be waited for.
    let Some(before) = record().await else {
        return;
    };
    let mut late = pool.begin().await.expect("a transaction begins");
    outbox
        .enqueue(&mut late, named("late"))
        .await
        .expect("the event is enqueued");
    let after = record().await.expect("there are marks here");
    assert!(before < after);
    let seen = heads().await;
    assert_eq!(seen.heads, [(0, Head::Row(id))]);
    let late_is_at_work = |heads: &Heads| match &heads.running {
        Some(running) => {
            assert!(running.iter().all(|writer| *writer >= heads.ended_below));
            running
                .iter()
                .any(|writer| (before..after).contains(writer))
        }
        None => heads
            .heads
            .iter()
            .any(|(_, head)| matches!(head, Head::Row(head) if *head > id)),
    };
    let done = Settlement {
        acked: vec![id],
        ..nothing(lane)
    };
    assert_eq!(settle(&pool, done).await, [0]);
    let open = heads().await;
    assert!(late_is_at_work(&open));
    assert!(open.ended_below < after, "the mark does not pass yet");
    if open.running.is_some() {
        assert_eq!(open.heads, [(0, Head::Nothing)]);
    }

    late.commit().await.expect("the transaction commits");
    let seen = heads().await;
    let row = due(&pool, everything([0])).await;
    assert_eq!(seen.heads, [(0, Head::Row(row.first().expect("a row").id))]);
    // Others may have begun to write at the same time, in other databases of the server.
    let deadline = Instant::now() + LONG;
    while seen.running.is_some() && late_is_at_work(&heads().await) {
        assert!(Instant::now() < deadline, "it has ended");
    }
}

/// What is there of topics whose sink is up; and the last of all, with a stamp that a writer's must reach to be later.
pub(super) async fn heads_skip_topics_and_say_how_far_they_looked<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    for (name, topic) in [("a", "down"), ("b", "down"), ("c", "up"), ("d", "down")] {
        put(&pool, &outbox, named(name).topic(topic)).await;
    }
    let rows = due(&pool, everything([0])).await;
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let [first, second, third, last] = ids[..] else {
        unreachable!("four rows");
    };
    let heads = async |above, skipped: &[&str]| {
        let look = Look::new(0, above);
        let heads = Db::heads(pool.clone(), ask_heads(look, skipped)).await;
        heads.expect("heads are read")
    };
    let none = heads(0, &[]).await;
    assert_eq!(
        (none.heads, none.newest),
        (vec![(0, Head::Row(first))], None)
    );
    let skipping = heads(0, &["down", "it's"]).await;
    assert_eq!(skipping.heads, [(0, Head::Row(third))]);
    let (newest, stamp) = skipping.newest.expect("there is a last one");
    assert_eq!(newest, last, "whatever its topic");
    assert_eq!(heads(third, &["down"]).await.heads, [(0, Head::Nothing)]);
    assert_eq!(heads(first, &[]).await.heads, [(0, Head::Row(second))]);

    let last_of_all = heads(last, &["down"]).await;
    assert_eq!(last_of_all.newest.filter(|(id, _)| *id > last), None);

    let window = async |above, window| {
        let ask = AskHeads {
            window,
            ..ask_heads(Look::new(0, above), &["down"])
        };
        let heads = Db::heads(pool.clone(), ask).await;
        let heads = heads.expect("heads are read").heads;
        heads.first().expect("a lane").1
    };
    // Where all lanes are looked at together, that may have shown more than the window.
    let seen = window(0, 2).await;
    assert!([Head::NothingUpTo(second), Head::Row(third)].contains(&seen));
    assert_eq!(window(0, 3).await, Head::Row(third));
    assert_eq!(window(second, 1).await, Head::Row(third));

    let mut late = pool.begin().await.expect("a transaction begins");
    outbox
        .enqueue(&mut late, named("late").topic("up"))
        .await
        .expect("the event is enqueued");
    let open = heads(third, &["down"]).await;
    if open.running.is_some() {
        // What a snapshot has for the last writer may be one that began before.
        let running = heads(third, &["down"]).await.running.unwrap_or_default();
        assert!(running.iter().any(|writer| *writer >= stamp));
        assert_eq!(open.heads, [(0, Head::Nothing)]);
    }
    late.commit().await.expect("the transaction commits");
    let seen = heads(third, &["down"]).await;
    assert!(matches!(seen.heads[..], [(0, Head::Row(id))] if id > last));
}
