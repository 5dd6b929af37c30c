//! What commits is delivered, what does not is not, and soon.

use std::{sync::Arc, time::Duration};

use mainstay_outbox::{
    Admin, BuildError, ChannelSink, ErrorKind, Event, Filter, LaneRef, MemorySink, Message,
    OutboxDb, Outcome, Outcomes, Relay, Sink, SinkDown, Unrouted, migrate, sink::publish_each,
};
use sqlx::Pool;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::support::{BeginImmediately, on_each, outbox, put, quick, until};

on_each![
    a_commit_is_delivered_and_a_rollback_is_not,
    a_wake_beats_the_poll,
    a_relay_without_a_wake_polls,
    a_channel_delivers_until_acked,
    a_drain_ends_what_is_in_flight_and_starts_nothing,
    a_drain_hands_over_each_lane_when_it_is_done,
    payloads_in_flight_are_bounded_over_all_claims,
    a_cancelled_token_drains,
    topics_choose_their_sinks,
    a_slow_sink_does_not_take_all_places,
    a_relay_that_does_not_fit_is_not_built,
];

const SOON: Duration = Duration::from_secs(10);

async fn a_commit_is_delivered_and_a_rollback_is_not<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 4).await;
    let sink = MemorySink::new();
    let relay = quick(&pool, &outbox)
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    let mut tx = pool.begin_immediately().await;
    outbox
        .enqueue(&mut tx, Event::new("rolled.back"))
        .await
        .unwrap();
    tx.rollback().await.unwrap();
    put(
        &pool,
        &outbox,
        vec![
            Event::new("committed")
                .json("x")
                .unwrap()
                .header("x-a", "b"),
        ],
    )
    .await;
    let messages = timeout(SOON, sink.wait_for(1)).await.unwrap();
    assert_eq!(messages[0].event_type(), "committed");
    assert_eq!(messages[0].payload(), &b"\"x\""[..]);
    let drained = relay.drain(SOON).await;
    assert_eq!(drained.unsettled, 0);
    assert_eq!(sink.offered().len(), 1);
    assert_eq!(Admin::new(pool).lag().await.unwrap().pending, 0);
}

async fn a_wake_beats_the_poll<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 4).await;
    let sink = MemorySink::new();
    let slow = Duration::from_secs(30);
    let relay = quick(&pool, &outbox)
        .poll_interval(slow)
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    put(&pool, &outbox, vec![Event::new("first")]).await;
    timeout(SOON, sink.wait_for(1)).await.unwrap();
    // Long enough for the polls to have become rare, were they the only way.
    for n in 2..12 {
        put(&pool, &outbox, vec![Event::new("next")]).await;
        timeout(Duration::from_secs(3), sink.wait_for(n))
            .await
            .expect("the wake was lost");
    }
    assert_eq!(relay.drain(SOON).await.unsettled, 0);
}

async fn a_relay_without_a_wake_polls<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 4).await;
    let sink = MemorySink::new();
    let relay = Relay::builder(pool.clone())
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    put(&pool, &outbox, vec![Event::new("a"), Event::new("b")]).await;
    timeout(SOON, sink.wait_for(2)).await.unwrap();
    relay.drain(SOON).await;
}

async fn a_channel_delivers_until_acked<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 4).await;
    let (sink, mut deliveries) = ChannelSink::new(8);
    let relay = quick(&pool, &outbox).sink("*", sink).build().await.unwrap();
    let relay = relay.spawn(CancellationToken::new());
    put(
        &pool,
        &outbox,
        vec![Event::new("a").key("k"), Event::new("b").key("k")],
    )
    .await;
    let mut seen = Vec::new();
    let mut answers = 0;
    while seen.len() < 2 {
        let delivery = timeout(SOON, deliveries.recv()).await.unwrap().unwrap();
        answers += 1;
        match answers {
            1 => drop(delivery),
            2 => delivery.retry("busy"),
            _ => {
                seen.push((
                    delivery.message().event_type().to_owned(),
                    delivery.message().attempt(),
                ));
                delivery.ack();
            }
        }
    }
    assert_eq!(seen, [("a".to_owned(), 3), ("b".to_owned(), 1)]);
    assert_eq!(relay.drain(SOON).await.unsettled, 0);
    assert_eq!(Admin::new(pool).lag().await.unwrap().pending, 0);
}

