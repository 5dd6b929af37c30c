//! The suite every sink must pass: what the [`Sink`] contract promises, one case a promise.
//!
//! [`all`] runs it, given a [`Destination`] for each case. Cases panic when a promise is broken, so call it from a test.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use tokio::time::{Instant, sleep, timeout};

use crate::{
    Event, LaneRef, Message, Outcome, Sink,
    sink::{
        Lease,
        cloudevents::{Binding, ContentMode, Received, Wire},
    },
};

/// Where a sink under test publishes to, seen from the other side.
pub trait Destination: Send + Sync {
    /// The sink under test. It must give up on a destination that is down within [`PATIENCE`].
    fn sink(&self) -> impl Sink;

    /// Everything that has arrived so far, duplicates included, in order of arrival. Called until there is enough of it.
    fn arrived(&self) -> impl Future<Output = Vec<Received>> + Send;

    /// Makes the destination unreachable, or reachable again.
    fn set_down(&self, down: bool) -> impl Future<Output = ()> + Send;

    /// A payload size that the destination refuses for good; `None` if it takes any.
    fn too_large(&self) -> Option<usize>;

    /// Whether the destination stores what comes twice once.
    fn dedupes(&self) -> bool {
        false
    }
}

/// How long anything in the suite may take before it has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Runs every case, each on a destination of its own.
///
/// # Panics
/// When the sink breaks a promise.
pub async fn all<D, F, Fut>(mut fresh: F)
where
    D: Destination,
    F: FnMut() -> Fut,
    Fut: Future<Output = D>,
{
    what_is_published_arrives_unchanged(fresh().await).await;
    a_key_arrives_in_order_and_keys_side_by_side(fresh().await).await;
    a_redelivery_has_the_same_id(fresh().await).await;
    nothing_is_started_for_a_lane_that_is_lost(fresh().await).await;
    what_is_too_large_is_rejected_and_stops_its_key(fresh().await).await;
    an_outage_is_the_sinks_and_ends_by_itself(fresh().await).await;
}

/// Reads a message as a consumer would: for destinations in the same process.
///
/// # Panics
/// Never for a message that can be enqueued.
#[must_use]
pub fn as_received(message: &Message) -> Received {
    let wire = Wire::new(message, Binding::Kafka, ContentMode::Binary);
    let read = Received::read(
        Binding::Kafka,
        wire.content_type(),
        wire.headers(),
        wire.body().clone(),
        message.topic(),
    );
    read.expect("a message is a CloudEvent")
}

fn message(event: Event) -> Message {
    let time = UNIX_EPOCH + Duration::from_micros(1_709_210_096_123_456);
    Message::from_event(event.topic("conformance"), "/conformance", time)
}

async fn publish(sink: &impl Sink, batch: &[Message]) -> Vec<Outcome> {
    let published = timeout(PATIENCE, sink.publish(LaneRef::detached(), batch)).await;
    let outcomes = published.expect("a publish is bounded in time");
    outcomes.expect("the sink is up").into_iter().collect()
}

/// What has arrived once it is at least `count`.
async fn wait_for(destination: &impl Destination, count: usize) -> Vec<Received> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let arrived = destination.arrived().await;
        if arrived.len() >= count {
            return arrived;
        }
        assert!(
            Instant::now() < deadline,
            "{} of {count} messages have arrived",
            arrived.len()
        );
        sleep(Duration::from_millis(10)).await;
    }
}

