//! The consumer of JetStream against a real server.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, PullConsumer, pull},
    context::Context,
    stream::Config,
};
use mainstay_outbox::{
    Event, LaneRef, Message, Outcome, Sink,
    consume::{Consumed, ConsumerConfig, Handled, InvalidConsumer, NatsConsumer, Received},
    sink::{NatsSink, cloudevents::ContentMode},
};
use mainstay_retry::Backoff;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    link::{Link, authority, through},
    support::until,
};

fn url() -> String {
    std::env::var("MAINSTAY_TEST_NATS_URL").expect("MAINSTAY_TEST_NATS_URL must name a NATS server")
}

/// A stream of a test's own, with subjects `<name>.t` for events and `<name>.dead` for dead letters.
struct Fresh {
    name: String,
    context: Context,
    link: Arc<Link>,
}

impl Fresh {
    async fn new() -> Self {
        let name = format!("consume-{}", Uuid::now_v7().simple());
        let context = jetstream::new(async_nats::connect(url()).await.unwrap());
        let config = Config {
            name: name.clone(),
            subjects: vec![format!("{name}.>")],
            ..Config::default()
        };
        context.create_stream(config).await.unwrap();
        let link = Link::to(authority(&url())).await;
        Self {
            name,
            context,
            link,
        }
    }

    /// A durable consumer of the events, over the link.
    async fn consumer(&self, set: impl FnOnce(&mut pull::Config)) -> PullConsumer {
        let client = async_nats::ConnectOptions::new()
            .reconnect_delay_callback(|_| Duration::from_millis(20))
            .connect(through(&url(), &self.link))
            .await
            .unwrap();
        let mut config = pull::Config {
            durable_name: Some("billing".to_owned()),
            filter_subject: format!("{}.t", self.name),
            ack_wait: Duration::from_secs(1),
            ..pull::Config::default()
        };
        set(&mut config);
        let stream = jetstream::new(client).get_stream(&self.name).await.unwrap();
        stream.create_consumer(config).await.unwrap()
    }

    async fn publish(&self, mode: ContentMode, batch: &[Message]) {
        let subject = format!("{}.t", self.name);
        let sink = NatsSink::new(self.context.clone())
            .subject(move |_| subject.clone())
            .content_mode(mode);
        let outcomes = sink.publish(LaneRef::detached(), batch).await.unwrap();
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Acked));
    }

    /// Waits until every event is settled at the server.
    async fn settled(&self) {
        until("every event is settled", async || {
            let consumer: PullConsumer = self
                .context
                .get_consumer_from_stream("billing", &self.name)
                .await
                .unwrap();
            let info = consumer.cached_info();
            info.num_pending == 0 && info.num_ack_pending == 0
        })
        .await;
    }

    async fn gone(self) {
        self.context.delete_stream(&self.name).await.unwrap();
    }
}