async fn a_drain_ends_what_is_in_flight_and_starts_nothing<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 1).await;
    let (sink, mut deliveries) = ChannelSink::new(1);
    let relay = quick(&pool, &outbox)
        .lease(Duration::from_secs(9)) // a heartbeat every three seconds: none of what follows may need one
        .batch(1)
        .sink("*", sink)
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    put(
        &pool,
        &outbox,
        vec![Event::new("a").key("k"), Event::new("b").key("k")],
    )
    .await;
    let first = timeout(SOON, deliveries.recv()).await.unwrap().unwrap();
    let drain = tokio::spawn(relay.drain(SOON));
    tokio::task::yield_now().await;
    let answered = Instant::now();
    first.ack();
    assert_eq!(drain.await.unwrap().unsettled, 0);
    assert!(
        answered.elapsed() < Duration::from_millis(1500),
        "it waited for a heartbeat after its last settlement: {:?}",
        answered.elapsed()
    );
    assert!(
        deliveries.recv().await.is_none(),
        "nothing was started after the drain began"
    );

    // The next relay takes over at once and finds nothing charged.
    let sink = MemorySink::new();
    let next = quick(&pool, &outbox)
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let before = Instant::now();
    let next = next.spawn(CancellationToken::new());
    let messages = timeout(SOON, sink.wait_for(1)).await.unwrap();
    assert!(
        before.elapsed() < Duration::from_millis(900),
        "it waited for a lease: {:?}",
        before.elapsed()
    );
    assert_eq!((messages[0].event_type(), messages[0].attempt()), ("b", 1));
    next.drain(SOON).await;
}

async fn a_drain_hands_over_each_lane_when_it_is_done<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 8).await;
    let (sink, mut deliveries) = ChannelSink::new(8);
    let relay = quick(&pool, &outbox)
        .lease(Duration::from_secs(60))
        .sink("*", sink)
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    let events = ["e", "g", "h"].map(|key| Event::new("t").key(key)); // three lanes
    put(&pool, &outbox, events.into()).await;
    let mut waiting = Vec::new();
    while waiting.len() < 3 {
        waiting.push(timeout(SOON, deliveries.recv()).await.unwrap().unwrap());
    }
    let drain = tokio::spawn(relay.drain(SOON));
    for free in 5..8 {
        until("idle lanes are free", async || {
            Db::survey(pool.clone()).await.unwrap().free == free
        })
        .await;
        waiting.pop().unwrap().ack();
    }
    assert_eq!(drain.await.unwrap().unsettled, 0);
}

async fn payloads_in_flight_are_bounded_over_all_claims<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 16).await;
    let (sink, mut deliveries) = ChannelSink::new(100);
    let relay = quick(&pool, &outbox)
        .in_flight_bytes_max(1_000)
        .sink("*", sink)
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    let events = (0..20).map(|n: u8| Event::new("t").key([n]).bytes("t/t", vec![n; 600]));
    put(&pool, &outbox, events.collect()).await;
    // One message may cross the bound, so there are two at a time, however many lanes could have more.
    let mut two = Vec::new();
    for _ in 0..2 {
        two.push(timeout(SOON, deliveries.recv()).await.unwrap().unwrap());
    }
    let third = timeout(Duration::from_millis(300), deliveries.recv()).await;
    assert!(third.is_err(), "a third message was in flight");
    for delivery in two {
        delivery.ack();
    }
    for _ in 2..20 {
        timeout(SOON, deliveries.recv())
            .await
            .unwrap()
            .unwrap()
            .ack();
    }
    assert_eq!(relay.drain(SOON).await.unsettled, 0);
}

async fn a_cancelled_token_drains<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 1).await;
    let (sink, mut deliveries) = ChannelSink::new(1);
    let brief = Duration::from_millis(50);
    let relay = quick(&pool, &outbox)
        .drain_timeout(brief)
        .sink("*", sink)
        .build()
        .await
        .unwrap();
    let cancel = CancellationToken::new();
    let relay = relay.spawn(cancel.clone());
    put(&pool, &outbox, vec![Event::new("stuck")]).await;
    let stuck = timeout(SOON, deliveries.recv()).await.unwrap().unwrap();
    cancel.cancel();
    assert_eq!(timeout(SOON, relay.join()).await.unwrap().unsettled, 1);
    drop(stuck);

    // Cut off by the deadline, its outcome is unknown: charged, and delivered again without waiting for a lease.
    let sink = MemorySink::new();
    let next = quick(&pool, &outbox)
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let next = next.spawn(CancellationToken::new());
    assert_eq!(
        timeout(SOON, sink.wait_for(1)).await.unwrap()[0].attempt(),
        2
    );
    next.drain(SOON).await;
}

async fn topics_choose_their_sinks<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 2).await;
    let (all, hooks, late) = (MemorySink::new(), MemorySink::new(), MemorySink::new());
    let relay = || {
        quick(&pool, &outbox)
            .sink("orders", all.clone())
            .sink("hooks.*", hooks.clone())
    };
    let old = relay().build().await.unwrap();
    let old = old.spawn(CancellationToken::new());
    let event = |topic: &str| Event::new("t").topic(topic).key("k");
    let topics = ["orders", "hooks.a", "new", "nowhere", "orders"];
    put(&pool, &outbox, topics.map(event).to_vec()).await;
    timeout(SOON, all.wait_for(2)).await.unwrap();
    timeout(SOON, hooks.wait_for(1)).await.unwrap();
    until("what has no sink is met", async || {
        old.topics_without_sink() == ["new", "nowhere"]
    })
    .await;
    old.drain(SOON).await;
    let admin = Admin::new(pool.clone());
    assert!(admin.dead(Filter::all(), 10).await.unwrap().is_empty());
    assert_eq!(admin.lag().await.unwrap().pending, 2);

    // The next version has a sink for one, and gives up the other on request.
    let new = relay()
        .sink("new", late.clone())
        .unrouted(Unrouted::DeadLetter);
    let new = new.build().await.unwrap().spawn(CancellationToken::new());
    timeout(SOON, late.wait_for(1)).await.unwrap();
    until("nothing waits", async || {
        admin.lag().await.unwrap().pending == 0
    })
    .await;
    new.drain(SOON).await;
    let dead = admin.dead(Filter::all(), 10).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].message().topic(), "nowhere");
    assert_eq!(dead[0].cause(), mainstay_outbox::DeadCause::NoSink);
}

