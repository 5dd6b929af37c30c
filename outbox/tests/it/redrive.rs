//! A redrive of parked keys while producers write and a relay delivers: nothing is overtaken.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mainstay_outbox::{Admin, Bulk, Event, Filter, KeyPolicy, MemorySink, OutboxDb, Outcome};
use sqlx::Pool;
use tokio_util::sync::CancellationToken;

use crate::support::{on_each, outbox, put, quick, until};

on_each!(a_redrive_in_many_batches_keeps_each_keys_order);

const KEYS: usize = 6;
const EVENTS: usize = 30;

async fn a_redrive_in_many_batches_keeps_each_keys_order<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 2).await;
    let mended = Arc::new(AtomicBool::new(false));
    let sink = MemorySink::new().respond({
        let mended = Arc::clone(&mended);
        move |message| {
            // The third of each key parks it, until whatever was wrong with it is mended.
            if message.subject() == Some("2") && !mended.load(Ordering::Relaxed) {
                Outcome::reject("not yet")
            } else {
                Outcome::Acked
            }
        }
    });
    let relay = quick(&pool, &outbox)
        .key_policy(KeyPolicy::Park)
        .batch(5)
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap()
        .spawn(CancellationToken::new());
    let event = |key: usize, n: usize| {
        Event::new("t")
            .key(format!("key-{key}"))
            .subject(n.to_string())
    };
    let half = EVENTS / 2;
    for n in 0..half {
        put(&pool, &outbox, (0..KEYS).map(|key| event(key, n)).collect()).await;
    }
    let admin = Admin::new(pool.clone());
    let letters = (KEYS * (half - 2)) as u64;
    until("every key is parked with what followed", async || {
        admin.lag().await.unwrap().dead == letters
    })
    .await;

    mended.store(true, Ordering::Relaxed);
    let redrive = tokio::spawn({
        let admin = admin.clone();
        // Seven a batch, so that keys are cut in the middle.
        async move { admin.redrive(Bulk::of(Filter::all()).per_second(70)).await }
    });
    for n in half..EVENTS {
        put(&pool, &outbox, (0..KEYS).map(|key| event(key, n)).collect()).await;
    }
    redrive.await.unwrap().unwrap();
    // What was set aside after the last look of the redrive, because its key was still parked.
    until("nothing is left", async || {
        admin.redrive(Filter::all()).await.unwrap();
        let lag = admin.lag().await.unwrap();
        (lag.pending, lag.dead, lag.parked_keys) == (0, 0, 0)
    })
    .await;
    relay.drain(Duration::from_secs(5)).await;

    let mut delivered: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
    for message in sink.messages() {
        let key = message.key().unwrap().to_vec();
        let n = message.subject().unwrap().parse().unwrap();
        delivered.entry(key).or_default().push(n);
    }
    assert_eq!(delivered.len(), KEYS);
    for (key, numbers) in delivered {
        let expected: Vec<usize> = (0..EVENTS).collect();
        assert_eq!(numbers, expected, "{}", String::from_utf8_lossy(&key));
    }
}
