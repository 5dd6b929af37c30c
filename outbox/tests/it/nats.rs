//! The sink to JetStream against a real server, through a link that can be cut.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{
    self,
    context::Context,
    stream::{Config, DiscardPolicy, Stream},
};
use mainstay_outbox::{
    Admin, Event, Filter, LaneRef, Message, Outcome, Sink, SinkDown,
    conformance::sink::{self as conformance, Destination},
    sink::{
        NatsSink, Pipeline, Unroutable,
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
    std::env::var("MAINSTAY_TEST_NATS_URL").expect("MAINSTAY_TEST_NATS_URL must name a NATS server")
}

async fn context(url: String) -> Context {
    let client = async_nats::ConnectOptions::new()
        .reconnect_delay_callback(|_| Duration::from_millis(20))
        .connect(url)
        .await
        .unwrap();
    jetstream::new(client)
}

/// A stream of a test's own, its subjects below its name.
struct Fresh {
    link: Arc<Link>,
    name: String,
    near: Context,
    far: Context,
    stream: Stream,
    sink: NatsSink,
}

impl Fresh {
    async fn new(mode: ContentMode, config: impl FnOnce(&mut Config)) -> Self {
        let link = Link::to(authority(&url())).await;
        let name = format!("outbox-{}", Uuid::now_v7().simple());
        let (near, far) = (context(url()).await, context(through(&url(), &link)).await);
        let mut wanted = Config {
            name: name.clone(),
            subjects: vec![format!("{name}.>")],
            ..Config::default()
        };
        config(&mut wanted);
        let stream = near.create_stream(wanted).await.unwrap();
        let prefix = name.clone();
        let sink = NatsSink::new(far.clone())
            .subject(move |message| format!("{prefix}.{}", message.topic()))
            .content_mode(mode)
            .ack_timeout(Duration::from_secs(1));
        Self {
            link,
            name,
            near,
            far,
            stream,
            sink,
        }
    }

    async fn gone(self) {
        self.near.delete_stream(&self.name).await.unwrap();
    }

    async fn publish(&self, batch: &[Message]) -> Vec<Outcome> {
        let published = self.sink.publish(LaneRef::detached(), batch).await;
        published.unwrap().into_iter().collect()
    }
}

impl Destination for Fresh {
    fn sink(&self) -> impl Sink {
        self.sink.clone()
    }

    async fn arrived(&self) -> Vec<Received> {
        let last = self.stream.get_info().await.unwrap().state.last_sequence;
        let mut arrived = Vec::new();
        for sequence in 1..=last {
            let message = self.stream.get_raw_message(sequence).await.unwrap();
            let headers = message.headers.iter().map(|(name, values)| {
                let name: &str = name.as_ref();
                (name, values[0].as_str())
            });
            let content_type = message.headers.get("content-type");
            let read = Received::read(
                Binding::Nats,
                content_type.map(async_nats::HeaderValue::as_str),
                headers,
                message.payload.clone(),
                &message.subject,
            );
            arrived.push(read.unwrap());
        }
        arrived
    }

    async fn set_down(&self, down: bool) {
        if down {
            self.link.cut().await;
        } else {
            self.link.mend().await;
        }
    }

    fn too_large(&self) -> Option<usize> {
        Some(self.far.client().max_payload())
    }

    fn dedupes(&self) -> bool {
        true
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
            let mut fresh = Fresh::new(mode, |_| {}).await;
            fresh.sink = fresh.sink.pipeline(pipeline);
            fresh
        })
        .await;
    }
}

fn message(name: &str) -> Message {
    let event = Event::new("t").topic("orders").key("k").subject(name);
    Message::from_event(event, "/tests", std::time::UNIX_EPOCH)
}

fn unkeyed(name: &str) -> Message {
    let event = Event::new("t").topic("orders").subject(name);
    Message::from_event(event, "/tests", std::time::UNIX_EPOCH)
}

