//! The oracle over random histories: nothing lost, nothing invented, each key's first deliveries in order.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use mainstay_outbox::{
    Admin, Event, EventId, Filter, LaneRef, Message, Ordering, OutboxDb, Outcome, Outcomes, Sink,
    SinkDown, sink::publish_each,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sqlx::Pool;
use tokio_util::sync::CancellationToken;

use crate::support::{BeginImmediately, on_each, outbox, quick, until};

on_each![
    random_histories_keep_order_and_lose_nothing,
    writers_of_one_key_that_know_nothing_of_each_other_are_in_the_order_of_their_commits,
];

/// Fails in every way a sink may, by a seed.
#[derive(Clone)]
struct Chaos {
    rng: Arc<Mutex<StdRng>>,
    acked: Arc<Mutex<Vec<Message>>>,
}

impl Sink for Chaos {
    async fn publish(&self, lane: LaneRef, batch: &[Message]) -> Result<Outcomes, SinkDown> {
        publish_each(&lane, batch, 3, async |message: &Message| {
            tokio::task::yield_now().await;
            let dice = self.rng.lock().unwrap().random_range(0..100);
            Ok(match dice {
                0..70 => {
                    self.acked.lock().unwrap().push(message.clone());
                    Outcome::Acked
                }
                // Stored, yet the ack is lost: a duplicate to come.
                70..75 => {
                    self.acked.lock().unwrap().push(message.clone());
                    Outcome::retry("the ack was lost")
                }
                75..93 => Outcome::retry("not now"),
                93..96 => Outcome::reject("never"),
                96..98 => Outcome::NotTried,
                98 => return Err(SinkDown::new("gone")),
                _ => panic!("a sink may"),
            })
        })
        .await
    }
}

async fn random_histories_keep_order_and_lose_nothing<Db: OutboxDb>(pool: Pool<Db>) {
    let seed = 20_261_121;
    let mut rng = StdRng::seed_from_u64(seed);
    let outbox = outbox(&pool, 8).await;
    let sink = Chaos {
        rng: Arc::new(Mutex::new(StdRng::seed_from_u64(seed + 1))),
        acked: Arc::default(),
    };
    let mut relays = Vec::new();
    for _ in 0..2 {
        let relay = quick(&pool, &outbox)
            .batch(7)
            .max_attempts(6)
            .sink("*", sink.clone());
        relays.push(relay.build().await.unwrap().spawn(CancellationToken::new()));
    }
    let mut committed: HashMap<EventId, (u32, u32)> = HashMap::new();
    let mut numbers: BTreeMap<u32, u32> = BTreeMap::new();
    for _ in 0..60 {
        let mut tx = pool.begin_immediately().await;
        let mut events = Vec::new();
        let mut written = Vec::new();
        for _ in 0..rng.random_range(1..8) {
            let key = rng.random_range(0..12u32);
            let number = numbers.entry(key).or_default();
            *number += 1;
            written.push((key, *number));
            events.push(
                Event::new("t")
                    .key(key.to_be_bytes())
                    .subject(number.to_string()),
            );
        }
        let ids = outbox.enqueue_many(&mut tx, events).await.unwrap();
        if rng.random_bool(0.2) {
            tx.rollback().await.unwrap();
        } else {
            tx.commit().await.unwrap();
            committed.extend(ids.into_iter().zip(written));
            outbox.waker().notify_after_commit();
        }
    }
    let admin = Admin::new(pool);
    until("nothing is pending", async || {
        admin.lag().await.unwrap().pending == 0
    })
    .await;
    for relay in relays {
        assert_eq!(relay.drain(Duration::from_secs(10)).await.unsettled, 0);
    }
    let dead: HashSet<EventId> = admin
        .dead(Filter::all(), 10_000)
        .await
        .unwrap()
        .iter()
        .map(|letter| letter.message().id())
        .collect();
    let acked = sink.acked.lock().unwrap();
    let mut seen: HashSet<EventId> = HashSet::new();
    let mut last: HashMap<u32, u32> = HashMap::new();
    for message in acked.iter() {
        let (key, number) = *committed
            .get(&message.id())
            .expect("only what committed is delivered");
        if seen.insert(message.id()) {
            let before = last.insert(key, number).unwrap_or(0);
            assert!(before < number, "key {key}: {number} came after {before}");
        }
    }
    for id in committed.keys() {
        assert!(seen.contains(id) || dead.contains(id), "{id} is lost");
    }
    assert!(dead.iter().all(|id| committed.contains_key(id)));
    assert!(
        acked.len() > 100 && !dead.is_empty(),
        "the history was not a dull one"
    );
}

