//! A NATS server with its streams on disk dies and comes back.

use std::time::Duration;

use async_nats::{
    connection::State,
    jetstream::{
        self,
        context::Context,
        stream::{Config, Stream},
    },
};
use mainstay_outbox::sink::{
    NatsSink,
    cloudevents::{Binding, Received},
};
use tokio::time::{sleep, timeout};

use super::{
    brokers::{AWAY, outages},
    kills,
    programs::Program,
    servers::Server,
};
use crate::{
    link::{Link, authority, through},
    support::until,
};

const ACK_TIMEOUT: Duration = Duration::from_secs(1);

async fn context(url: String) -> Context {
    let client = async_nats::ConnectOptions::new()
        .reconnect_delay_callback(|_| Duration::from_millis(20))
        .connect(url)
        .await
        .unwrap();
    jetstream::new(client)
}

/// How many messages the stream was ever given.
async fn last(stream: &Stream) -> u64 {
    stream.get_info().await.unwrap().state.last_sequence
}

async fn stored(stream: &Stream) -> Vec<Received> {
    let mut stored = Vec::new();
    for sequence in 1..=last(stream).await {
        let message = stream.get_raw_message(sequence).await.unwrap();
        let headers = message.headers.iter().map(|(name, values)| {
            let name: &str = name.as_ref();
            (name, values[0].as_str())
        });
        let payload = message.payload.clone();
        stored.push(Received::read(Binding::Nats, None, headers, payload, "t").unwrap());
    }
    stored
}

/// B2 as well: each time something was stored whose ack is lost, and the server tells by its id that it comes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the programs of a server; tests/run sees to them"]
async fn a_server_that_is_killed_loses_nothing_and_stores_nothing_twice() {
    let Some(mut server) = Server::start(Program::Nats).await else {
        return;
    };
    let link = Link::to(authority(&server.url())).await;
    let near = context(server.url()).await;
    let far = context(through(&server.url(), &link)).await;
    let config = Config {
        name: "events".to_owned(),
        subjects: vec!["t".to_owned()],
        ..Config::default()
    };
    let stream = near.create_stream(config).await.unwrap();
    let sink = NatsSink::new(far).ack_timeout(ACK_TIMEOUT);
    let kill = async |_| {
        link.mute().await;
        let before = last(&stream).await;
        // If nothing more is stored until the acks are overdue, then all that is on the wire was stored before, unheard as well.
        let more = async {
            while last(&stream).await == before {
                sleep(Duration::from_millis(2)).await;
            }
        };
        let _ = timeout(ACK_TIMEOUT, more).await;
        server.stop("-KILL").await;
        link.cut().await;
        link.mend().await;
        sleep(AWAY).await;
        server.start_again().await;
        let state = || near.client().connection_state();
        until("the test is connected", async || {
            state() == State::Connected
        })
        .await;
    };
    let outages = outages(sink, kills(6), kill, async || stored(&stream).await).await;
    assert_eq!(outages.verdict.repeated, 0, "{outages:?}");
    assert!(outages.charged.is_empty(), "{outages:?}");
}
