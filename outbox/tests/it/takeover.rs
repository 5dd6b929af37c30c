//! Several relays, dead relays and zombies.

use std::time::Duration;

use mainstay_outbox::{
    Admin, ChannelSink, DeadCause, Event, Filter, MemorySink, OutboxDb,
    store::{Ask, Held, InFlight, Look},
};
use sqlx::Pool;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{on_each, outbox, put, quick, until};

on_each![
    two_relays_share_the_lanes_and_the_last_one_has_them_all,
    late_acks_of_a_zombie_are_fenced_and_counted,
    a_crash_during_the_last_attempt_is_charged_and_strands_nothing,
    a_lowered_maximum_strands_nothing,
];

const SOON: Duration = Duration::from_secs(15);

async fn two_relays_share_the_lanes_and_the_last_one_has_them_all<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 16).await;
    let sink = MemorySink::new();
    let spawn = async || {
        let relay = quick(&pool, &outbox)
            .sink("*", sink.clone())
            .build()
            .await
            .unwrap();
        relay.spawn(CancellationToken::new())
    };
    let one = spawn().await;
    until("the first has every lane", async || one.stats().lanes == 16).await;
    let two = spawn().await;
    until("they share", async || {
        (one.stats().lanes, two.stats().lanes) == (8, 8)
    })
    .await;
    for round in 0..10u32 {
        let events = (0..20u32).map(|n| {
            Event::new("t")
                .key((n % 5).to_be_bytes())
                .subject(format!("{}", round * 20 + n))
        });
        put(&pool, &outbox, events.collect()).await;
    }
    timeout(SOON, sink.wait_for(200)).await.unwrap();
    assert_eq!(one.drain(SOON).await.unsettled, 0);
    until("the second has them all", async || two.stats().lanes == 16).await;
    put(
        &pool,
        &outbox,
        (0..20u32)
            .map(|n| Event::new("t").key(n.to_be_bytes()))
            .collect(),
    )
    .await;
    let messages = timeout(SOON, sink.wait_for(220)).await.unwrap();
    two.drain(SOON).await;
    assert_eq!(messages.len(), 220, "nothing twice");
    for key in 0..5u32 {
        let of_key = messages
            .iter()
            .filter(|m| m.key() == Some(&key.to_be_bytes()) && m.subject().is_some());
        let numbers: Vec<u32> = of_key
            .map(|m| m.subject().unwrap().parse().unwrap())
            .collect();
        assert!(numbers.is_sorted() && numbers.len() == 40, "{numbers:?}");
    }
}

/// L1: the relay was away long enough for another to take its lane, and its ack comes afterwards.
async fn late_acks_of_a_zombie_are_fenced_and_counted<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 1).await;
    let (sink, mut deliveries) = ChannelSink::new(1);
    let zombie = quick(&pool, &outbox).sink("*", sink).build().await.unwrap();
    let zombie = zombie.spawn(CancellationToken::new());
    put(&pool, &outbox, vec![Event::new("t")]).await;
    let delivery = timeout(SOON, deliveries.recv()).await.unwrap().unwrap();

    // What a pause past the lease leads to: the lane is free, and somebody else has it in a new epoch.
    let old = Held { lane: 0, epoch: 1 };
    Db::release(pool.clone(), vec![old], true).await.unwrap();
    let lease = Duration::from_secs(60);
    let taken = Db::acquire(pool.clone(), Uuid::now_v7(), lease, 1)
        .await
        .unwrap();
    assert_eq!((taken[0].epoch, taken[0].charged), (2, 1));
    delivery.ack();
    until("the late ack was counted", async || {
        zombie.stats().fenced == 1
    })
    .await;
    assert_eq!(zombie.stats().delivered, 0);
    assert_eq!(
        Admin::new(pool.clone()).lag().await.unwrap().pending,
        1,
        "the row is the new owner's"
    );

    let new = Held { lane: 0, epoch: 2 };
    Db::release(pool.clone(), vec![new], true).await.unwrap();
    let again = timeout(SOON, deliveries.recv()).await.unwrap().unwrap();
    assert_eq!(again.message().attempt(), 2);
    again.ack();
    let admin = Admin::new(pool);
    until("it is settled", async || {
        admin.lag().await.unwrap().pending == 0
    })
    .await;
    zombie.drain(SOON).await;
}

/// Claims what is there and dies: what a SIGKILL in the middle of publishing leaves behind.
async fn claim_and_die<Db: OutboxDb>(pool: &Pool<Db>) {
    let brief = Duration::from_millis(1);
    let grants = Db::acquire(pool.clone(), Uuid::now_v7(), Duration::from_secs(60), 1)
        .await
        .unwrap();
    let held = Held {
        lane: grants[0].lane,
        epoch: grants[0].epoch,
    };
    let ask = Ask {
        lanes: vec![Look::new(held.lane, 0)],
        batch: 100,
        total: 100,
        bytes: u64::MAX,
        skip_topics: Vec::new(),
        held_back: true,
        large: false,
    };
    let ids = Db::candidates(pool.clone(), ask)
        .await
        .unwrap()
        .iter()
        .map(|row| row.id)
        .collect();
    Db::record(
        pool.clone(),
        brief,
        vec![InFlight {
            held,
            batch: 1,
            rewinds: 0,
            ids,
        }],
    )
    .await
    .unwrap();
    until("the lease ran out", async || {
        Db::survey(pool.clone()).await.unwrap().free == 1
    })
    .await;
}

/// L5.
async fn a_crash_during_the_last_attempt_is_charged_and_strands_nothing<Db: OutboxDb>(
    pool: Pool<Db>,
) {
    let outbox = outbox(&pool, 1).await;
    put(&pool, &outbox, vec![Event::new("t")]).await;
    claim_and_die(&pool).await;
    claim_and_die(&pool).await;
    let sink = MemorySink::new();
    let relay = quick(&pool, &outbox)
        .max_attempts(2)
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    let admin = Admin::new(pool);
    until("it is a dead letter", async || {
        admin.lag().await.unwrap().dead == 1
    })
    .await;
    relay.drain(SOON).await;
    let dead = admin.dead(Filter::all(), 1).await.unwrap();
    assert_eq!(
        (dead[0].cause(), dead[0].message().attempt()),
        (DeadCause::Exhausted, 2)
    );
    assert!(sink.offered().is_empty());
    assert_eq!(admin.lag().await.unwrap().pending, 0);
}

async fn a_lowered_maximum_strands_nothing<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 1).await;
    put(
        &pool,
        &outbox,
        vec![Event::new("t").key("k"), Event::new("u").key("k")],
    )
    .await;
    for _ in 0..3 {
        claim_and_die(&pool).await;
    }
    let sink = MemorySink::new();
    let relay = quick(&pool, &outbox)
        .max_attempts(1)
        .sink("*", sink)
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    let admin = Admin::new(pool);
    until("both are dead letters", async || {
        admin.lag().await.unwrap().dead == 2
    })
    .await;
    relay.drain(SOON).await;
    assert_eq!(admin.lag().await.unwrap().pending, 0);
}