async fn what_is_published_arrives_unchanged(destination: impl Destination) {
    let sink = destination.sink();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let events = [
        Event::new("empty"),
        Event::new("json")
            .key("order 17 €")
            .subject("50 % \"quoted\" ä")
            .bytes("application/json", r#"{"amount": 1250, "a":  [1]}"#),
        Event::new("json")
            .key("order 17 €")
            .bytes("application/json", " {not json, \0} "),
        Event::new("text").bytes("text/plain; charset=utf-8", "line\r\nline"),
        Event::new("bytes")
            .key([0, 255, b'"', b'\n'])
            .bytes("application/octet-stream", (0..=255).collect::<Vec<u8>>()),
        Event::new("headers")
            .header("traceparent", trace)
            .header("tracestate", "a=1%2, b=2")
            .header("tenant", "ä % b")
            .header("tenant_id", "t-1")
            .header("x-request-id", "r 1"),
    ];
    let batch = events.map(message);
    let outcomes = publish(&sink, &batch).await;
    assert_eq!(outcomes, vec![Outcome::Acked; batch.len()]);
    let arrived = wait_for(&destination, batch.len()).await;
    assert_eq!(arrived.len(), batch.len(), "each arrives once");
    for sent in &batch {
        let id = sent.id().to_string();
        let event = arrived.iter().find(|event| event.id() == id);
        let event = event.expect("every message arrives");
        assert_eq!(event.event_id(), Some(sent.id()));
        assert_eq!(event.source(), sent.source());
        assert_eq!(event.event_type(), sent.event_type());
        assert_eq!(event.subject(), sent.subject());
        assert_eq!(event.time(), Some(sent.time()));
        assert_eq!(event.key(), sent.key(), "the key of {}", sent.event_type());
        assert_eq!(event.payload(), sent.payload(), "of {}", sent.event_type());
        if sent.content_type().is_some() {
            assert_eq!(event.content_type(), sent.content_type());
        }
        for (name, value) in sent.headers() {
            assert_eq!(event.header(name), Some(value), "the header {name}");
        }
    }
}

async fn a_key_arrives_in_order_and_keys_side_by_side(destination: impl Destination) {
    let sink = destination.sink();
    let batch: Vec<Message> = (0..60_u32)
        .map(|n| {
            let event = Event::new("t").subject(format!("{n:03}"));
            message(event.key((n % 3).to_string()))
        })
        .collect();
    assert_eq!(publish(&sink, &batch).await, vec![Outcome::Acked; 60]);
    let mut by_key: BTreeMap<Vec<u8>, Vec<String>> = BTreeMap::new();
    for event in wait_for(&destination, 60).await {
        let key = event.key().expect("each has a key").to_vec();
        let subject = event.subject().expect("each has a subject").to_owned();
        by_key.entry(key).or_default().push(subject);
    }
    assert_eq!(by_key.len(), 3);
    for subjects in by_key.values() {
        assert_eq!(subjects.len(), 20);
        assert!(subjects.is_sorted(), "out of order: {subjects:?}");
    }
}

async fn a_redelivery_has_the_same_id(destination: impl Destination) {
    let sink = destination.sink();
    let batch = [message(Event::new("t").key("k"))];
    assert_eq!(publish(&sink, &batch).await, [Outcome::Acked]);
    assert_eq!(publish(&sink, &batch).await, [Outcome::Acked]);
    let last = [message(Event::new("last").key("k"))];
    assert_eq!(publish(&sink, &last).await, [Outcome::Acked]);
    let copies = if destination.dedupes() { 1 } else { 2 };
    let arrived = wait_for(&destination, copies + 1).await;
    let id = batch.first().map(|message| message.id().to_string());
    let same = arrived
        .iter()
        .filter(|event| Some(event.id()) == id.as_deref());
    assert_eq!(same.count(), copies);
    assert_eq!(arrived.len(), copies + 1);
}

async fn nothing_is_started_for_a_lane_that_is_lost(destination: impl Destination) {
    let sink = destination.sink();
    let lost = Lease::new(Instant::now(), Duration::ZERO);
    let lane = LaneRef::new(0, 0, Arc::new(lost));
    let batch = [
        message(Event::new("t").key("k")),
        message(Event::new("t").key("k")),
        message(Event::new("t")),
    ];
    let outcomes = timeout(PATIENCE, sink.publish(lane, &batch)).await;
    let outcomes = outcomes.expect("it ends").expect("the sink is up");
    assert!(
        outcomes.iter().all(|outcome| *outcome == Outcome::NotTried),
        "{outcomes:?}"
    );
    let last = [message(Event::new("last"))];
    publish(&sink, &last).await;
    let arrived = wait_for(&destination, 1).await;
    assert_eq!(arrived.len(), 1, "nothing but the last");
}

async fn what_is_too_large_is_rejected_and_stops_its_key(destination: impl Destination) {
    let Some(size) = destination.too_large() else {
        return;
    };
    let sink = destination.sink();
    let large = vec![b'x'; size];
    let batch = [
        message(Event::new("before").key("k")),
        message(
            Event::new("large")
                .key("k")
                .bytes("application/octet-stream", large),
        ),
        message(Event::new("after").key("k")),
        message(Event::new("other").key("l")),
    ];
    let outcomes = publish(&sink, &batch).await;
    assert!(
        matches!(
            &outcomes[..],
            [
                Outcome::Acked,
                Outcome::Reject { .. },
                Outcome::NotTried,
                Outcome::Acked
            ]
        ),
        "{outcomes:?}"
    );
    let arrived = wait_for(&destination, 2).await;
    let mut types: Vec<&str> = arrived.iter().map(Received::event_type).collect();
    types.sort_unstable();
    assert_eq!(types, ["before", "other"]);
}

async fn an_outage_is_the_sinks_and_ends_by_itself(destination: impl Destination) {
    let sink = destination.sink();
    let before = [message(Event::new("before").key("k"))];
    assert_eq!(publish(&sink, &before).await, [Outcome::Acked]);

    destination.set_down(true).await;
    let batch = [
        message(Event::new("during").key("k")),
        message(Event::new("during")),
    ];
    for _ in 0..2 {
        let down = timeout(PATIENCE, sink.publish(LaneRef::detached(), &batch)).await;
        let down = down.expect("a publish to nowhere is bounded in time");
        assert!(down.is_err(), "{down:?}");
    }
    destination.set_down(false).await;

    let deadline = Instant::now() + PATIENCE;
    loop {
        // As the relay does: the same messages again until they are acked.
        match timeout(PATIENCE, sink.publish(LaneRef::detached(), &batch)).await {
            Ok(Ok(outcomes)) if outcomes.iter().all(|of| *of == Outcome::Acked) => break,
            _ => assert!(Instant::now() < deadline, "the sink does not come back"),
        }
        sleep(Duration::from_millis(20)).await;
    }
    let arrived = wait_for(&destination, 3).await;
    for sent in &batch {
        let id = sent.id().to_string();
        assert!(arrived.iter().any(|event| event.id() == id));
    }
}
