use std::{
    collections::HashSet,
    time::{Duration, UNIX_EPOCH},
};

use sqlx::{Connection, Pool};

use super::{due, everything, migrated, named, names, put};
use crate::{
    EnqueueError, ErrorKind, Event, EventId, InvalidEvent, Ordering, Outbox, OutboxConfig, migrate,
    migrate_with_lanes, outbox::wall_clock, store::OutboxDb,
};

pub(super) async fn an_empty_database_is_said_to_be_unmigrated<Db: OutboxDb>(pool: Pool<Db>) {
    let error = Db::lanes(pool).await.expect_err("there are no tables");
    assert_eq!(error.kind(), ErrorKind::NotMigrated);
}

pub(super) async fn racing_migrations_agree<Db: OutboxDb>(pool: Pool<Db>) {
    let (one, two) = tokio::join!(migrate(&pool), migrate(&pool));
    one.expect("the first migrates");
    two.expect("the second migrates");
    assert_eq!(Db::lanes(pool.clone()).await.expect("lanes are read"), 64);
    let error = migrate_with_lanes(&pool, 8)
        .await
        .expect_err("lanes are fixed");
    assert_eq!(
        error.kind(),
        ErrorKind::LaneCount {
            stored: 64,
            asked: 8
        }
    );
    migrate_with_lanes(&pool, 64)
        .await
        .expect("the same number is fine");
}

/// Events with every field set, and with none.
fn full() -> Event {
    Event::new("type")
        .topic("topic")
        .subject("full")
        .key([0, 255, 39])
        .time(UNIX_EPOCH + Duration::from_micros(1_763_700_000_123_456))
        .bytes("application/x-anything", vec![0u8, 1, 2, 255, 92, 39])
        .header("x-b", "2 \"quoted\" ünd")
        .header("x-a", "")
}

pub(super) async fn what_is_enqueued_comes_back_byte_for_byte<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    put(&pool, &outbox, full()).await;
    put(&pool, &outbox, named("bare")).await;
    let mut tx = pool.begin().await.expect("a transaction begins");
    let many = [
        full(),
        named("bare"),
        Event::new("t").subject("empty").key(""),
    ];
    outbox
        .enqueue_many(&mut tx, many)
        .await
        .expect("events are enqueued");
    tx.commit().await.expect("the transaction commits");

    let rows = due(&pool, everything([0])).await;
    assert_eq!(names(&rows), ["full", "bare", "full", "bare", "empty"]);
    for row in rows
        .iter()
        .filter(|row| row.message.subject() == Some("full"))
    {
        let (message, sent) = (&row.message, full());
        assert_eq!(message.event_type(), "type");
        assert_eq!(message.topic(), "topic");
        assert_eq!(message.source(), "/conformance");
        assert_eq!(message.key(), sent.key.as_deref());
        assert_eq!(Some(message.time()), sent.time);
        assert_eq!(message.content_type(), sent.content_type.as_deref());
        assert_eq!(message.payload(), &sent.payload);
        assert_eq!(message.headers, sent.headers);
        assert_eq!(message.attempt(), 1);
    }
    for row in rows
        .iter()
        .filter(|row| row.message.subject() == Some("bare"))
    {
        let message = &row.message;
        assert_eq!(
            (message.topic(), message.key(), message.content_type()),
            ("t", None, None)
        );
        assert!(message.payload().is_empty() && message.headers.is_empty());
        assert!(
            message.time() > UNIX_EPOCH,
            "the database's clock filled in"
        );
    }
    let empty = rows.last().expect("five rows");
    assert_eq!(empty.message.key(), Some(&[][..]), "an empty key is a key");
}

pub(super) async fn many_events_keep_their_order_in_one_statement<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    let sent: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    let mut tx = pool.begin().await.expect("a transaction begins");
    let events = sent.iter().map(|name| named(name).key("k"));
    let ids = outbox
        .enqueue_many(&mut tx, events)
        .await
        .expect("events are enqueued");
    tx.commit().await.expect("the transaction commits");
    let rows = due(&pool, everything([0])).await;
    assert_eq!(names(&rows), sent);
    assert!(
        rows.iter().map(|row| row.message.id()).eq(ids),
        "ids are given back in order"
    );
}

pub(super) async fn what_is_rolled_back_is_never_seen<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    let mut tx = pool.begin().await.expect("a transaction begins");
    outbox
        .enqueue(&mut tx, named("rolled back"))
        .await
        .expect("the event is enqueued");
    tx.rollback().await.expect("the transaction rolls back");

    let mut tx = pool.begin().await.expect("a transaction begins");
    outbox
        .enqueue(&mut tx, named("kept"))
        .await
        .expect("the event is enqueued");
    let mut savepoint = tx.begin().await.expect("a savepoint is set");
    outbox
        .enqueue(&mut savepoint, named("savepoint"))
        .await
        .expect("the event is enqueued");
    savepoint
        .rollback()
        .await
        .expect("the savepoint rolls back");
    tx.commit().await.expect("the transaction commits");
    assert_eq!(names(&due(&pool, everything([0])).await), ["kept"]);
}