/// It answers when it is told to.
struct Slow(Arc<Semaphore>);

impl Sink for Slow {
    async fn publish(&self, lane: LaneRef, batch: &[Message]) -> Result<Outcomes, SinkDown> {
        publish_each(&lane, batch, 1, async |_: &Message| {
            self.0.acquire().await.unwrap().forget();
            Ok(Outcome::Acked)
        })
        .await
    }
}

async fn a_slow_sink_does_not_take_all_places<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 32).await;
    let (answers, fast) = (Arc::new(Semaphore::new(0)), MemorySink::new());
    let relay = quick(&pool, &outbox)
        .batch(1)
        .in_flight_max(12)
        .sink_in_flight_max(4)
        .sink("slow", Slow(Arc::clone(&answers)))
        .sink("fast", fast.clone());
    let relay = relay.build().await.unwrap();
    let of = |topic: &str, n: u32| Event::new("t").topic(topic).key(format!("{topic} {n}"));
    put(&pool, &outbox, (0..200).map(|n| of("slow", n)).collect()).await;
    put(&pool, &outbox, (0..200).map(|n| of("fast", n)).collect()).await;
    let relay = relay.spawn(CancellationToken::new());
    // In all lanes but the four in which the slow one has its messages: of 200 keys some 175 are there.
    timeout(SOON, fast.wait_for(100)).await.unwrap();
    let admin = Admin::new(pool.clone());
    let slow = async || {
        let topics = admin.lag_by_topic().await.unwrap();
        topics
            .iter()
            .find(|of| of.topic == "slow")
            .map_or(0, |of| of.pending)
    };
    assert_eq!(slow().await, 200, "nothing was answered");
    assert!(relay.stats().in_flight <= 12);
    answers.add_permits(200);
    until("all are delivered", async || {
        admin.lag().await.unwrap().pending == 0
    })
    .await;
    assert_eq!(relay.drain(SOON).await.unsettled, 0);
}

async fn a_relay_that_does_not_fit_is_not_built<Db: OutboxDb>(pool: Pool<Db>) {
    let build = |lanes| {
        Relay::builder(pool.clone())
            .lanes(lanes)
            .sink("*", MemorySink::new())
            .build()
    };
    let kind = |error| match error {
        BuildError::Store(error) => mainstay_outbox::Error::kind(&error),
        other => panic!("{other}"),
    };
    assert_eq!(kind(build(64).await.unwrap_err()), ErrorKind::NotMigrated);
    migrate(&pool).await.unwrap();
    assert_eq!(
        kind(build(8).await.unwrap_err()),
        ErrorKind::LaneCount {
            stored: 64,
            asked: 8
        }
    );
    assert!(build(64).await.is_ok());
    let bare = Relay::builder(pool.clone());
    assert!(matches!(bare.build().await, Err(BuildError::NoSink)));
    let short = Relay::builder(pool.clone())
        .sink("*", MemorySink::new())
        .lease(Duration::from_millis(10));
    assert!(matches!(
        short.build().await,
        Err(BuildError::Setting {
            setting: "lease",
            ..
        })
    ));
}

/// G1: a transaction that takes the lower id commits last, and both are delivered at once.
#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn a_late_commit_with_a_lower_id_is_found_at_once_on_postgres() {
    let database = crate::support::postgres().await;
    let pool = database.pool.clone();
    let outbox = outbox(&pool, 1).await;
    let sink = MemorySink::new();
    let relay = quick(&pool, &outbox)
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    let mut late = pool.begin().await.unwrap();
    outbox
        .enqueue(&mut late, Event::new("late").key("a"))
        .await
        .unwrap();
    put(&pool, &outbox, vec![Event::new("early").key("b")]).await;
    let moment = Duration::from_secs(2);
    assert_eq!(
        timeout(moment, sink.wait_for(1)).await.unwrap()[0].event_type(),
        "early"
    );
    late.commit().await.unwrap();
    outbox.waker().notify_after_commit();
    assert_eq!(
        timeout(moment, sink.wait_for(2)).await.unwrap()[1].event_type(),
        "late"
    );
    relay.drain(SOON).await;
    database.gone().await;
}
