//! The sink to Redis Streams against a real server, through a link that can be cut.

use std::{sync::Arc, time::Duration};

use mainstay_outbox::{
    Event, LaneRef, Message, Outcome, Sink,
    conformance::sink::{self as conformance, Destination},
    sink::{
        RedisSink,
        cloudevents::{Binding, ContentMode, Received},
    },
};
use redis::{Client, aio::MultiplexedConnection};
use uuid::Uuid;

use crate::link::{Link, authority, through};

fn url() -> String {
    std::env::var("MAINSTAY_TEST_REDIS_URL")
        .expect("MAINSTAY_TEST_REDIS_URL must name a Redis server")
}

/// A stream of a test's own.
struct Fresh {
    link: Arc<Link>,
    name: String,
    connection: MultiplexedConnection,
    sink: RedisSink,
    dedupes: bool,
}

type Entry = (String, Vec<(String, Vec<u8>)>);

impl Fresh {
    async fn new(mode: ContentMode, dedupes: bool) -> Self {
        let link = Link::to(authority(&url())).await;
        let name = format!("outbox-{}", Uuid::now_v7().simple());
        let client = Client::open(url()).unwrap();
        let connection = client.get_multiplexed_async_connection().await.unwrap();
        let stream = name.clone();
        let mut sink = RedisSink::new(Client::open(through(&url(), &link)).unwrap())
            .stream(move |_| stream.clone())
            .content_mode(mode)
            .timeout(Duration::from_secs(1))
            .message_bytes_max(64 * 1024);
        if dedupes {
            sink = sink.dedupe(Duration::from_secs(20));
        }
        Self {
            link,
            name,
            connection,
            sink,
            dedupes,
        }
    }

    async fn entries(&self) -> Vec<Entry> {
        let mut range = redis::cmd("XRANGE");
        range.arg(&self.name).arg("-").arg("+");
        range
            .query_async(&mut self.connection.clone())
            .await
            .unwrap()
    }

    async fn run(&self, command: &str, arguments: &[&str]) -> redis::Value {
        let mut command = redis::cmd(command);
        command.arg(arguments);
        command
            .query_async(&mut self.connection.clone())
            .await
            .unwrap()
    }

    async fn gone(self) {
        self.run("DEL", &[&self.name]).await;
    }
}

impl Destination for Fresh {
    fn sink(&self) -> impl Sink {
        self.sink.clone()
    }

    async fn arrived(&self) -> Vec<Received> {
        let event = |(_, fields): Entry| {
            let text = |(name, value): &(String, Vec<u8>)| {
                Some((name.clone(), String::from_utf8(value.clone()).ok()?))
            };
            let (data, headers) = fields.split_last().unwrap();
            assert_eq!(data.0, "data");
            let headers: Vec<_> = headers.iter().filter_map(text).collect();
            let named = |wanted| headers.iter().find(|(name, _)| name == wanted);
            let content_type = named("content-type").map(|(_, value)| value.as_str());
            let pairs = headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()));
            Received::read(
                Binding::Kafka,
                content_type,
                pairs,
                data.1.clone().into(),
                &self.name,
            )
        };
        self.entries()
            .await
            .into_iter()
            .map(|entry| event(entry).unwrap())
            .collect()
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

    fn dedupes(&self) -> bool {
        self.dedupes
    }
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn the_sink_conforms_in_both_modes_and_with_dedupe() {
    for (mode, dedupes) in [
        (ContentMode::Binary, false),
        (ContentMode::Structured, false),
        (ContentMode::Binary, true),
    ] {
        conformance::all(async || Fresh::new(mode, dedupes).await).await;
    }
}

fn message(name: &str) -> Message {
    let event = Event::new("t").key("k").subject(name);
    Message::from_event(event, "/tests", std::time::UNIX_EPOCH)
}

