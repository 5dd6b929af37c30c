//! The consumer of RabbitMQ against a real server.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicGetOptions, BasicPublishOptions, ExchangeDeclareOptions, ExchangeDeleteOptions,
        QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use mainstay_outbox::{
    Event, LaneRef, Message, Outcome, Sink,
    consume::{ConsumerConfig, DeadLetters, Handled, RabbitMqConsumer, Received},
    sink::{RabbitMqSink, cloudevents::ContentMode},
};
use mainstay_retry::Backoff;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{
    Layer, Registry,
    layer::{Context, SubscriberExt},
};
use uuid::Uuid;

use crate::{
    link::{Link, authority, through},
    support::until,
};

fn url() -> String {
    std::env::var("MAINSTAY_TEST_RABBITMQ_URL")
        .expect("MAINSTAY_TEST_RABBITMQ_URL must name a RabbitMQ server")
}

/// A queue of a test's own and one for its dead letters.
struct Fresh {
    name: String,
    channel: Channel,
    _connection: Connection,
    link: Arc<Link>,
}

impl Fresh {
    async fn new(kind: &str) -> Self {
        Self::with(kind, FieldTable::default()).await
    }

    async fn with(kind: &str, mut arguments: FieldTable) -> Self {
        let name = format!("consume-{}", Uuid::now_v7().simple());
        let options = ConnectionProperties::default();
        let connection = Connection::connect(&url(), options).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let link = Link::to(authority(&url())).await;
        let fresh = Self {
            name,
            channel,
            _connection: connection,
            link,
        };
        let text = |text: &str| AMQPValue::LongString(text.into());
        arguments.insert("x-queue-type".into(), text(kind));
        arguments.insert("x-dead-letter-exchange".into(), text(""));
        arguments.insert("x-dead-letter-routing-key".into(), text(&fresh.dead()));
        let durable = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        for (queue, arguments) in [
            (fresh.name.clone(), arguments),
            (fresh.dead(), FieldTable::default()),
        ] {
            let declared = fresh
                .channel
                .queue_declare(queue.into(), durable, arguments);
            declared.await.unwrap();
        }
        fresh
    }

    fn dead(&self) -> String {
        format!("{}-dead", self.name)
    }

    fn consumer(&self, dead: DeadLetters) -> RabbitMqConsumer {
        let config = ConsumerConfig::default()
            .retry(Backoff::constant(Duration::from_millis(50)))
            .attempts_max(3)
            .max_in_flight(16);
        RabbitMqConsumer::new(through(&url(), &self.link), self.name.clone(), dead, config)
    }

    async fn publish(&self, mode: ContentMode, batch: &[Message]) {
        let queue = self.name.clone();
        let sink = RabbitMqSink::new(url(), "")
            .routing_key(move |_| queue.clone())
            .content_mode(mode);
        let outcomes = sink.publish(LaneRef::detached(), batch).await.unwrap();
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Acked));
    }

    /// Reasons and subjects of the dead, in order.
    async fn letters(&self) -> Vec<(Option<String>, Option<String>)> {
        let mut letters = Vec::new();
        let options = BasicGetOptions { no_ack: true };
        while let Some(letter) = self
            .channel
            .basic_get(self.dead().into(), options)
            .await
            .unwrap()
        {
            let headers = letter.delivery.properties.headers().clone().unwrap();
            let text = |name: &str| match headers.inner().get(name) {
                Some(AMQPValue::LongString(text)) => Some(text.to_string()),
                _ => None,
            };
            letters.push((text("x-dead-letter-reason"), text("cloudEvents:subject")));
        }
        letters
    }

    async fn gone(self) {
        for queue in [self.name.clone(), self.dead()] {
            let deleted = self
                .channel
                .queue_delete(queue.into(), QueueDeleteOptions::default());
            deleted.await.unwrap();
        }
    }
}

fn event(key: &str, n: usize) -> Message {
    let event = Event::new("t").subject(n.to_string());
    let event = if key.is_empty() {
        event
    } else {
        event.key(key)
    };
    Message::from_event(event, "/tests", std::time::UNIX_EPOCH)
}

/// Hears of the first error.
struct Errors(Arc<AtomicBool>);

