//! A NATS server with its streams on disk dies and comes back.

use std::time::Duration;

use async_nats::jetstream::{self, stream::Config};
use mainstay_outbox::sink::{
    NatsSink,
    cloudevents::{Binding, Received},
};
use tokio::time::sleep;

use super::{
    brokers::{AWAY, outages},
    kills,
    programs::Program,
    servers::Server,
};

/// B2 as well: what was stored and whose ack was lost with the server is told from its id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the programs of a server; tests/run sees to them"]
async fn a_server_that_is_killed_loses_nothing_and_stores_nothing_twice() {
    let Some(mut server) = Server::start(Program::Nats).await else {
        return;
    };
    let client = async_nats::ConnectOptions::new()
        .reconnect_delay_callback(|_| Duration::from_millis(20))
        .connect(server.url())
        .await
        .unwrap();
    let context = jetstream::new(client);
    let config = Config {
        name: "events".to_owned(),
        subjects: vec!["t".to_owned()],
        ..Config::default()
    };
    context.create_stream(config).await.unwrap();
    let sink = NatsSink::new(context.clone()).ack_timeout(Duration::from_secs(1));
    let arrived = async || {
        let mut stream = context.get_stream("events").await.unwrap();
        let last = stream.info().await.unwrap().state.last_sequence;
        let mut arrived = Vec::new();
        for sequence in 1..=last {
            let message = stream.get_raw_message(sequence).await.unwrap();
            let headers = message.headers.iter().map(|(name, values)| {
                let name: &str = name.as_ref();
                (name, values[0].as_str())
            });
            let payload = message.payload.clone();
            arrived.push(Received::read(Binding::Nats, None, headers, payload, "t").unwrap());
        }
        arrived
    };
    let kill = async |_| {
        server.stop("-KILL").await;
        sleep(AWAY).await;
        server.start_again().await;
    };
    let outages = outages(sink, kills(6), kill, arrived).await;
    assert_eq!(outages.verdict.repeated, 0, "{outages:?}");
    assert_eq!(outages.charged, 0, "{outages:?}");
}