async fn publish(sink: &RedisSink, batch: &[Message]) -> Vec<Outcome> {
    let published = sink.publish(LaneRef::detached(), batch).await;
    published.unwrap().into_iter().collect()
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn a_key_that_is_no_stream_is_a_retry_and_others_go_on() {
    let fresh = Fresh::new(ContentMode::Binary, false).await;
    let other = format!("{}-other", fresh.name);
    fresh.run("SET", &[&fresh.name, "a string"]).await;
    let (wrong, right) = (fresh.name.clone(), other.clone());
    for sink in [
        fresh.sink.clone(),
        fresh.sink.clone().dedupe(Duration::from_secs(9)),
    ] {
        let (wrong, right) = (wrong.clone(), right.clone());
        let sink = sink.stream(move |message| match message.subject() {
            Some("wrong") => wrong.clone(),
            _ => right.clone(),
        });
        let unkeyed = Message::from_event(Event::new("t"), "/tests", std::time::UNIX_EPOCH);
        let batch = [
            message("right"),
            message("wrong"),
            message("right"),
            unkeyed,
        ];
        let outcomes = publish(&sink, &batch).await;
        assert!(
            matches!(
                &outcomes[..],
                [
                    Outcome::Acked,
                    Outcome::Retry { .. },
                    Outcome::NotTried,
                    Outcome::Acked
                ]
            ),
            "{outcomes:?}"
        );
        // What failed was not remembered as appended.
        assert!(matches!(
            &publish(&sink, &batch[1..2]).await[..],
            [Outcome::Retry { .. }]
        ));
    }
    fresh.run("DEL", &[&other]).await;
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn an_event_is_appended_again_once_the_window_is_over() {
    let fresh = Fresh::new(ContentMode::Binary, false).await;
    let sink = fresh.sink.clone().dedupe(Duration::from_millis(50));
    let batch = [message("1")];
    let seen = format!("{}:outbox:{}", fresh.name, batch[0].id());
    for _ in 0..2 {
        assert_eq!(publish(&sink, &batch).await, [Outcome::Acked]);
    }
    assert!(fresh.entries().await.len() <= 2);
    crate::support::until("the window is over", async || {
        fresh.run("EXISTS", &[&seen]).await == redis::Value::Int(0)
    })
    .await;
    let before = fresh.entries().await.len();
    publish(&sink, &batch).await;
    assert_eq!(fresh.entries().await.len(), before + 1);
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn streams_are_trimmed_to_about_their_length() {
    let fresh = Fresh::new(ContentMode::Binary, false).await;
    let sink = fresh.sink.clone().max_len(100);
    let batch: Vec<Message> = (0..1_000).map(|n| message(&n.to_string())).collect();
    assert!(
        publish(&sink, &batch)
            .await
            .iter()
            .all(|of| *of == Outcome::Acked)
    );
    let left = fresh.entries().await.len();
    assert!((100..400).contains(&left), "{left}");
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn a_refusal_of_the_server_is_an_outage_and_appends_nothing() {
    let fresh = Fresh::new(ContentMode::Binary, false).await;
    // A user that may append but not wait, and one that may not append at all: what READONLY and OOM look like, too.
    let user = fresh.name.clone();
    for (rules, replicas) in [("+multi +exec +ping", 0), ("+@all -wait", 1)] {
        let mut acl = vec!["SETUSER", &user, "reset", "on", ">secret", "~*"];
        acl.extend(rules.split(' '));
        fresh.run("ACL", &acl).await;
        let address = format!("redis://{user}:secret@{}", authority(&url()));
        let name = fresh.name.clone();
        let sink = RedisSink::new(Client::open(address).unwrap())
            .stream(move |_| name.clone())
            .replicas(replicas);
        let down = sink
            .publish(LaneRef::detached(), &[message("1"), message("2")])
            .await;
        assert_eq!(
            down.unwrap_err().reason().as_str(),
            "the server answered NOPERM"
        );
        if replicas == 0 {
            assert!(fresh.entries().await.is_empty());
        }
    }
    fresh.run("ACL", &["DELUSER", &user]).await;
    fresh.gone().await;
}

/// A sink of a user that may append to `right`, and what is for another stream goes to `wrong`.
async fn restricted(fresh: &Fresh, right: &str, wrong: &str) -> RedisSink {
    let user = fresh.name.as_str();
    let keys = format!("~{right}*");
    let acl = ["SETUSER", user, "reset", "on", ">secret", &keys, "+@all"];
    fresh.run("ACL", &acl).await;
    let address = format!("redis://{user}:secret@{}", authority(&url()));
    let (right, wrong) = (right.to_owned(), wrong.to_owned());
    RedisSink::new(Client::open(address).unwrap()).stream(move |message| match message.subject() {
        Some("wrong") => wrong.clone(),
        _ => right.clone(),
    })
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn a_stream_that_the_user_may_not_write_is_charged_to_its_messages_and_others_go_on() {
    let fresh = Fresh::new(ContentMode::Binary, false).await;
    let wrong = format!("not-{}", fresh.name);
    let sink = restricted(&fresh, &fresh.name, &wrong).await;
    let no = Outcome::retry("the server answered NOPERM");
    let unkeyed = |subject: &str| {
        let event = Event::new("t").subject(subject);
        Message::from_event(event, "/tests", std::time::UNIX_EPOCH)
    };
    for sink in [sink.clone(), sink.dedupe(Duration::from_secs(9))] {
        let batch = [
            unkeyed("wrong"),
            message("right"),
            message("wrong"),
            message("right"),
            unkeyed("right"),
        ];
        let outcomes = publish(&sink, &batch).await;
        let (ack, not) = (Outcome::Acked, Outcome::NotTried);
        assert_eq!(outcomes, [no.clone(), ack.clone(), no.clone(), not, ack]);

        // Alone it is charged as well, and three of them in a row are an outage, until another one goes.
        let lone: Vec<Message> = (0..3).map(|_| unkeyed("wrong")).collect();
        for one in lone.chunks(1).take(2).cycle().take(6) {
            assert_eq!(publish(&sink, one).await, std::slice::from_ref(&no));
        }
        let down = sink.publish(LaneRef::detached(), &lone[2..]).await;
        let reason = down.unwrap_err();
        assert_eq!(reason.reason().as_str(), "the server answered NOPERM");
        assert_eq!(publish(&sink, &[unkeyed("right")]).await, [Outcome::Acked]);
        assert_eq!(publish(&sink, &lone[2..]).await, std::slice::from_ref(&no));
    }
    fresh.run("ACL", &["DELUSER", &fresh.name]).await;
    fresh.gone().await;
}

#[tokio::test]
#[ignore = "needs a server; tests/run brings it up"]
async fn too_few_replicas_and_a_server_that_does_not_answer_are_outages() {
    let fresh = Fresh::new(ContentMode::Binary, false).await;
    let sink = fresh.sink.clone().replicas(1);
    let down = sink.publish(LaneRef::detached(), &[message("1")]).await;
    assert_eq!(
        down.unwrap_err().reason().as_str(),
        "too few replicas have it in time"
    );
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
    fresh.link.mend().await;
    assert_eq!(
        publish(&fresh.sink, &batch).await,
        [Outcome::Acked, Outcome::Acked]
    );
    fresh.gone().await;
}
