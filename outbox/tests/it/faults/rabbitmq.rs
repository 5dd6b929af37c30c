//! A RabbitMQ with a durable queue dies and comes back, and raises its memory alarm.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{BasicConsumeOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use mainstay_outbox::{
    Event, LaneRef, Message, Outcome, Outcomes, Sink, SinkDown,
    sink::{
        RabbitMqSink, Unroutable,
        cloudevents::{Binding, Received},
    },
};
use tokio::{sync::Mutex, time::Instant};

use super::{brokers::outages, kills, programs::Program, servers::Server};
use crate::support::until;

const CONFIRM: Duration = Duration::from_millis(500);
const CONNECT: Duration = Duration::from_secs(2);

async fn channel(server: &Server) -> (Connection, Channel) {
    let options = ConnectionProperties::default();
    let connection = Connection::connect(&server.url(), options).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// A durable queue that the default exchange routes to, and how many messages it has.
async fn declare(server: &Server, queue: &str) -> u32 {
    let (_connection, channel) = channel(server).await;
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(queue.into(), durable, FieldTable::default());
    declared.await.unwrap().message_count()
}

async fn queued(server: &Server) -> Vec<Received> {
    let count = declare(server, "t").await;
    let (_connection, channel) = channel(server).await;
    let once = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let consumer = channel.basic_consume("t".into(), "".into(), once, FieldTable::default());
    let mut deliveries = consumer.await.unwrap().take(count as usize);
    let mut queued = Vec::new();
    while let Some(delivery) = deliveries.next().await {
        let delivery = delivery.unwrap();
        let table = delivery.properties.headers().clone().unwrap();
        let headers = table
            .inner()
            .iter()
            .filter_map(|(name, value)| match value {
                AMQPValue::LongString(text) => Some((name.to_string(), text.to_string())),
                _ => None,
            });
        let headers: Vec<_> = headers.collect();
        let headers = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let data = delivery.data.clone().into();
        queued.push(Received::read(Binding::Amqp, None, headers, data, "t").unwrap());
    }
    queued
}

fn sink(server: &Server) -> RabbitMqSink {
    RabbitMqSink::new(server.url(), "")
        .confirm_timeout(CONFIRM)
        .connect_timeout(CONNECT)
}

/// B1 of a broker whose memory is full. Of what a publisher sends it takes the first message, then it reads nothing more, and
/// says so: the rest is neither confirmed nor to blame.
async fn raise_the_alarm(server: &Server) {
    let set = "set_vm_memory_high_watermark";
    server.control(&[set, "0.00001"]).await;
    let batch: Vec<Message> = (0..3)
        .map(|_| Message::from_event(Event::new("t"), "/tests", std::time::UNIX_EPOCH))
        .collect();
    until("publishers are blocked", async || {
        let fresh = sink(server).routing_key(|_| "elsewhere".to_owned());
        let asked = Instant::now();
        let published = fresh.publish(LaneRef::detached(), &batch).await;
        let blamed = |outcome: &Outcome| matches!(outcome, Outcome::Retry { .. });
        let outcomes = published.iter().flat_map(Outcomes::iter);
        assert!(!outcomes.clone().any(blamed), "{published:?}");
        let again = fresh.publish(LaneRef::detached(), &batch).await;
        assert!(asked.elapsed() < CONNECT + CONFIRM * 3, "waits have bounds");
        again.is_err_and(|down| down.reason().as_str().contains("alarm"))
    })
    .await;
    server.control(&[set, "0.4"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the programs of a server; tests/run sees to them"]
async fn a_broker_that_dies_or_blocks_its_publishers_loses_nothing_and_is_waited_for() {
    let Some(server) = Server::start(Program::RabbitMq).await else {
        return;
    };
    for queue in ["t", "elsewhere"] {
        declare(&server, queue).await;
    }
    // That there are queues is written down a while later: killed before that, the broker has none.
    server.control(&["eval", "mnesia:sync_log()."]).await;
    let sink = sink(&server);
    let server = Mutex::new(server);
    let fault = async |round| {
        let mut server = server.lock().await;
        if round % 2 == 1 {
            raise_the_alarm(&server).await;
        } else {
            server.stop("-KILL").await;
            server.start_again().await;
        }
    };
    let arrived = async || queued(&*server.lock().await).await;
    let faults = kills(2);
    let outages = outages(sink, faults, fault, arrived).await;
    let budget = faults as u64 * outages.window;
    assert!(outages.verdict.repeated as u64 <= budget, "{outages:?}");
    assert!(outages.charged.is_empty(), "{outages:?}");
}

/// B1 of one queue, as when a majority of its members is away: the broker is there, and other queues confirm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the programs of a server; tests/run sees to them"]
async fn a_queue_that_confirms_nothing_is_charged_for_and_three_messages_are_an_outage() {
    let Some(server) = Server::start(Program::RabbitMq).await else {
        return;
    };
    for queue in ["t", "stuck"] {
        declare(&server, queue).await;
    }
    let suspend = r#"{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"stuck">>)), sys:suspend(amqqueue:get_pid(Q))."#;
    server.control(&["eval", suspend]).await;
    let sink = sink(&server);
    let publish = async |queue: &str| {
        let event = Event::new("t").topic(queue);
        let message = Message::from_event(event, "/tests", std::time::UNIX_EPOCH);
        let outcomes = sink.publish(LaneRef::detached(), &[message]).await?;
        Ok::<_, SinkDown>(outcomes.into_iter().next().unwrap())
    };
    let charged = Ok(Outcome::retry(
        "no confirm in time: it may have been stored",
    ));
    for _ in 0..2 {
        assert_eq!(publish("stuck").await, charged);
        assert_eq!(publish("stuck").await, charged);
        assert_eq!(publish("t").await, Ok(Outcome::Acked));
    }
    assert_eq!(publish("stuck").await, charged);
    assert_eq!(publish("stuck").await, charged);
    assert!(publish("stuck").await.is_err());
    assert_eq!(publish("t").await, Ok(Outcome::Acked));
}

/// A user that may publish with some routing keys and not with others: the broker closes the channel over one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the programs of a server; tests/run sees to them"]
async fn a_routing_key_that_is_forbidden_is_charged_to_its_messages_and_others_go_on() {
    let Some(server) = Server::start(Program::RabbitMq).await else {
        return;
    };
    for words in [
        "add_user some secret",
        "set_permissions some .* .* .*",
        "set_topic_permissions some amq.topic ^good$ .*",
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        server.control(&words).await;
    }
    let url = server.url().replace("guest:guest", "some:secret");
    let sink = RabbitMqSink::new(url, "amq.topic")
        .unroutable(Unroutable::Drop)
        .confirm_timeout(CONFIRM * 4)
        .connect_timeout(CONNECT);
    let message = |topic: &str, key: &str| {
        let event = Event::new("t").topic(topic).key(key);
        Message::from_event(event, "/tests", std::time::UNIX_EPOCH)
    };
    let publish = async |batch: &[Message]| {
        let outcomes = sink.publish(LaneRef::detached(), batch).await?;
        Ok::<Vec<Outcome>, SinkDown>(outcomes.into_iter().collect())
    };
    let no = Outcome::retry("no permission to publish it (403)");
    let (ack, not) = (Outcome::Acked, Outcome::NotTried);
    let batch = [
        message("good", "a"),
        message("bad", "b"),
        message("good", "c"),
        message("bad", "a"),
        message("good", "b"),
        message("good", "a"),
    ];
    let expected = vec![
        ack.clone(),
        no.clone(),
        ack.clone(),
        no.clone(),
        not.clone(),
        not,
    ];
    assert_eq!(publish(&batch).await, Ok(expected));

    // Alone it is charged as well, and three of them in a row are an outage, until another one goes.
    let lone: Vec<Message> = (0..20).map(|n| message("bad", &n.to_string())).collect();
    for one in lone.chunks(1).take(2).cycle().take(6) {
        assert_eq!(publish(one).await, Ok(vec![no.clone()]));
    }
    assert!(publish(&lone[2..3]).await.is_err());
    assert!(publish(&lone).await.is_err());
    assert_eq!(publish(&batch[..1]).await, Ok(vec![ack]));
    assert_eq!(publish(&lone[2..3]).await, Ok(vec![no]));
}