/// The strict order takes a lock that ends with the transaction: whoever has enqueued commits before the next one of its key
/// enqueues. So tickets that are drawn between the two are, for each key, in the order of the commits.
async fn writers_of_one_key_that_know_nothing_of_each_other_are_in_the_order_of_their_commits<
    Db: OutboxDb,
>(
    pool: Pool<Db>,
) {
    let outbox = outbox(&pool, 8).await;
    let sink = Chaos {
        rng: Arc::new(Mutex::new(StdRng::seed_from_u64(20_261_130))),
        acked: Arc::default(),
    };
    let mut relays = Vec::new();
    for _ in 0..2 {
        let relay = quick(&pool, &outbox)
            .batch(5)
            .max_attempts(1_000)
            .sink("*", sink.clone());
        relays.push(relay.build().await.unwrap().spawn(CancellationToken::new()));
    }
    let tickets = AtomicU32::new(0);
    let committed: Mutex<HashMap<EventId, (u32, u32)>> = Mutex::default();
    let writer = async |seed: u64| {
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..40 {
            let mut tx = pool.begin_immediately().await;
            let keys: Vec<u32> = (0..rng.random_range(1..4))
                .map(|_| rng.random_range(0..3))
                .collect();
            let event = |key: &u32| {
                Event::new("t")
                    .key(key.to_be_bytes())
                    .ordering(Ordering::PerKeyStrict)
            };
            let events: Vec<Event> = keys.iter().map(event).collect();
            let ids = match outbox.enqueue_many(&mut tx, events).await {
                Ok(ids) => ids,
                // InnoDB ended a deadlock at its cost.
                Err(_) if Db::NAME == "MySQL" => continue,
                Err(error) => panic!("{error}"),
            };
            let mut written = Vec::new();
            for (id, key) in ids.into_iter().zip(keys) {
                written.push((id, (key, tickets.fetch_add(1, SeqCst) + 1)));
            }
            for _ in 0..rng.random_range(0..20) {
                tokio::task::yield_now().await;
            }
            if rng.random_bool(0.2) {
                tx.rollback().await.unwrap();
            } else {
                committed.lock().unwrap().extend(written);
                tx.commit().await.unwrap();
                outbox.waker().notify_after_commit();
            }
        }
    };
    futures_util::future::join_all((0..4).map(&writer)).await;
    let admin = Admin::new(pool.clone());
    until("nothing is pending", async || {
        admin.lag().await.unwrap().pending == 0
    })
    .await;
    for relay in relays {
        assert_eq!(relay.drain(Duration::from_secs(10)).await.unsettled, 0);
    }
    let dead = admin.dead(Filter::all(), 10_000).await.unwrap();
    let dead: HashSet<EventId> = dead.iter().map(|letter| letter.message().id()).collect();
    let committed = committed.into_inner().unwrap();
    let acked = sink.acked.lock().unwrap();
    let mut seen: HashSet<EventId> = HashSet::new();
    let mut last: HashMap<u32, u32> = HashMap::new();
    for message in acked.iter() {
        let (key, ticket) = committed[&message.id()];
        if seen.insert(message.id()) {
            let before = last.insert(key, ticket).unwrap_or(0);
            assert!(before < ticket, "key {key}: {ticket} came after {before}");
        }
    }
    let lost = committed
        .keys()
        .find(|id| !seen.contains(id) && !dead.contains(id));
    assert_eq!(lost, None);
    assert!(seen.len() > 100 && last.len() == 3);
}