pub(super) async fn a_refused_event_leaves_the_transaction_usable<Db: OutboxDb>(pool: Pool<Db>) {
    migrated(&pool, 1).await;
    let outbox = Outbox::<Db>::new(OutboxConfig::default().payload_bytes_max(10));
    let mut tx = pool.begin().await.expect("a transaction begins");
    let large = || Event::new("t").bytes("text/plain", vec![b'x'; 11]);
    for refused in [
        outbox.enqueue(&mut tx, large()).await.map(drop),
        outbox.enqueue(&mut tx, Event::new("nul\0")).await.map(drop),
    ] {
        let error = refused.expect_err("the event is refused");
        assert!(matches!(error, EnqueueError::Invalid(_)), "{error:?}");
    }
    let error = outbox
        .enqueue(&mut tx, large())
        .await
        .expect_err("the event is refused");
    let expected = InvalidEvent::TooLarge {
        part: "payload",
        actual: 11,
        max: 10,
    };
    assert!(matches!(error, EnqueueError::Invalid(invalid) if invalid == expected));

    let bad = large();
    let id = bad.id;
    let error = outbox
        .enqueue_many(&mut tx, [named("not alone"), bad])
        .await
        .expect_err("one of the events is refused");
    assert_eq!(
        error.to_string(),
        format!("event 1 of the call, counted from 0, is refused: {id}")
    );
    let reason = std::error::Error::source(&error).map(ToString::to_string);
    assert_eq!(reason, Some(expected.to_string()));
    let endless = std::iter::repeat_with(|| named("n"));
    let error = outbox
        .enqueue_many(&mut tx, endless)
        .await
        .expect_err("too many events are refused");
    assert_eq!(error.to_string(), "more than 1000 events in one call");
    outbox
        .enqueue(&mut tx, named("after"))
        .await
        .expect("the transaction is usable");
    tx.commit().await.expect("the transaction commits");
    assert_eq!(names(&due(&pool, everything([0])).await), ["after"]);
}

pub(super) async fn an_unordered_event_stands_in_the_lane_of_its_id<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 64).await;
    let event = |name: &str| named(name).key("k").ordering(Ordering::Unordered);
    put(&pool, &outbox, event("alone")).await;
    let mut tx = pool.begin().await.expect("a transaction begins");
    let rest = ["a", "b", "c", "d", "e", "f", "g"].map(event);
    outbox
        .enqueue_many(&mut tx, rest)
        .await
        .expect("events are enqueued");
    tx.commit().await.expect("the transaction commits");
    let rows = due(&pool, everything(0..64)).await;
    assert_eq!(rows.len(), 8);
    let lanes: HashSet<i32> = rows.iter().map(|row| row.lane).collect();
    assert!(lanes.len() > 1, "eight ids in one lane of 64");
    assert!(
        rows.iter()
            .all(|row| row.message.key() == Some("k".as_bytes())),
        "consumers are told the key"
    );
}

pub(super) async fn what_is_not_due_is_not_in_the_lanes<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    let far = wall_clock() + Duration::from_secs(3_600);
    let waits = |name: &str| named(name).key("k").not_before(far);
    let mut tx = pool.begin().await.expect("a transaction begins");
    outbox
        .enqueue(&mut tx, waits("alone"))
        .await
        .expect("the event is enqueued");
    let mixed = [waits("first"), named("now").key("k"), waits("last")];
    let sent: Vec<EventId> = mixed.iter().map(|event| event.id).collect();
    let ids = outbox
        .enqueue_many(&mut tx, mixed)
        .await
        .expect("events are enqueued");
    assert_eq!(ids, sent, "ids are given back in order");
    let centuries = named("never").not_before(far + Duration::from_secs(10_000_000_000));
    let error = outbox
        .enqueue(&mut tx, centuries)
        .await
        .expect_err("nobody waits that long");
    assert!(matches!(
        error,
        EnqueueError::Invalid(InvalidEvent::NotBefore)
    ));
    tx.commit().await.expect("the transaction commits");
    let rows = due(&pool, everything([0])).await;
    assert_eq!(names(&rows), ["now"], "what waits holds nothing back");
}

pub(super) async fn missing_tables_are_told_from_failures<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = Outbox::<Db>::new(OutboxConfig::default());
    let now = named("now");
    let later = named("later").not_before(UNIX_EPOCH);
    for events in [vec![now.clone()], vec![later], vec![now.clone(), now]] {
        let mut conn = pool.acquire().await.expect("a connection is free");
        let error = if let [event] = events.as_slice() {
            outbox.enqueue(&mut conn, event.clone()).await.map(drop)
        } else {
            outbox.enqueue_many(&mut conn, events).await.map(drop)
        };
        let error = error.expect_err("there are no tables");
        assert!(
            matches!(error, EnqueueError::SchemaMismatch(Some(_))),
            "{error:?}"
        );
    }
}
