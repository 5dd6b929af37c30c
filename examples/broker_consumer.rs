//! Events that go through a broker and take effect once: outbox, relay, JetStream, consumer with an inbox.
//!
//! Run it with `cargo run --example broker_consumer --features sink-nats`. It needs a NATS server with JetStream, at
//! `nats://127.0.0.1:4222` or at the URL given as argument, and takes away what it makes there.
//!
//! It prints (order-1 and order-2 have no order between them, so their lines may come in another one):
//!
//! ```text
//! three events committed with their orders, and published: 3
//!
//! order-1 order.placed, attempt 1: First, acknowledgement lost
//! order-2 order.refunded, attempt 1: no such order, given up
//! order-1 order.placed, attempt 2: Duplicate
//! order-1 order.paid, attempt 1: First
//!
//! acknowledged: 2, tried again: 1, dead letters: 1
//! mails sent: order.placed, order.paid
//! in the dead letters: order.refunded: no such order
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{error::Error, time::Duration};

use mainstay::{
    idempotency::{self, Inbox, Seen},
    outbox::{
        self, Event, EventId, Outbox, OutboxConfig, Relay,
        async_nats::{
            self,
            jetstream::{self, consumer::pull, context::Context, stream},
        },
        consume::{ConsumerConfig, Handled, NatsConsumer, Received},
        sink::NatsSink,
    },
    retry::Backoff,
};
use sqlx::{Sqlite, SqlitePool, sqlite::SqliteConnectOptions};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn Error + Send + Sync>;

/// Notes the event's id and applies the event, in one transaction of the consumer's database.
async fn apply(pool: &SqlitePool, event: &Received) -> Result<Seen, Failure> {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    let seen = Inbox::once(&mut *tx, "mailer", event.id()).await?;
    if seen == Seen::First {
        sqlx::query("INSERT INTO mail (subject) VALUES (?1)")
            .bind(event.event_type())
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?; // and only then is it acknowledged
    Ok(seen)
}

/// What the consumer does with each event.
async fn mail(pool: SqlitePool, event: Received) -> Handled {
    let key = String::from_utf8_lossy(event.key().unwrap_or_default()).into_owned();
    let what = format!("{key} {}, attempt {}", event.event_type(), event.attempt());
    if event.event_type() == "order.refunded" {
        println!("{what}: no such order, given up");
        return Handled::dead("no such order");
    }
    match apply(&pool, &event).await {
        // As if this process had died between the commit and the acknowledgement.
        Ok(seen) if event.event_type() == "order.placed" && event.attempt() == 1 => {
            println!("{what}: {seen:?}, acknowledgement lost");
            Handled::retry("the acknowledgement is lost")
        }
        Ok(seen) => {
            println!("{what}: {seen:?}");
            Handled::Done
        }
        Err(error) => Handled::retry(error.to_string()),
    }
}

/// Orders are placed and paid for in the database; their events are published to the broker.
async fn produce(pool: &SqlitePool, broker: Context, subject: String) -> Result<u64, Failure> {
    let outbox = Outbox::<Sqlite>::new(OutboxConfig::default().source("/shop"));
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    for (order, what) in [
        ("order-1", "placed"),
        ("order-1", "paid"),
        ("order-2", "refunded"),
    ] {
        // .. the writes that the event tells of ..
        let event = Event::new(format!("order.{what}"))
            .topic("orders")
            .key(order) // events of one key arrive in order
            .json(&order)?;
        outbox.enqueue(&mut tx, event).await?;
    }
    tx.commit().await?;
    outbox.waker().notify_after_commit();

    let relay = Relay::builder(pool.clone())
        .outbox(&outbox)
        .sink(
            "orders",
            NatsSink::new(broker).subject(move |_| subject.clone()),
        )
        .build()
        .await?
        .spawn(CancellationToken::new());
    while relay.stats().delivered < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let delivered = relay.stats().delivered;
    relay.drain(Duration::from_secs(5)).await;
    Ok(delivered)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("shop.db"))
        .create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await?;
    // The consumer's; its database may be another one.
    sqlx::query("CREATE TABLE mail (subject TEXT NOT NULL)")
        .execute(&pool)
        .await?;
    outbox::migrate(&pool).await?;
    idempotency::migrate(&pool).await?;

    let url = std::env::args().nth(1);
    let url = url.unwrap_or_else(|| "nats://127.0.0.1:4222".to_owned());
    let broker = jetstream::new(async_nats::connect(url).await?);
    // One stream for the events and one subject in it for the dead; a service has both set up beforehand.
    let shop = format!("shop-{}", EventId::generate());
    let (events, dead) = (format!("{shop}.orders"), format!("{shop}.dead"));
    let stream = broker
        .create_stream(stream::Config {
            name: shop.clone(),
            subjects: vec![events.clone(), dead.clone()],
            ..stream::Config::default()
        })
        .await?;

    let published = produce(&pool, broker.clone(), events.clone()).await?;
    println!("three events committed with their orders, and published: {published}\n");

    let consumer = stream
        .create_consumer(pull::Config {
            durable_name: Some("mailer".to_owned()),
            filter_subject: events,
            ..pull::Config::default()
        })
        .await?;
    let soon = Backoff::constant(Duration::from_millis(20)); // so that the example ends soon
    let consumer = NatsConsumer::new(consumer, ConsumerConfig::default().retry(soon))?
        .dead_letters(broker.clone(), dead.clone());
    let shutdown = CancellationToken::new();
    let (handled, mut calls) = mpsc::channel(8);
    let database = pool.clone();
    let consuming = tokio::spawn(consumer.run(
        move |event| {
            let (pool, handled) = (database.clone(), handled.clone());
            async move {
                let outcome = mail(pool, event).await;
                let _ = handled.send(()).await;
                outcome
            }
        },
        shutdown.clone(),
    ));
    for _ in 0..4 {
        calls.recv().await;
    }
    shutdown.cancel(); // what is under way ends, nothing more is taken
    let consumed = consuming.await?;
    println!(
        "\nacknowledged: {}, tried again: {}, dead letters: {}",
        consumed.done, consumed.retried, consumed.dead
    );
    let mails: Vec<String> = sqlx::query_scalar("SELECT subject FROM mail ORDER BY rowid")
        .fetch_all(&pool)
        .await?;
    println!("mails sent: {}", mails.join(", "));
    let letter = stream.get_last_raw_message_by_subject(&dead).await?;
    let header = |name: &str| letter.headers.get(name).map_or("", |value| value.as_str());
    println!(
        "in the dead letters: {}: {}",
        header("ce-type"),
        header("x-dead-letter-reason")
    );
    broker.delete_stream(&shop).await?;
    pool.close().await;
    Ok(())
}
