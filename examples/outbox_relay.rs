//! Events that are published if, and only if, their transaction commits: outbox, relay, consumer with an inbox; a broker
//! that dies and returns, and a dead letter that is brought back.
//!
//! Run it with `cargo run --example outbox_relay`. The database is a file in a temporary folder.
//!
//! It prints (order-1 and order-2 have no order between them, so their lines may come in another one):
//!
//! ```text
//! # the producer
//! four events enqueued, one of them rolled back; pending: 3
//!
//! # the consumer
//! order-2 order.placed, attempt 1: First, acknowledgement lost
//! order-1 order.placed, attempt 1: the mail server is away, later
//! order-2 order.placed, attempt 2: Duplicate, acknowledged
//! order-1 order.placed, attempt 2: First, acknowledged
//! order-1 order.paid, attempt 1: First, acknowledged
//! mails sent: order.placed, order.placed, order.paid
//!
//! # a broker that dies and returns
//! three invoices enqueued while it is down; pending: 3, the first is at attempt 1
//! it is back, and took: invoice-1, invoice-3
//!
//! # a dead letter
//! invoice-2 was given up after 1 attempt: no such customer
//! the customer exists now, redriven: 1; the broker took: invoice-2
//!
//! # the end
//! unsettled: 0, pending: 0, dead: 0
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mainstay::{
    idempotency::{self, Inbox, Seen},
    outbox::{
        self, Admin, ChannelSink, Event, Filter, MemorySink, Message, Outbox, OutboxConfig,
        Outcome, Relay,
    },
    retry::Backoff,
};
use sqlx::{Sqlite, SqliteConnection, SqlitePool, sqlite::SqliteConnectOptions};
use tokio_util::sync::CancellationToken;

/// Writes what happened to an order, and the event that tells of it, in the caller's transaction.
async fn order_is(
    tx: &mut SqliteConnection,
    outbox: &Outbox<Sqlite>,
    order: &str,
    status: &str,
) -> Result<(), Box<dyn Error>> {
    sqlx::query("INSERT INTO history (order_id, status) VALUES (?1, ?2)")
        .bind(order)
        .bind(status)
        .execute(&mut *tx)
        .await?;
    let event = Event::new(format!("order.{status}"))
        .topic("orders")
        .key(order) // events of one key arrive in order
        .json(&order)?;
    outbox.enqueue(tx, event).await?;
    Ok(())
}