async fn publish(sink: &NatsSink, batch: &[Message]) -> Result<Vec<Outcome>, SinkDown> {
    let outcomes = sink.publish(LaneRef::detached(), batch).await?;
    Ok(outcomes.into_iter().collect())
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn what_no_stream_takes_is_its_messages_matter_and_others_go_on() {
    let fresh = Fresh::new(ContentMode::Binary, |_| {}).await;
    let name = fresh.name.clone();
    let sink = fresh
        .sink
        .clone()
        .subject(move |message| match message.subject() {
            Some("typo") => format!("nobody.{name}"),
            _ => format!("{name}.orders"),
        });
    let no = Outcome::retry("no stream takes its subject");
    let (ack, not) = (Outcome::Acked, Outcome::NotTried);
    let batch = [
        unkeyed("1"),
        message("typo"),
        unkeyed("typo"),
        message("2"),
        unkeyed("3"),
    ];
    let expected = vec![
        ack.clone(),
        no.clone(),
        no.clone(),
        not.clone(),
        ack.clone(),
    ];
    assert_eq!(publish(&sink, &batch).await, Ok(expected));
    // Alone as well, however many come in a row: JetStream has said that it is theirs.
    for _ in 0..5 {
        let lone = publish(&sink, &[unkeyed("typo")]).await;
        assert_eq!(lone, Ok(vec![no.clone()]));
    }
    for (unroutable, expected) in [
        (
            Unroutable::Reject,
            Outcome::reject("no stream takes its subject"),
        ),
        (Unroutable::Drop, ack.clone()),
    ] {
        let sink = sink.clone().unroutable(unroutable);
        let lone = publish(&sink, &[unkeyed("typo")]).await;
        assert_eq!(lone, Ok(vec![expected]));
    }
    let other = fresh.sink.clone().stream("another");
    let elsewhere = Outcome::retry("another stream takes its subject");
    for _ in 0..5 {
        let lone = publish(&other, &[unkeyed("4")]).await;
        assert_eq!(lone, Ok(vec![elsewhere.clone()]));
    }
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn a_jetstream_that_is_not_there_is_an_outage() {
    let client = context(url()).await.client();
    let prefix = format!("away-{}", Uuid::now_v7().simple());
    let away = jetstream::with_prefix(client.clone(), prefix.as_str());
    let sink = NatsSink::new(away)
        .subject(|_| "nobody.listens".to_owned())
        .ack_timeout(Duration::from_millis(300));
    let lone = [unkeyed("1")];
    for _ in 0..20 {
        let down = publish(&sink, &lone).await.unwrap_err();
        assert_eq!(down.reason().as_str(), "JetStream is not there");
    }
    // The question goes unanswered, as it does for a user who may not ask it: no single message keeps the sink down so.
    let _silent = client.subscribe(format!("{prefix}.>")).await.unwrap();
    client.flush().await.unwrap();
    let reason = "no stream takes its subject, or JetStream is not there";
    for times in 1..=16 {
        let said = publish(&sink, &lone).await;
        let expected = match times % 8 {
            0 => Ok(vec![Outcome::retry(reason)]),
            _ => Err(SinkDown::new(reason)),
        };
        assert_eq!(said, expected, "{times}");
    }
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn a_full_stream_is_an_outage_unless_there_are_several() {
    let fresh = Fresh::new(ContentMode::Binary, |config| {
        config.max_messages = 1;
        config.discard = DiscardPolicy::New;
    })
    .await;
    assert_eq!(fresh.publish(&[message("1")]).await, [Outcome::Acked]);
    let lone = [unkeyed("2")];
    for _ in 0..20 {
        let full = publish(&fresh.sink, &lone).await.unwrap_err();
        assert_eq!(full.reason().as_str(), "the stream is full");
    }
    let other = format!("{}-other", fresh.name);
    let config = Config {
        name: other.clone(),
        subjects: vec![format!("{other}.>")],
        ..Config::default()
    };
    fresh.near.create_stream(config).await.unwrap();
    let (first, second) = (fresh.name.clone(), other.clone());
    let both = fresh
        .sink
        .clone()
        .several_streams()
        .subject(move |message| match message.subject() {
            Some("other") => format!("{second}.orders"),
            _ => format!("{first}.orders"),
        });
    let full = Outcome::retry("the stream is full");
    let batch = [unkeyed("2"), unkeyed("other")];
    let expected = vec![full.clone(), Outcome::Acked];
    assert_eq!(publish(&both, &batch).await, Ok(expected));
    for _ in 0..5 {
        assert_eq!(
            publish(&both, &[unkeyed("2")]).await,
            Ok(vec![full.clone()])
        );
    }

    // When there is room again, what waited goes.
    fresh.stream.purge().await.unwrap();
    assert_eq!(publish(&fresh.sink, &lone).await, Ok(vec![Outcome::Acked]));
    fresh.near.delete_stream(&other).await.unwrap();
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn a_subject_that_is_full_is_its_messages_matter() {
    let fresh = Fresh::new(ContentMode::Binary, |config| {
        config.max_messages_per_subject = 1;
        config.discard = DiscardPolicy::New;
        config.discard_new_per_subject = true;
    })
    .await;
    let name = fresh.name.clone();
    let sink = fresh
        .sink
        .clone()
        .subject(move |message| format!("{name}.{}", message.subject().unwrap()));
    let full = Outcome::retry("its subject has as many messages as it may");
    let batch = [unkeyed("a"), unkeyed("a"), unkeyed("b")];
    let expected = vec![Outcome::Acked, full.clone(), Outcome::Acked];
    assert_eq!(publish(&sink, &batch).await, Ok(expected));
    for _ in 0..5 {
        assert_eq!(
            publish(&sink, &[unkeyed("a")]).await,
            Ok(vec![full.clone()])
        );
    }
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn a_message_that_is_larger_than_its_whole_stream_is_rejected() {
    let fresh = Fresh::new(ContentMode::Binary, |config| {
        config.max_bytes = 4096;
        config.discard = DiscardPolicy::New;
    })
    .await;
    let sized = |bytes: usize| {
        let event = Event::new("t").topic("orders");
        let event = event.bytes("text/plain", vec![b'x'; bytes]);
        Message::from_event(event, "/tests", std::time::UNIX_EPOCH)
    };
    let outcomes = publish(&fresh.sink, &[sized(4096), sized(1500)]).await;
    let never = Outcome::reject("larger than its stream may ever be");
    assert_eq!(outcomes, Ok(vec![never, Outcome::Acked]));

    // One for which there is no room waits for it; but while smaller ones go, it does not keep the sink down for ever.
    let lone = [sized(3000)];
    for times in 1..=16 {
        let said = publish(&fresh.sink, &lone).await;
        let expected = match times % 8 {
            0 => Ok(vec![Outcome::retry("the stream is full")]),
            _ => Err(SinkDown::new("the stream is full")),
        };
        assert_eq!(said, expected, "{times}");
    }
    assert_eq!(
        publish(&fresh.sink, &[sized(500)]).await,
        Ok(vec![Outcome::Acked])
    );
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn a_relay_buries_what_no_stream_takes_and_delivers_the_rest() {
    let fresh = Fresh::new(ContentMode::Binary, |_| {}).await;
    let database = sqlite().await;
    let pool = database.pool.clone();
    let outbox = outbox(&pool, 2).await;
    let name = fresh.name.clone();
    let sink = fresh
        .sink
        .clone()
        .subject(move |message| match message.topic() {
            "ordres" => "ordres".to_owned(),
            topic => format!("{name}.{topic}"),
        });
    let relay = quick(&pool, &outbox).max_attempts(3).sink("*", sink);
    let relay = relay.build().await.unwrap().spawn(CancellationToken::new());
    let typo = Event::new("t").topic("ordres").key("k");
    put(&pool, &outbox, vec![typo]).await;
    let events = (0..50).map(|n| Event::new("t").topic("orders").key([n % 7]));
    put(&pool, &outbox, events.collect()).await;
    until("the rest is delivered", async || {
        relay.stats().delivered == 50
    })
    .await;
    let admin = Admin::new(pool);
    until("it died", async || admin.lag().await.unwrap().dead == 1).await;
    let letters = admin.dead(Filter::all(), 2).await.unwrap();
    assert_eq!(letters[0].reason(), "no stream takes its subject");
    assert_eq!(relay.drain(Duration::from_secs(5)).await.unsettled, 0);
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn a_subject_or_size_that_can_never_work_is_rejected() {
    let fresh = Fresh::new(ContentMode::Binary, |config| {
        config.max_message_size = 1024;
    })
    .await;
    for subject in ["", "a b", ".a", "a..b", "a.*", "a.>"] {
        let sink = fresh.sink.clone().subject(move |_| subject.to_owned());
        let outcomes = sink.publish(LaneRef::detached(), &[message("1")]).await;
        let outcomes: Vec<_> = outcomes.unwrap().into_iter().collect();
        assert!(
            matches!(outcomes[..], [Outcome::Reject { .. }]),
            "{subject:?}: {outcomes:?}"
        );
    }
    let event = Event::new("t")
        .topic("orders")
        .bytes("text/plain", vec![b'x'; 2048]);
    let large = Message::from_event(event, "/tests", std::time::UNIX_EPOCH);
    let outcomes = fresh.publish(&[large]).await;
    assert!(
        matches!(outcomes[..], [Outcome::Reject { .. }]),
        "{outcomes:?}"
    );
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn a_server_that_does_not_answer_is_down_within_twice_the_ack_timeout() {
    let fresh = Fresh::new(ContentMode::Binary, |_| {}).await;
    fresh.link.hold().await;
    let before = tokio::time::Instant::now();
    let batch = [message("1"), message("2")];
    assert!(
        fresh
            .sink
            .publish(LaneRef::detached(), &batch)
            .await
            .is_err()
    );
    assert!(before.elapsed() < Duration::from_millis(2_500));
    fresh.link.cut().await;
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn a_message_that_is_never_acked_is_charged_and_three_are_an_outage() {
    let fresh = Fresh::new(ContentMode::Binary, |_| {}).await;
    let mute = format!("{}-mute", fresh.name);
    let config = Config {
        name: mute.clone(),
        subjects: vec![format!("{mute}.>")],
        no_ack: true,
        ..Config::default()
    };
    fresh.near.create_stream(config).await.unwrap();
    let (good, bad) = (fresh.name.clone(), mute.clone());
    let sink = fresh.sink.clone().ack_timeout(Duration::from_millis(300));
    let sink = sink.subject(move |message| match message.subject() {
        Some("good") => format!("{good}.t"),
        _ => format!("{bad}.t"),
    });
    let publish = async |subject: &str| {
        let batch = [message(subject)];
        let outcomes = sink.publish(LaneRef::detached(), &batch).await?;
        Ok::<_, SinkDown>(outcomes.into_iter().next().unwrap())
    };
    let charged = Ok(Outcome::retry("no ack in time: it may have been stored"));
    for _ in 0..3 {
        assert_eq!(publish("1").await, charged);
        assert_eq!(publish("2").await, charged);
        assert_eq!(publish("good").await, Ok(Outcome::Acked));
    }
    assert_eq!(publish("1").await, charged);
    assert_eq!(publish("2").await, charged);
    assert!(publish("3").await.is_err());
    assert_eq!(publish("good").await, Ok(Outcome::Acked));
    fresh.near.delete_stream(&mute).await.unwrap();
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn within_keys_a_batch_goes_at_once_and_arrives_in_order() {
    let fresh = Fresh::new(ContentMode::Binary, |_| {}).await;
    let sink = fresh.sink.clone().pipeline(Pipeline::WithinKeys);
    let batch: Vec<Message> = (0..200).map(|n| message(&format!("{n:03}"))).collect();
    let outcomes = sink.publish(LaneRef::detached(), &batch).await.unwrap();
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Acked));
    let arrived = fresh.arrived().await;
    let subjects: Vec<_> = arrived.iter().map(|event| event.subject()).collect();
    assert_eq!(subjects.len(), 200);
    assert!(subjects.is_sorted());
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn the_duplicate_window_is_the_streams() {
    let fresh = Fresh::new(ContentMode::Binary, |config| {
        config.duplicate_window = Duration::from_secs(77);
    })
    .await;
    let window = fresh.sink.dedupe(&fresh.name).await;
    assert_eq!(window, Ok(Duration::from_secs(77)));
    assert!(fresh.sink.dedupe("no-such-stream").await.is_err());
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn a_relay_rides_out_cuts_and_keeps_the_order_of_keys() {
    let fresh = Fresh::new(ContentMode::Binary, |_| {}).await;
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
    let lag = Admin::new(pool).lag().await.unwrap();
    assert_eq!((lag.pending, lag.dead), (0, 0));
    let arrived = fresh.arrived().await;
    assert_eq!(
        arrived.len(),
        200,
        "the stream stores what comes twice once"
    );
    assert_first_in_order(arrived.iter().map(|of| (of.key(), of.subject())), 200);
    fresh.gone().await;
}
