//! The sink to RabbitMQ against a real server, through a link that can be cut.

use std::{sync::Arc, time::Duration};

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicGetOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use mainstay_outbox::{
    Event, LaneRef, Message, Outcome, Sink,
    conformance::sink::{self as conformance, Destination},
    sink::{
        Pipeline, RabbitMqSink, Unroutable,
        cloudevents::{Binding, ContentMode, Received},
    },
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    link::{Link, assert_first_in_order, authority, through},
    support::{outbox, put, quick, sqlite, until},
};

fn url() -> String {
    std::env::var("MAINSTAY_TEST_RABBITMQ_URL")
        .expect("MAINSTAY_TEST_RABBITMQ_URL must name a RabbitMQ server")
}

/// An exchange and a queue bound to it, of a test's own.
struct Fresh {
    link: Arc<Link>,
    name: String,
    channel: Channel,
    _connection: Connection,
    sink: RabbitMqSink,
    read: tokio::sync::Mutex<Vec<Received>>,
}

impl Fresh {
    async fn new(mode: ContentMode, arguments: FieldTable) -> Self {
        let link = Link::to(authority(&url())).await;
        let name = format!("outbox-{}", Uuid::now_v7().simple());
        let options = ConnectionProperties::default();
        let connection = Connection::connect(&url(), options).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let short = || name.as_str().into();
        let none = FieldTable::default;
        channel
            .exchange_declare(
                short(),
                ExchangeKind::Topic,
                ExchangeDeclareOptions::default(),
                none(),
            )
            .await
            .unwrap();
        let durable = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(short(), durable, arguments)
            .await
            .unwrap();
        let bind = QueueBindOptions::default();
        channel
            .queue_bind(short(), short(), "conformance".into(), bind, none())
            .await
            .unwrap();
        let sink = RabbitMqSink::new(through(&url(), &link), name.clone())
            .content_mode(mode)
            .confirm_timeout(Duration::from_secs(1))
            .connect_timeout(Duration::from_secs(2))
            .message_bytes_max(64 * 1024);
        Self {
            link,
            name,
            channel,
            _connection: connection,
            sink,
            read: tokio::sync::Mutex::default(),
        }
    }

    async fn gone(self) {
        let name = self.name.as_str();
        self.channel
            .queue_delete(name.into(), QueueDeleteOptions::default())
            .await
            .unwrap();
        self.channel
            .exchange_delete(name.into(), ExchangeDeleteOptions::default())
            .await
            .unwrap();
    }
}

/// The headers that are text.
fn headers(properties: &BasicProperties) -> Vec<(String, String)> {
    let table = properties.headers().as_ref().unwrap().inner();
    let text = table.iter().filter_map(|(name, value)| match value {
        AMQPValue::LongString(text) => Some((name.to_string(), text.to_string())),
        _ => None,
    });
    text.collect()
}

impl Destination for Fresh {
    fn sink(&self) -> impl Sink {
        self.sink.clone()
    }

    async fn arrived(&self) -> Vec<Received> {
        let mut read = self.read.lock().await;
        let options = BasicGetOptions { no_ack: true };
        while let Some(message) = self
            .channel
            .basic_get(self.name.as_str().into(), options)
            .await
            .unwrap()
        {
            let properties = &message.delivery.properties;
            assert_eq!(*properties.delivery_mode(), Some(2), "it is persistent");
            let headers = headers(properties);
            let event = Received::read(
                Binding::Amqp,
                properties.content_type().as_ref().map(ShortString::as_str),
                headers
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str())),
                message.delivery.data.clone().into(),
                message.delivery.routing_key.as_str(),
            );
            let event = event.unwrap();
            let id = properties.message_id().as_ref().map(ShortString::as_str);
            assert_eq!(id, Some(event.id()));
            read.push(event);
        }
        read.clone()
    }

    async fn set_down(&self, down: bool) {
        if down {
            self.link.cut().await;
        } else {
            self.link.mend().await;
        }
    }

    fn too_large(&self) -> Option<usize> {
        Some(64 * 1024)
    }
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn the_sink_conforms_in_both_modes_and_pipelines() {
    for (mode, pipeline) in [
        (ContentMode::Binary, Pipeline::AcrossKeys),
        (ContentMode::Structured, Pipeline::WithinKeys),
    ] {
        conformance::all(async || {
            let mut fresh = Fresh::new(mode, FieldTable::default()).await;
            fresh.sink = fresh.sink.pipeline(pipeline);
            fresh
        })
        .await;
    }
}

fn message(topic: &str) -> Message {
    let event = Event::new("t").topic(topic);
    Message::from_event(event, "/tests", std::time::UNIX_EPOCH)
}

