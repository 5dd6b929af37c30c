//! Payloads that only those with the key can read.

use std::time::Duration;

use mainstay_outbox::{
    Admin, Event, MemorySink, Outbox, OutboxConfig, OutboxDb,
    codec::{Aead, SealError},
    migrate,
    sink::{
        OpeningSink,
        cloudevents::{Binding, ContentMode, Received, Wire},
    },
};
use sqlx::Pool;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::{on_each, put, quick, until};

on_each![
    sealed_payloads_are_opened_by_the_consumer_or_by_the_relay,
    a_payload_that_does_not_open_is_a_dead_letter_and_holds_nobody_up,
];

const SOON: Duration = Duration::from_secs(10);

fn key(id: u32) -> Aead {
    Aead::new(id, &[u8::try_from(id).unwrap(); 32])
}

async fn sealing<Db: OutboxDb>(pool: &Pool<Db>, id: u32) -> Outbox<Db> {
    migrate(pool).await.unwrap();
    let config = OutboxConfig::default().source("/tests").seal(key(id));
    Outbox::new(config)
}

fn secret(topic: &str) -> Event {
    Event::new("t")
        .topic(topic)
        .key("k")
        .bytes("text/plain", "attack at dawn")
}

async fn sealed_payloads_are_opened_by_the_consumer_or_by_the_relay<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = sealing(&pool, 1).await;
    let (shut, plain) = (MemorySink::new(), MemorySink::new());
    let relay = quick(&pool, &outbox)
        .sink("shut", shut.clone())
        .sink("plain", OpeningSink::new(plain.clone(), key(1)));
    let relay = relay.build().await.unwrap().spawn(CancellationToken::new());
    put(&pool, &outbox, vec![secret("shut"), secret("plain")]).await;
    let open = Outbox::new(OutboxConfig::default().source("/tests"));
    put(&pool, &open, vec![secret("plain")]).await;

    // What is published unopened is what the table held.
    let sealed = timeout(SOON, shut.wait_for(1)).await.unwrap().remove(0);
    assert_eq!(sealed.content_type(), Some("application/octet-stream"));
    assert_eq!(sealed.header("sealedby"), Some("1"));
    let shows = |needle: &[u8]| sealed.payload().windows(needle.len()).any(|w| w == needle);
    assert!(!shows(b"attack") && !shows(b"text/plain"));
    for mode in [ContentMode::Binary, ContentMode::Structured] {
        let wire = Wire::new(&sealed, Binding::Nats, mode);
        let body = wire.body().clone();
        let received = Received::read(
            Binding::Nats,
            wire.content_type(),
            wire.headers(),
            body,
            "shut",
        );
        let received = received.unwrap();
        assert_eq!(received.clone().opened(&key(2)), Err(SealError));
        let opened = received.opened(&key(2).and(1, &[1; 32])).unwrap();
        assert_eq!(opened.payload(), "attack at dawn");
        assert_eq!(opened.content_type(), Some("text/plain"));
        assert_eq!(opened.header("sealedby"), None);
    }

    for message in timeout(SOON, plain.wait_for(2)).await.unwrap() {
        assert_eq!(message.payload(), "attack at dawn");
        assert_eq!(message.content_type(), Some("text/plain"));
        assert_eq!(message.header("sealedby"), None);
    }
    assert_eq!(relay.drain(SOON).await.unsettled, 0);
}

async fn a_payload_that_does_not_open_is_a_dead_letter_and_holds_nobody_up<Db: OutboxDb>(
    pool: Pool<Db>,
) {
    let (lost, known) = (sealing(&pool, 9).await, sealing(&pool, 1).await);
    put(&pool, &known, vec![secret("a").subject("first")]).await;
    put(&pool, &lost, vec![secret("a")]).await;
    put(&pool, &known, vec![secret("a").subject("last")]).await;
    let sink = MemorySink::new();
    let relay = quick(&pool, &known)
        .max_attempts(2)
        .sink("*", OpeningSink::new(sink.clone(), key(1)));
    let relay = relay.build().await.unwrap().spawn(CancellationToken::new());
    let messages = timeout(SOON, sink.wait_for(2)).await.unwrap();
    let subjects: Vec<_> = messages.iter().map(|message| message.subject()).collect();
    assert_eq!(subjects, [Some("first"), Some("last")]);
    until("the other one is given up", async || {
        Admin::new(pool.clone()).lag().await.unwrap().dead == 1
    })
    .await;
    assert_eq!(relay.drain(SOON).await.unsettled, 0);
}
