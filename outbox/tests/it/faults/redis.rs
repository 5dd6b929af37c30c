//! A Redis that writes each command to its disk dies and comes back.

use std::time::Duration;

use mainstay_outbox::{
    Event, LaneRef, Message, Outcome, Sink, SinkDown,
    sink::{
        RedisSink,
        cloudevents::{Binding, Received},
    },
};
use redis::{AsyncConnectionConfig, Client};
use tokio::time::sleep;

use super::{
    brokers::{AWAY, Outages, outages},
    kills,
    programs::Program,
    servers::Server,
};

type Entry = (String, Vec<(String, Vec<u8>)>);

async fn entries(client: &Client) -> Vec<Received> {
    // The whole stream in one answer, which takes more than the client waits for by itself.
    let patient = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(30)));
    let connection = client.get_multiplexed_async_connection_with_config(&patient);
    let mut connection = connection.await.unwrap();
    let mut range = redis::cmd("XRANGE");
    range.arg("t").arg("-").arg("+");
    let entries: Vec<Entry> = range.query_async(&mut connection).await.unwrap();
    let read = |(_, fields): Entry| {
        let fields: Vec<(String, String)> = fields
            .into_iter()
            .map(|(name, value)| (name, String::from_utf8(value).unwrap()))
            .collect();
        let headers = fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        Received::read(Binding::Kafka, None, headers, bytes::Bytes::new(), "t").unwrap()
    };
    entries.into_iter().map(read).collect()
}

async fn killed(sink: impl FnOnce(Client) -> RedisSink) -> Option<Outages> {
    let mut server = Server::start(Program::Redis).await?;
    let client = Client::open(server.url()).unwrap();
    let sink = sink(client.clone()).timeout(Duration::from_secs(1));
    let arrived = async || entries(&client).await;
    let kill = async |_| {
        server.stop("-KILL").await;
        sleep(AWAY).await;
        server.start_again().await;
    };
    let outages = outages(sink, kills(6), kill, arrived).await;
    // What goes together in one MULTI is answered together or not at all.
    assert!(outages.charged.is_empty(), "{outages:?}");
    Some(outages)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the programs of a server; tests/run sees to them"]
async fn a_server_that_is_killed_loses_nothing_and_repeats_what_was_on_the_wire() {
    let Some(outages) = killed(RedisSink::new).await else {
        return;
    };
    let budget = kills(6) as u64 * outages.window;
    assert!(outages.verdict.repeated as u64 <= budget, "{outages:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the programs of a server; tests/run sees to them"]
async fn a_server_that_is_killed_appends_nothing_twice_where_ids_are_remembered() {
    let remembering = |client| RedisSink::new(client).dedupe(Duration::from_secs(600));
    let Some(outages) = killed(remembering).await else {
        return;
    };
    assert_eq!(outages.verdict.repeated, 0, "{outages:?}");
}

/// B1 of a server that is there and answers everything else, as one does while it hands over to another.
#[tokio::test]
#[ignore = "needs the programs of a server; tests/run sees to them"]
async fn writes_that_are_held_up_are_an_outage_from_the_third_message_on() {
    let Some(server) = Server::start(Program::Redis).await else {
        return;
    };
    let client = Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut client_command = async |arguments: &[&str]| {
        let mut command = redis::cmd("CLIENT");
        command.arg(arguments);
        command
            .query_async::<redis::Value>(&mut connection)
            .await
            .unwrap()
    };
    let sink = RedisSink::new(client.clone()).timeout(Duration::from_millis(500));
    let publish = async || {
        let message = Message::from_event(Event::new("t"), "/tests", std::time::UNIX_EPOCH);
        let outcomes = sink.publish(LaneRef::detached(), &[message]).await?;
        Ok::<_, SinkDown>(outcomes.into_iter().next().unwrap())
    };
    assert_eq!(publish().await, Ok(Outcome::Acked));
    client_command(&["PAUSE", "600000", "WRITE"]).await;
    let charged = Ok(Outcome::retry(
        "no answer in time: it may have been appended",
    ));
    assert_eq!(publish().await, charged);
    assert_eq!(publish().await, charged);
    assert!(publish().await.is_err());
    client_command(&["UNPAUSE"]).await;
    assert_eq!(publish().await, Ok(Outcome::Acked));
}

/// B1 of a server that is there and writes nothing: with a script, which meets it at its own command, as well as without.
#[tokio::test]
#[ignore = "needs the programs of a server; tests/run sees to them"]
async fn a_server_that_writes_nothing_is_an_outage_and_no_message_is_blamed() {
    let Some(server) = Server::start(Program::Redis).await else {
        return;
    };
    let client = Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let sink = RedisSink::new(client.clone());
    let remembering = sink.clone().dedupe(Duration::from_secs(600));
    let message = || Message::from_event(Event::new("t"), "/tests", std::time::UNIX_EPOCH);
    for (begin, end, code) in [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OOM"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "READONLY"),
    ] {
        let mut tell = async |words: &str| {
            let mut words = words.split(' ');
            let mut command = redis::cmd(words.next().unwrap());
            command.arg(words.collect::<Vec<_>>());
            command
                .query_async::<redis::Value>(&mut connection)
                .await
                .unwrap();
        };
        tell(begin).await;
        for sink in [&sink, &remembering] {
            for _ in 0..2 {
                let down = sink
                    .publish(LaneRef::detached(), &[message(), message()])
                    .await;
                let said = format!("the server answered {code}");
                assert_eq!(down.unwrap_err().reason().as_str(), said);
            }
        }
        tell(end).await;
        let outcomes = remembering.publish(LaneRef::detached(), &[message()]).await;
        assert!(outcomes.unwrap().iter().all(|of| *of == Outcome::Acked));
    }
}

/// A message that the server breaks the connection over, as it does over one field that is too large for it.
#[tokio::test]
#[ignore = "needs the programs of a server; tests/run sees to them"]
async fn a_message_that_breaks_the_connection_is_charged_in_the_end() {
    let Some(server) = Server::start(Program::Redis).await else {
        return;
    };
    let client = Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut limit = redis::cmd("CONFIG");
    limit.arg("SET").arg("proto-max-bulk-len").arg(1024 * 1024);
    limit
        .query_async::<redis::Value>(&mut connection)
        .await
        .unwrap();
    let sink = RedisSink::new(client.clone());
    let message = |bytes: usize| {
        let event = Event::new("t").bytes("text/plain", vec![b'x'; bytes]);
        Message::from_event(event, "/tests", std::time::UNIX_EPOCH)
    };
    let large = [message(2 * 1024 * 1024)];
    for times in 1..=16 {
        let published = sink.publish(LaneRef::detached(), &large).await;
        assert_eq!(published.is_ok(), times % 8 == 0, "{times}: {published:?}");
        if let Ok(outcomes) = published {
            let charged = |of: &Outcome| matches!(of, Outcome::Retry { .. });
            assert!(outcomes.iter().all(charged), "{outcomes:?}");
        }
    }
    let small = sink.publish(LaneRef::detached(), &[message(9)]).await;
    assert!(small.unwrap().iter().all(|of| *of == Outcome::Acked));
}