impl<S: tracing::Subscriber> Layer<S> for Errors {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mine = event.metadata().target().starts_with("mainstay");
        if mine && *event.metadata().level() == tracing::Level::ERROR {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

type Seen = Arc<Mutex<Vec<(String, usize, u32)>>>;

/// Notes key, number and attempt, and answers what `answer` says.
fn noting(
    seen: &Seen,
    answer: impl Fn(&Received) -> Handled + Send + Sync + 'static,
) -> impl Fn(Received) -> std::future::Ready<Handled> + Send + Sync + 'static {
    let seen = Arc::clone(seen);
    move |event| {
        let key = String::from_utf8_lossy(event.key().unwrap_or_default()).into_owned();
        let n = event.subject().unwrap().parse().unwrap();
        let answer = answer(&event);
        seen.lock().unwrap().push((key, n, event.attempt()));
        std::future::ready(answer)
    }
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn events_of_both_modes_are_handled_in_the_order_of_their_keys() {
    let fresh = Fresh::new("classic").await;
    let events: Vec<Message> = (0..150).map(|n| event(["a", "b", ""][n % 3], n)).collect();
    fresh.publish(ContentMode::Binary, &events[..75]).await;
    fresh.publish(ContentMode::Structured, &events[75..]).await;
    let seen = Seen::default();
    let shutdown = CancellationToken::new();
    let handler = noting(&seen, |event| {
        let n: usize = event.subject().unwrap().parse().unwrap();
        match (n % 7, event.attempt()) {
            (0, 1) => Handled::retry("away"),
            _ => Handled::Done,
        }
    });
    let consumer = fresh.consumer(DeadLetters::Policy);
    let consuming = tokio::spawn(consumer.run(handler, shutdown.clone()));
    until("all are handled", async || {
        seen.lock().unwrap().len() >= 172
    })
    .await;
    shutdown.cancel();
    let consumed = consuming.await.unwrap();
    assert_eq!(
        (consumed.done, consumed.retried, consumed.dead),
        (150, 22, 0)
    );
    for key in ["a", "b"] {
        let seen = seen.lock().unwrap();
        let of_key = seen.iter().filter(|(of, _, _)| of == key);
        let order: Vec<usize> = of_key.map(|(_, n, _)| *n).collect();
        assert!(order.is_sorted(), "{key}: {order:?}");
    }
    let options = BasicGetOptions::default();
    let left = fresh
        .channel
        .basic_get(fresh.name.as_str().into(), options)
        .await;
    assert!(left.unwrap().is_none(), "all were acknowledged");
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn what_is_given_up_goes_to_the_dead_by_either_way() {
    let fresh = Fresh::new("classic").await;
    let elsewhere = DeadLetters::Exchange {
        exchange: String::new(),
        routing_key: fresh.dead(),
    };
    for (dead, says_why) in [(DeadLetters::Policy, false), (elsewhere, true)] {
        let events = [event("a", 1), event("a", 2), event("", 3)];
        fresh.publish(ContentMode::Binary, &events).await;
        let stranger = fresh.channel.basic_publish(
            "".into(),
            fresh.name.as_str().into(),
            BasicPublishOptions::default(),
            b"no event",
            BasicProperties::default().with_headers(FieldTable::default()),
        );
        stranger.await.unwrap().await.unwrap();
        let seen = Seen::default();
        let shutdown = CancellationToken::new();
        let handler = noting(&seen, |event| match event.subject() {
            Some("1") => Handled::retry("broken"),
            Some("3") => Handled::dead("never"),
            _ => Handled::Done,
        });
        let consuming = tokio::spawn(fresh.consumer(dead).run(handler, shutdown.clone()));
        until("the last is handled", async || {
            seen.lock().unwrap().iter().any(|(_, n, _)| *n == 2)
        })
        .await;
        let mut letters = Vec::new();
        until("the dead are there", async || {
            letters.extend(fresh.letters().await);
            letters.len() == 3
        })
        .await;
        shutdown.cancel();
        let consumed = consuming.await.unwrap();
        assert_eq!((consumed.done, consumed.dead), (1, 3));
        letters.sort_by(|a, b| a.1.cmp(&b.1));
        let why = |why: &str| says_why.then(|| why.to_owned());
        assert_eq!(
            letters,
            [
                (
                    why("the message has no CloudEvents attribute specversion"),
                    None
                ),
                (why("broken"), Some("1".to_owned())),
                (why("never"), Some("3".to_owned())),
            ]
        );
    }
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn a_dead_letter_that_no_queue_takes_stays_where_it_is() {
    let fresh = Fresh::new("classic").await;
    fresh.publish(ContentMode::Binary, &[event("a", 1)]).await;
    let nowhere = DeadLetters::Exchange {
        exchange: String::new(),
        routing_key: format!("{}-nobody", fresh.name),
    };
    let seen = Seen::default();
    let shutdown = CancellationToken::new();
    let handler = noting(&seen, |_| Handled::dead("never"));
    let consuming = tokio::spawn(fresh.consumer(nowhere).run(handler, shutdown.clone()));
    until("it is handled", async || !seen.lock().unwrap().is_empty()).await;
    shutdown.cancel();
    let consumed = consuming.await.unwrap();
    assert_eq!((consumed.dead, consumed.given_back), (0, 1));
    let options = BasicGetOptions { no_ack: true };
    until("it is back in its queue", async || {
        let left = fresh
            .channel
            .basic_get(fresh.name.as_str().into(), options)
            .await;
        left.unwrap().is_some()
    })
    .await;
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn a_dead_letter_waits_for_its_exchange_and_carries_nothing_of_its_first_publication() {
    let fresh = Fresh::new("classic").await;
    let exchange = format!("{}-exchange", fresh.name);
    // As it comes from another quorum queue. Publishing where there is no exchange costs a channel.
    let mut headers = FieldTable::default();
    headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(99));
    let properties = BasicProperties::default()
        .with_headers(headers)
        .with_user_id("guest".into())
        .with_expiration("600000".into())
        .with_content_type("application/cloudevents+json".into())
        .with_message_id("1".into());
    let body = br#"{"specversion":"1.0","id":"1","source":"/s","type":"t","subject":"1"}"#;
    let published = fresh.channel.basic_publish(
        "".into(),
        fresh.name.as_str().into(),
        BasicPublishOptions::default(),
        body,
        properties,
    );
    published.await.unwrap().await.unwrap();
    let seen = Seen::default();
    let shutdown = CancellationToken::new();
    let handler = noting(&seen, |_| Handled::dead("never"));
    // Of two subscribers each is asked what it wants to hear, see the tests of traces.
    let _other = tracing::Dispatch::new(Registry::default());
    let refused = Arc::new(AtomicBool::new(false));
    let listening = Registry::default().with(Errors(Arc::clone(&refused)));
    let listening = tracing::subscriber::set_default(listening);
    let consumer = fresh.consumer(DeadLetters::Exchange {
        exchange: exchange.clone(),
        routing_key: String::new(),
    });
    let consuming = tokio::spawn(consumer.run(handler, shutdown.clone()));
    until("the letter is refused", async || {
        refused.load(Ordering::Relaxed)
    })
    .await;
    drop(listening);
    assert_eq!(*seen.lock().unwrap(), [(String::new(), 1, 1)]);
    let declared = fresh.channel.exchange_declare(
        exchange.as_str().into(),
        ExchangeKind::Fanout,
        ExchangeDeclareOptions::default(),
        FieldTable::default(),
    );
    declared.await.unwrap();
    let bound = fresh.channel.queue_bind(
        fresh.dead().into(),
        exchange.as_str().into(),
        "".into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    bound.await.unwrap();
    let options = BasicGetOptions { no_ack: true };
    let mut letter = None;
    until("the letter is there", async || {
        let dead = fresh.channel.basic_get(fresh.dead().into(), options);
        letter = dead.await.unwrap();
        letter.is_some()
    })
    .await;
    shutdown.cancel();
    assert_eq!(consuming.await.unwrap().dead, 1);
    let letter = letter.unwrap().delivery;
    assert_eq!(letter.data, body);
    let properties = letter.properties;
    assert_eq!(*properties.message_id(), Some("1".into()));
    assert_eq!(*properties.user_id(), None);
    assert_eq!(*properties.expiration(), None);
    let headers = properties.headers().clone().unwrap();
    assert!(headers.contains_key("x-dead-letter-reason"));
    assert!(!headers.contains_key("x-delivery-count"));
    let gone = ExchangeDeleteOptions::default();
    let gone = fresh.channel.exchange_delete(exchange.into(), gone);
    gone.await.unwrap();
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn the_next_active_consumer_goes_on_where_the_drain_cut_off() {
    let mut single = FieldTable::default();
    single.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    let fresh = Fresh::with("classic", single).await;
    let events: Vec<Message> = (0..9).map(|n| event("a", n)).collect();
    fresh.publish(ContentMode::Binary, &events).await;
    let config = ConsumerConfig::default()
        .max_in_flight(4)
        .drain_timeout(Duration::from_millis(50));
    let consumer = || {
        let (uri, queue) = (through(&url(), &fresh.link), fresh.name.clone());
        RabbitMqConsumer::new(uri, queue, DeadLetters::Policy, config.clone())
    };
    let began = Arc::new(tokio::sync::Notify::new());
    let begins = Arc::clone(&began);
    let handler = move |_: Received| {
        begins.notify_one();
        std::future::pending::<Handled>()
    };
    let shutdown = CancellationToken::new();
    let first = tokio::spawn(consumer().run(handler, shutdown.clone()));
    began.notified().await;
    let seen = Seen::default();
    let end = CancellationToken::new();
    let handler = noting(&seen, |_| Handled::Done);
    let next = tokio::spawn(consumer().run(handler, end.clone()));
    until("both consume", async || {
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let name = fresh.name.as_str().into();
        let queue = fresh
            .channel
            .queue_declare(name, passive, FieldTable::default());
        queue.await.unwrap().consumer_count() == 2
    })
    .await;
    shutdown.cancel();
    assert_eq!(first.await.unwrap().done, 0);
    until("all are handled", async || seen.lock().unwrap().len() == 9).await;
    end.cancel();
    next.await.unwrap();
    let order: Vec<usize> = seen.lock().unwrap().iter().map(|(_, n, _)| *n).collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn a_quorum_queue_counts_the_deliveries_that_killed_their_consumer() {
    let fresh = Fresh::new("quorum").await;
    fresh.publish(ContentMode::Binary, &[event("a", 1)]).await;
    let attempts = Arc::new(Mutex::new(Vec::new()));
    // Three attempts beside others, and three alone.
    for killed in 1..=6 {
        let noted = Arc::clone(&attempts);
        let handler = move |event: Received| {
            noted.lock().unwrap().push(event.attempt());
            std::future::pending::<Handled>()
        };
        // Dropped in the middle: the broker delivers it again once the connection is gone.
        let consumer = fresh.consumer(DeadLetters::Policy);
        let consuming = tokio::spawn(consumer.run(handler, CancellationToken::new()));
        until("it is handled", async || {
            attempts.lock().unwrap().len() == killed
        })
        .await;
        consuming.abort();
    }
    assert_eq!(*attempts.lock().unwrap(), [1, 2, 3, 4, 5, 6]);
    let shutdown = CancellationToken::new();
    let seen = Seen::default();
    let handler = noting(&seen, |_| Handled::Done);
    let consumer = fresh.consumer(DeadLetters::Policy);
    let consuming = tokio::spawn(consumer.run(handler, shutdown.clone()));
    let mut letters = Vec::new();
    until("it is dead", async || {
        letters.extend(fresh.letters().await);
        !letters.is_empty()
    })
    .await;
    shutdown.cancel();
    consuming.await.unwrap();
    assert!(
        seen.lock().unwrap().is_empty(),
        "a seventh attempt is not made"
    );
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn a_lost_connection_is_waited_out() {
    let fresh = Fresh::new("classic").await;
    let seen = Seen::default();
    let shutdown = CancellationToken::new();
    let consumer = fresh.consumer(DeadLetters::Policy);
    let handler = noting(&seen, |_| Handled::Done);
    let consuming = tokio::spawn(consumer.run(handler, shutdown.clone()));
    fresh.publish(ContentMode::Binary, &[event("a", 1)]).await;
    until("one is handled", async || seen.lock().unwrap().len() == 1).await;
    fresh.link.cut().await;
    fresh.publish(ContentMode::Binary, &[event("a", 2)]).await;
    fresh.link.mend().await;
    until("the other is handled", async || {
        seen.lock().unwrap().iter().any(|(_, n, _)| *n == 2)
    })
    .await;
    shutdown.cancel();
    consuming.await.unwrap();
    fresh.gone().await;
}