/// The consumer: notes the message's id and applies the message in one transaction of its own.
async fn apply(pool: &SqlitePool, message: &Message) -> Result<Seen, Box<dyn Error>> {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    let seen = Inbox::once(&mut *tx, "mailer", message.id().to_string()).await?;
    if seen == Seen::First {
        sqlx::query("INSERT INTO mail (subject) VALUES (?1)")
            .bind(message.event_type())
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(seen)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("shop.db"))
        .create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await?;
    for table in [
        "CREATE TABLE history (order_id TEXT NOT NULL, status TEXT NOT NULL)",
        "CREATE TABLE mail (subject TEXT NOT NULL)", // the consumer's; its database may be another one
    ] {
        sqlx::query(table).execute(&pool).await?;
    }
    outbox::migrate(&pool).await?;
    idempotency::migrate(&pool).await?;
    let outbox = Outbox::<Sqlite>::new(OutboxConfig::default().source("/shop"));
    let admin = Admin::new(pool.clone());

    println!("# the producer");
    // BEGIN IMMEDIATE takes SQLite's one writer's place at once, rather than fail half-way through.
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    order_is(&mut tx, &outbox, "order-1", "placed").await?;
    order_is(&mut tx, &outbox, "order-1", "paid").await?;
    order_is(&mut tx, &outbox, "order-2", "placed").await?;
    tx.commit().await?;
    outbox.waker().notify_after_commit(); // a relay of this process need not wait for its next look

    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    order_is(&mut tx, &outbox, "order-3", "placed").await?;
    tx.rollback().await?; // and with it the event
    let lag = admin.lag().await?;
    println!(
        "four events enqueued, one of them rolled back; pending: {}\n",
        lag.pending
    );

    println!("# the consumer");
    let (sink, mut deliveries) = ChannelSink::new(8);
    // Stands for a broker in memory: NATS, RabbitMQ, Redis and webhooks have sinks of their own.
    let customer_exists = Arc::new(AtomicBool::new(false));
    let broker = MemorySink::new().respond({
        let customer_exists = Arc::clone(&customer_exists);
        move |message| match message.subject() {
            Some("invoice-2") if !customer_exists.load(Ordering::Relaxed) => {
                Outcome::reject("no such customer")
            }
            _ => Outcome::Acked,
        }
    });
    let relay = Relay::builder(pool.clone())
        .outbox(&outbox)
        .sink("orders", sink)
        .sink("invoices", broker.clone())
        .retry(Backoff::constant(Duration::from_millis(20))) // soon, so that the example ends soon
        .build()
        .await?
        .spawn(CancellationToken::new());

    let mut acknowledged = 0;
    while acknowledged < 3 {
        let delivery = deliveries.recv().await.ok_or("the relay has ended")?;
        let message = delivery.message().clone();
        let (what, attempt) = (message.event_type(), message.attempt());
        let key = String::from_utf8_lossy(message.key().unwrap_or_default());
        match (&*key, what, attempt) {
            // Fails before it has done anything. What comes after it under the same key waits; other keys do not.
            ("order-1", "order.placed", 1) => {
                println!("{key} {what}, attempt {attempt}: the mail server is away, later");
                delivery.retry("the mail server is away");
            }
            // Applied, but the acknowledgement is lost: it is delivered again, and the inbox knows it.
            ("order-2", _, 1) => {
                let seen = apply(&pool, &message).await?;
                println!("{key} {what}, attempt {attempt}: {seen:?}, acknowledgement lost");
                drop(delivery);
            }
            _ => {
                let seen = apply(&pool, &message).await?;
                println!("{key} {what}, attempt {attempt}: {seen:?}, acknowledged");
                delivery.ack();
                acknowledged += 1;
            }
        }
    }

    let mails: Vec<String> = sqlx::query_scalar("SELECT subject FROM mail ORDER BY rowid")
        .fetch_all(&pool)
        .await?;
    println!("mails sent: {}", mails.join(", "));

    println!("\n# a broker that dies and returns");
    broker.set_down(true);
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    let invoices = ["invoice-1", "invoice-2", "invoice-3"].map(|invoice| {
        Event::new("invoice.sent")
            .topic("invoices")
            .key("customer-7")
            .subject(invoice)
    });
    outbox.enqueue_many(&mut tx, invoices).await?;
    tx.commit().await?;
    outbox.waker().notify_after_commit();
    tokio::time::sleep(Duration::from_millis(300)).await; // the outage; the relay probes, ever more rarely
    let waiting = admin.peek(Filter::topic("invoices"), 10).await?;
    // An outage is nobody's fault: had attempts been spent, one of half an hour would make dead letters of everything.
    println!(
        "three invoices enqueued while it is down; pending: {}, the first is at attempt {}",
        waiting.len(),
        waiting.first().map_or(0, |first| first.message().attempt())
    );
    broker.set_down(false);
    let taken = broker.wait_for(2).await;
    println!("it is back, and took: {}", subjects(&taken));

    println!("\n# a dead letter");
    let letters = admin.dead(Filter::topic("invoices"), 10).await?;
    for letter in &letters {
        println!(
            "{} was given up after {} attempt: {}",
            letter.message().subject().unwrap_or_default(),
            letter.message().attempt(),
            letter.reason()
        );
    }
    customer_exists.store(true, Ordering::Relaxed);
    let redriven = admin.redrive(Filter::topic("invoices")).await?;
    let taken = broker.wait_for(3).await;
    println!(
        "the customer exists now, redriven: {redriven}; the broker took: {}",
        subjects(taken.get(2..).unwrap_or_default())
    );

    println!("\n# the end");
    // Claims nothing more, lets what is in flight settle, and gives its lanes back to other relays.
    let drained = relay.drain(Duration::from_secs(5)).await;
    let lag = admin.lag().await?;
    println!(
        "unsettled: {}, pending: {}, dead: {}",
        drained.unsettled, lag.pending, lag.dead
    );
    pool.close().await;
    Ok(())
}

fn subjects(messages: &[Message]) -> String {
    let subjects: Vec<&str> = messages.iter().filter_map(Message::subject).collect();
    subjects.join(", ")
}