fn config() -> ConsumerConfig {
    ConsumerConfig::default()
        .retry(Backoff::constant(Duration::from_millis(50)))
        .attempts_max(3)
        .max_in_flight(16)
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
    let fresh = Fresh::new().await;
    let events: Vec<Message> = (0..150).map(|n| event(["a", "b", ""][n % 3], n)).collect();
    fresh.publish(ContentMode::Binary, &events[..75]).await;
    fresh.publish(ContentMode::Structured, &events[75..]).await;
    let seen = Seen::default();
    let shutdown = CancellationToken::new();
    // Each seventh fails once, and each of these that has a key holds it up.
    let handler = noting(&seen, |event| {
        let n: usize = event.subject().unwrap().parse().unwrap();
        match (n % 7, event.attempt()) {
            (0, 1) => Handled::retry("away"),
            _ => Handled::Done,
        }
    });
    let consumer = NatsConsumer::new(fresh.consumer(|_| {}).await, config()).unwrap();
    let consuming = tokio::spawn(consumer.run(handler, shutdown.clone()));
    until("all are handled", async || {
        seen.lock().unwrap().len() >= 172
    })
    .await;
    fresh.settled().await;
    shutdown.cancel();
    let consumed = consuming.await.unwrap();
    assert_eq!(
        (consumed.done, consumed.retried, consumed.dead),
        (150, 22, 0)
    );
    let seen = seen.lock().unwrap().clone();
    for key in ["a", "b"] {
        let of_key = seen.iter().filter(|(of, _, _)| of == key);
        let order: Vec<usize> = of_key.map(|(_, n, _)| *n).collect();
        assert!(order.is_sorted(), "{key}: {order:?}");
    }
    assert!(
        seen.iter()
            .all(|(_, n, attempt)| n % 7 == 0 || *attempt == 1)
    );
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn what_is_given_up_is_published_whole_to_the_dead_and_terminated() {
    let fresh = Fresh::new().await;
    let events = [event("a", 1), event("a", 2), event("", 3)];
    fresh.publish(ContentMode::Binary, &events).await;
    let stranger = format!("{}.t", fresh.name);
    fresh
        .context
        .publish(stranger, "no event".into())
        .await
        .unwrap()
        .await
        .unwrap();
    let seen = Seen::default();
    let shutdown = CancellationToken::new();
    let handler = noting(&seen, |event| match event.subject() {
        Some("1") => Handled::retry("broken"),
        Some("3") => Handled::dead("never"),
        _ => Handled::Done,
    });
    let dead = format!("{}.dead", fresh.name);
    let consumer = NatsConsumer::new(fresh.consumer(|_| {}).await, config())
        .unwrap()
        .dead_letters(fresh.context.clone(), dead.clone());
    let consuming = tokio::spawn(consumer.run(handler, shutdown.clone()));
    fresh.settled().await;
    shutdown.cancel();
    let expected = consuming.await.unwrap();
    assert_eq!((expected.done, expected.dead), (1, 3));
    let order: Vec<usize> = seen.lock().unwrap().iter().map(|(_, n, _)| *n).collect();
    assert_eq!(
        order.iter().filter(|n| **n == 1).count(),
        3,
        "three attempts"
    );
    let place = |wanted| order.iter().rposition(|n| *n == wanted);
    assert!(place(1) < place(2));

    let stream = fresh.context.get_stream(&fresh.name).await.unwrap();
    let last = stream.get_info().await.unwrap().state.last_sequence;
    let mut reasons = Vec::new();
    for sequence in 5..=last {
        let letter = stream.get_raw_message(sequence).await.unwrap();
        assert_eq!(letter.subject.as_str(), dead);
        let header = |name: &str| letter.headers.get(name).map(|of| of.as_str().to_owned());
        assert_eq!(
            header("x-dead-letter-subject"),
            Some(format!("{}.t", fresh.name))
        );
        reasons.push((
            header("ce-subject"),
            header("x-dead-letter-reason").unwrap(),
        ));
    }
    reasons.sort();
    let reason = |of: Option<&str>, why: &str| (of.map(str::to_owned), why.to_owned());
    assert_eq!(
        reasons,
        [
            reason(None, "the message has no CloudEvents attribute specversion"),
            reason(Some("1"), "broken"),
            reason(Some("3"), "never"),
        ]
    );
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn a_long_handler_is_not_delivered_again_and_a_killed_one_is() {
    let fresh = Fresh::new().await;
    fresh
        .publish(ContentMode::Binary, &[event("a", 1), event("a", 2)])
        .await;
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let run = async |hang: bool, shutdown: CancellationToken| -> Consumed {
        let attempts = Arc::clone(&attempts);
        let handler = move |event: Received| {
            attempts.lock().unwrap().push(event.attempt());
            async move {
                // Longer than the ack_wait of a second, and the one behind it waits as long.
                let time = if hang {
                    Duration::MAX
                } else {
                    Duration::from_millis(1_600)
                };
                tokio::time::sleep(time).await;
                Handled::Done
            }
        };
        let consumer = NatsConsumer::new(fresh.consumer(|_| {}).await, config()).unwrap();
        consumer.run(handler, shutdown).await
    };
    // Killed: the future is dropped in the middle of the first event.
    let killed = run(true, CancellationToken::new());
    let _ = tokio::time::timeout(Duration::from_millis(300), killed).await;
    assert_eq!(*attempts.lock().unwrap(), [1]);

    let shutdown = CancellationToken::new();
    let (consumed, ()) = tokio::join!(run(false, shutdown.clone()), async {
        until("both are handled", async || {
            attempts.lock().unwrap().len() == 3
        })
        .await;
        fresh.settled().await;
        shutdown.cancel();
    });
    assert_eq!(consumed.done, 2);
    assert_eq!(
        *attempts.lock().unwrap(),
        [1, 2, 2],
        "each came again once, and no more"
    );
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn the_next_consumer_goes_on_where_the_drain_cut_off() {
    let fresh = Fresh::new().await;
    let events: Vec<Message> = (0..9).map(|n| event("a", n)).collect();
    fresh.publish(ContentMode::Binary, &events).await;
    let began = Arc::new(tokio::sync::Notify::new());
    let begins = Arc::clone(&began);
    let handler = move |_: Received| {
        begins.notify_one();
        std::future::pending::<Handled>()
    };
    let shutdown = CancellationToken::new();
    // Far longer than the test: only what is given back comes again.
    let jetstream = fresh
        .consumer(|config| config.ack_wait = Duration::from_mins(2))
        .await;
    let short = config().drain_timeout(Duration::from_millis(50));
    let first = NatsConsumer::new(jetstream.clone(), short).unwrap();
    let first = tokio::spawn(first.run(handler, shutdown.clone()));
    began.notified().await;
    shutdown.cancel();
    assert_eq!(first.await.unwrap().given_back, 9);
    let seen = Seen::default();
    let shutdown = CancellationToken::new();
    let handler = noting(&seen, |_| Handled::Done);
    let next = NatsConsumer::new(jetstream, config()).unwrap();
    let next = tokio::spawn(next.run(handler, shutdown.clone()));
    until("all are handled", async || seen.lock().unwrap().len() == 9).await;
    fresh.settled().await;
    shutdown.cancel();
    next.await.unwrap();
    let order: Vec<usize> = seen.lock().unwrap().iter().map(|(_, n, _)| *n).collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn a_lost_connection_is_waited_out() {
    let fresh = Fresh::new().await;
    let seen = Seen::default();
    let shutdown = CancellationToken::new();
    let consumer = NatsConsumer::new(fresh.consumer(|_| {}).await, config()).unwrap();
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
    fresh.settled().await;
    shutdown.cancel();
    consuming.await.unwrap();
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn a_consumer_that_would_strand_events_is_refused() {
    let fresh = Fresh::new().await;
    let strands = fresh.consumer(|config| config.max_deliver = 3).await;
    let refused = NatsConsumer::new(strands, config()).unwrap_err();
    assert_eq!(refused, InvalidConsumer::MaxDeliver);
    let mute = |config: &mut pull::Config| {
        config.durable_name = Some("mute".to_owned());
        config.ack_policy = AckPolicy::None;
    };
    let refused = NatsConsumer::new(fresh.consumer(mute).await, config()).unwrap_err();
    assert_eq!(refused, InvalidConsumer::AckPolicy);
    fresh.gone().await;
}