async fn publish(sink: &RabbitMqSink, batch: &[Message]) -> Vec<Outcome> {
    let published = sink.publish(LaneRef::detached(), batch).await;
    published.unwrap().into_iter().collect()
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn what_no_queue_wants_is_told_from_its_neighbours() {
    let fresh = Fresh::new(ContentMode::Binary, FieldTable::default()).await;
    // Many at once: the broker confirms several together, and returns come between.
    let batch: Vec<Message> = (0..100)
        .map(|n| message(if n % 7 == 3 { "nobody" } else { "conformance" }))
        .collect();
    for (unroutable, expected) in [
        (Unroutable::Retry, "retry"),
        (Unroutable::Reject, "reject"),
        (Unroutable::Drop, "ack"),
    ] {
        let sink = fresh.sink.clone().unroutable(unroutable);
        for (n, outcome) in publish(&sink, &batch).await.iter().enumerate() {
            let kind = match outcome {
                Outcome::Acked => "ack",
                Outcome::Retry { .. } => "retry",
                Outcome::Reject { .. } => "reject",
                _ => "not tried",
            };
            let expected = if n % 7 == 3 { expected } else { "ack" };
            assert_eq!(kind, expected, "{n} of {unroutable:?}");
        }
    }
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn a_queue_that_refuses_is_a_retry() {
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    let overflow = AMQPValue::LongString("reject-publish".into());
    arguments.insert("x-overflow".into(), overflow);
    let fresh = Fresh::new(ContentMode::Binary, arguments).await;
    // The bound is approximate by a message or two.
    let batch: Vec<Message> = (0..10).map(|_| message("conformance")).collect();
    let mut refused = Vec::new();
    for one in &batch {
        refused.extend(publish(&fresh.sink, std::slice::from_ref(one)).await);
    }
    assert_eq!(refused.first(), Some(&Outcome::Acked));
    assert_eq!(
        refused.last(),
        Some(&Outcome::retry("the broker refused it"))
    );
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn no_exchange_and_no_permission_are_outages_and_no_message_is_blamed() {
    let missing = RabbitMqSink::new(url(), "no-such-exchange");
    for _ in 0..2 {
        let down = missing
            .publish(LaneRef::detached(), &[message("a"), message("b")])
            .await;
        assert_eq!(down.unwrap_err().reason().as_str(), "no such exchange");
    }
    let forbidden = RabbitMqSink::new(url(), "amq.rabbitmq.trace");
    for _ in 0..2 {
        let batch: Vec<Message> = (0..20).map(|n| message(&n.to_string())).collect();
        let down = forbidden.publish(LaneRef::detached(), &batch).await;
        let reason = down.unwrap_err();
        assert_eq!(
            reason.reason().as_str(),
            "no permission to publish it (403)"
        );
    }
    let stranger = url().replace("guest:guest", "guest:wrong");
    let stranger = RabbitMqSink::new(stranger, "")
        .publish(LaneRef::detached(), &[message("a")])
        .await;
    assert!(stranger.is_err(), "{stranger:?}");
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn a_broker_that_does_not_answer_is_down_within_the_timeouts_and_the_sink_comes_back() {
    let fresh = Fresh::new(ContentMode::Binary, FieldTable::default()).await;
    assert_eq!(
        publish(&fresh.sink, &[message("conformance")]).await,
        [Outcome::Acked]
    );
    fresh.link.hold().await;
    let before = tokio::time::Instant::now();
    let batch = [message("conformance"), message("conformance")];
    assert!(
        fresh
            .sink
            .publish(LaneRef::detached(), &batch)
            .await
            .is_err()
    );
    assert!(before.elapsed() < Duration::from_millis(4_000));
    fresh.link.cut().await;
    fresh.link.mend().await;
    assert_eq!(
        publish(&fresh.sink, &batch).await,
        [Outcome::Acked, Outcome::Acked]
    );
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn the_brokers_own_size_limit_blames_the_large_one_alone() {
    let fresh = Fresh::new(ContentMode::Binary, FieldTable::default()).await;
    let sink = fresh
        .sink
        .clone()
        .message_bytes_max(usize::MAX)
        .confirm_timeout(Duration::from_secs(10));
    let event = Event::new("t")
        .topic("conformance")
        .bytes("a/b", vec![0; 128 * 1024 * 1024 + 1]);
    let large = Message::from_event(event, "/tests", std::time::UNIX_EPOCH);
    let batch = [message("conformance"), large, message("conformance")];
    let outcomes = publish(&sink, &batch).await;
    assert!(
        matches!(
            &outcomes[..],
            [Outcome::Acked, Outcome::Reject { .. }, Outcome::Acked]
        ),
        "{outcomes:?}"
    );
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn within_keys_a_batch_goes_at_once_and_arrives_in_order() {
    let fresh = Fresh::new(ContentMode::Binary, FieldTable::default()).await;
    let sink = fresh.sink.clone().pipeline(Pipeline::WithinKeys);
    let batch: Vec<Message> = (0..200)
        .map(|n| {
            let event = Event::new("t").topic("conformance").key("k");
            let event = event.subject(format!("{n:03}"));
            Message::from_event(event, "/tests", std::time::UNIX_EPOCH)
        })
        .collect();
    let outcomes = publish(&sink, &batch).await;
    assert_eq!(outcomes, vec![Outcome::Acked; 200]);
    let arrived = fresh.arrived().await;
    let subjects: Vec<_> = arrived.iter().map(|event| event.subject()).collect();
    assert_eq!(subjects.len(), 200);
    assert!(subjects.is_sorted());
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn a_relay_rides_out_cuts_and_keeps_the_order_of_keys() {
    let fresh = Fresh::new(ContentMode::Binary, FieldTable::default()).await;
    let database = sqlite().await;
    let pool = database.pool.clone();
    let outbox = outbox(&pool, 4).await;
    let relay = quick(&pool, &outbox)
        .sink("conformance", fresh.sink.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    for part in 0..4_u32 {
        let events = (part * 50..part * 50 + 50).map(|n| {
            let event = Event::new("t").topic("conformance").key([(n % 5) as u8]);
            event.subject(format!("{n:03}"))
        });
        put(&pool, &outbox, events.collect()).await;
        let some = u64::from(part) * 50 + 10;
        until("some are delivered", async || {
            relay.stats().delivered >= some
        })
        .await;
        fresh.link.cut().await;
        fresh.link.mend().await;
    }
    until("all are delivered", async || relay.stats().delivered == 200).await;
    relay.drain(Duration::from_secs(5)).await;
    let lag = mainstay_outbox::Admin::new(pool).lag().await.unwrap();
    assert_eq!((lag.pending, lag.dead), (0, 0));
    let arrived = fresh.arrived().await;
    assert_first_in_order(arrived.iter().map(|of| (of.key(), of.subject())), 200);
    fresh.gone().await;
}
